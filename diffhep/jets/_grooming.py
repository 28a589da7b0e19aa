"""Grooming: what is left of a jet without its soft radiation.

Each function takes the constituents of one jet. Which of them stay is an integer
choice, through which no gradient flows; what is computed from those that stay is
pathwise in their momenta.
"""

import equinox as eqx
import jax.numpy as jnp
from jax.lax import stop_gradient
from jaxtyping import Array, Bool, Float, Int

from ..event import MergeHistory
from ..numerics import masked_sum, safe_norm, sanitise
from ._declustering import separation, splittings_of
from ._engine import AbstractEngine, cluster
from ._jets import jet_of_each


# Everything is one jet: fastjet's largest radius.
_WHOLE = 1000.0


class GroomedJet(eqx.Module):
    """A jet after grooming."""

    momentum: Float[Array, " 4"]
    """Four-momentum (px, py, pz, E), in GeV."""
    membership: Bool[Array, " constituents"]
    """Which constituents are left."""


class SoftDropJet(eqx.Module):
    """A jet after soft drop, and the splitting at which it stopped."""

    momentum: Float[Array, " 4"]
    """Four-momentum (px, py, pz, E), in GeV."""
    membership: Bool[Array, " constituents"]
    """Which constituents are left."""
    fraction: Float[Array, ""]
    """Share z_g of the softer branch in the transverse momenta of the two; zero if no
    splitting passes."""
    angle: Float[Array, ""]
    """Their distance R_g; zero if no splitting passes."""
    passed: Bool[Array, ""]
    """Whether a splitting passed. If not, the jet is its last constituent."""


def soft_drop(
    momentum: Float[Array, "constituents 4"],
    mask: Bool[Array, " constituents"],
    *,
    zcut: float = 0.1,
    beta: float = 0.0,
    radius: float = 0.8,
    engine: AbstractEngine | None = None,
) -> SoftDropJet:
    r"""A jet after soft drop (Larkoski et al., arXiv 1402.2657).

    Reclustered with Cambridge/Aachen and undone from the last splitting on, along the
    harder branch, until $z > z_\mathrm{cut} (\Delta R / R_0)^\beta$. With `beta` zero
    it is the modified mass drop.

    Args:
        momentum: Four-momenta of the constituents of one jet (px, py, pz, E), in GeV.
            Dead slots may hold anything.
        mask: Which slots hold a constituent.
        zcut: Least share of the softer branch.
        beta: How that depends on the angle.
        radius: The angle R_0 at which it does not.
        engine: How the history is found; by `JaxEngine` unless given.

    Returns:
        What is left.
    """
    history = _recluster(momentum, mask, power=0.0, radius=_WHOLE, engine=engine)
    splits = splittings_of(history, momentum, mask)
    angle = separation(splits.harder, splits.softer)
    pt, pt_hard = _pt(splits.softer), _pt(splits.harder)
    total = jnp.where(splits.mask, pt + pt_hard, 1.0)
    fraction = pt / total
    steps = jnp.arange(mask.shape[0], dtype=jnp.int32)
    # No gradient through the choice.
    passes = stop_gradient(fraction > zcut * (angle / radius) ** beta)
    passes &= splits.mask & splits.primary
    stop = jnp.max(jnp.where(passes, steps, -1))
    passed = stop >= 0
    place = jnp.maximum(stop, 0)
    # Without one, down to the last constituent.
    first = jnp.min(jnp.where(splits.primary, steps, mask.shape[0]))
    last = splits.harder_slot[jnp.minimum(first, mask.shape[0] - 1)]
    alone = jnp.where(first < mask.shape[0], last, jnp.argmax(mask).astype(last.dtype))
    root = jnp.where(passed, history.keep[place], alone)
    holder = jet_of_each(_until(history, stop), mask)
    inside = (holder == root) & mask
    return SoftDropJet(
        momentum=masked_sum(momentum, inside),
        membership=inside,
        fraction=jnp.where(passed, fraction[place], 0.0),
        angle=jnp.where(passed, angle[place], 0.0),
        passed=passed,
    )


def trim(
    momentum: Float[Array, "constituents 4"],
    mask: Bool[Array, " constituents"],
    *,
    radius: float = 0.2,
    fraction: float = 0.03,
    power: float = 1.0,
    engine: AbstractEngine | None = None,
) -> GroomedJet:
    """A jet after trimming (Krohn, Thaler, Wang, arXiv 0912.1342).

    Args:
        momentum: Four-momenta of the constituents of one jet (px, py, pz, E), in GeV.
            Dead slots may hold anything.
        mask: Which slots hold a constituent.
        radius: Radius of the subjets.
        fraction: Least transverse momentum of a subjet, as a share of the jet's.
        power: Algorithm of the subjets: 1 kt, 0 Cambridge/Aachen, -1 anti-kt.
        engine: How the history is found; by `JaxEngine` unless given.

    Returns:
        The subjets that are left, together.
    """
    history = _recluster(momentum, mask, power=power, radius=radius, engine=engine)
    holder = jet_of_each(history, mask)
    together = (holder[:, None] == holder[None]) & mask[None] & mask[:, None]
    plane = stop_gradient(sanitise(momentum, mask)[:, :2])
    subjets = jnp.sum(jnp.where(together[:, :, None], plane[None], 0.0), axis=1)
    whole = safe_norm(jnp.sum(plane, axis=0))
    inside = mask & (safe_norm(subjets) >= fraction * whole)
    return GroomedJet(masked_sum(momentum, inside), inside)


def _recluster(
    momentum: Float[Array, "constituents 4"],
    mask: Bool[Array, " constituents"],
    *,
    power: float,
    radius: float,
    engine: AbstractEngine | None,
) -> MergeHistory:
    settings = (jnp.asarray(x, momentum.dtype) for x in (radius, power))
    names = dict(zip(("radius", "power"), settings, strict=True))
    return cluster(momentum, mask, **names, engine=engine)


def _until(history: MergeHistory, stop: Int[Array, ""]) -> MergeHistory:
    # The history up to a step, that included.
    done = jnp.arange(history.keep.shape[0], dtype=jnp.int32) <= stop
    return MergeHistory(history.keep, jnp.where(done, history.take, -2))


def _pt(momentum: Float[Array, "*shape 4"]) -> Float[Array, "*shape"]:
    return safe_norm(momentum[..., :2])
