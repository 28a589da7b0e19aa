"""The splittings of a clustering history, from which substructure is read."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ..event import MergeHistory
from ..numerics import safe_sqrt, wrap_angle
from ._alive import alive_momentum
from ._distance import coordinates_of
from ._scheme import AbstractScheme, EScheme


class Splittings(eqx.Module):
    """What was merged in each step of a history, in the order of the history."""

    harder: Float[Array, "steps 4"]
    """Four-momentum of the one of larger transverse momentum, in GeV; that of the jet
    where nothing merged."""
    softer: Float[Array, "steps 4"]
    """Four-momentum of the other."""
    harder_slot: Int[Array, " steps"]
    """The slot that names the harder one, as in `MergeHistory`."""
    softer_slot: Int[Array, " steps"]
    """The slot that names the softer one."""
    mask: Bool[Array, " steps"]
    """Which steps merged two."""
    primary: Bool[Array, " steps"]
    """Which of them are found by following the harder branch down from a jet."""


def splittings_of(
    history: MergeHistory,
    momentum: Float[Array, "constituents 4"],
    mask: Bool[Array, " constituents"],
    *,
    scheme: AbstractScheme | None = None,
) -> Splittings:
    """The splittings of all jets of a history.

    Pathwise in the momenta, for a fixed history.

    Args:
        history: Which pseudojets merged.
        momentum: Four-momenta (px, py, pz, E), in GeV. Dead slots may hold anything.
        mask: Which slots hold a constituent.
        scheme: How momenta are recombined; by `EScheme` unless given.

    Returns:
        The splittings.
    """
    rule = EScheme() if scheme is None else scheme

    def merge(
        momenta: Float[Array, "constituents 4"], step: MergeHistory
    ) -> tuple[Array, tuple[Array, Array]]:
        keep, take = step.keep, jnp.maximum(step.take, 0)
        one, other = momenta[keep], momenta[take]
        pair = step.take >= 0
        merged = jnp.where(pair, rule.merge(one, other), one)
        return momenta.at[keep].set(merged), (one, jnp.where(pair, other, one))

    prepared = rule.prepare(alive_momentum(momentum, mask).T).T
    _, (one, other) = jax.lax.scan(merge, prepared, history)
    valid = history.take >= 0
    swap = _pt2(other) > _pt2(one)
    harder = jnp.where(swap, history.take, history.keep)
    softer = jnp.where(swap, history.keep, history.take)
    return Splittings(
        harder=jnp.where(swap[:, None], other, one),
        softer=jnp.where(swap[:, None], one, other),
        harder_slot=harder,
        softer_slot=softer,
        mask=valid,
        primary=_on_hardest_branch(history, harder),
    )


def _pt2(momentum: Float[Array, "*steps 4"]) -> Float[Array, "*steps"]:
    return momentum[..., 0] ** 2 + momentum[..., 1] ** 2


def _on_hardest_branch(
    history: MergeHistory, harder: Int[Array, " steps"]
) -> Bool[Array, " steps"]:
    # Down from the jets: the branch goes on in the harder one of the two.
    slots = jnp.arange(history.keep.shape[0], dtype=history.keep.dtype)

    def down(
        branch: Bool[Array, " steps"], step: tuple[Array, Array, Array]
    ) -> tuple[Array, Array]:
        keep, take, hard = step
        found = branch[keep] & (take >= 0)
        # What was declared a jet begins a branch.
        kept = jnp.where(take >= 0, found & (hard == keep), take == -1)
        branch = jnp.where(slots == keep, kept, branch)
        branch = jnp.where(slots == take, found & (hard == take), branch)
        return branch, found

    steps = (history.keep, history.take, harder)
    return jax.lax.scan(down, slots < 0, steps, reverse=True)[1]


def separation(
    first: Float[Array, "*#shape 4"], second: Float[Array, "*#shape 4"]
) -> Float[Array, "*shape"]:
    """The distance in the plane of rapidity and azimuth.

    Args:
        first: Four-momenta (px, py, pz, E), in GeV.
        second: Others.

    Returns:
        The distances. Their derivative is zero where two directions coincide.
    """
    one, other = (_direction(p) for p in (first, second))
    azimuth = wrap_angle(one[1] - other[1])
    return safe_sqrt((one[0] - other[0]) ** 2 + azimuth**2)


def _direction(momentum: Float[Array, "*shape 4"]) -> Float[Array, "2 *shape"]:
    power = jnp.zeros((1,) * (momentum.ndim - 1), momentum.dtype)
    return coordinates_of(jnp.moveaxis(momentum, -1, 0), power)[:2]
