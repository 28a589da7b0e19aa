"""Exclusive jets: a history stopped before its end."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ..event import MergeHistory
from ._declustering import splittings_of
from ._distance import beam_distance, coordinates_of, pair_distance
from ._jets import jet_of_each


def exclusive_jets(
    history: MergeHistory,
    mask: Bool[Array, " constituents"],
    *,
    num_jets: int,
    num_steps: Int[Array, ""] | None = None,
) -> Bool[Array, "jets constituents"]:
    """What is left of a history of kt or Cambridge/Aachen that is stopped early.

    As fastjet's `exclusive_jets`: what was merged with the beam until then belongs to
    none. `jets_momentum` gives their momenta.

    Args:
        history: Which pseudojets merged.
        mask: Which slots hold a constituent.
        num_jets: How many there are to be; if `num_steps` is given, how many slots
            there are for them.
        num_steps: After how many steps to stop (`exclusive_steps`); unless given, as
            soon as `num_jets` are left.

    Returns:
        The constituents of each, in the order of their slots; rows without any where
        there are fewer jets.
    """
    if num_jets < 1:
        raise ValueError(
            f"`num_jets` is {num_jets}, but at least one jet must be left; ask for 1."
        )
    if num_steps is None:
        num_steps = jnp.sum(mask, dtype=jnp.int32) - num_jets
    done = jnp.arange(mask.shape[0], dtype=jnp.int32) < num_steps
    take = jnp.where(done, history.take, -2)
    slots = jnp.arange(mask.shape[0], dtype=history.keep.dtype)
    holder = jet_of_each(MergeHistory(history.keep, take), mask)
    beams = jnp.where(take == -1, history.keep, -1)
    gone = jnp.any(slots[:, None] == beams[None], axis=1)
    left = mask & (holder == slots) & ~gone
    names = jnp.sort(jnp.where(left, slots, mask.shape[0]))
    missing = max(num_jets - mask.shape[0], 0)
    names = jnp.pad(names, (0, missing), constant_values=mask.shape[0])[:num_jets]
    return (holder[None] == names[:, None]) & mask[None]


def exclusive_steps(
    distances: Float[Array, " steps"], cut: Float[Array, ""]
) -> Int[Array, ""]:
    """How many steps a history takes until all distances exceed a cut for good.

    As fastjet's `n_exclusive_jets(dcut)`, which is the number of constituents less
    this.

    Args:
        distances: Those of the steps, from `step_distances`.
        cut: The distance d_cut.

    Returns:
        The number of steps with a distance that, like all before, is at most the cut.
    """
    return jnp.sum(jax.lax.cummax(distances) <= cut, dtype=jnp.int32)


def step_distances(
    history: MergeHistory,
    momentum: Float[Array, "constituents 4"],
    mask: Bool[Array, " constituents"],
    *,
    radius: Float[Array, ""],
    power: Float[Array, ""],
) -> Float[Array, " steps"]:
    """The distance d_ij or d_iB of each step of a history.

    Args:
        history: Which pseudojets merged.
        momentum: Four-momenta (px, py, pz, E), in GeV. Dead slots may hold anything.
        mask: Which slots hold a constituent.
        radius: Jet radius R.
        power: Power p of the transverse momentum.

    Returns:
        The distances, in GeV^2p; infinite where nothing is left to do. Differentiable.
    """
    splits = splittings_of(history, momentum, mask)
    one, other = (
        coordinates_of(p.T, power[None]) for p in (splits.harder, splits.softer)
    )
    beam = beam_distance(one, radius[None])
    distance = jnp.where(splits.mask, pair_distance(one, other), beam) / radius**2
    return jnp.where(history.take < -1, jnp.inf, distance)
