"""Exclusive jets: a history stopped before its end."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ..event import MergeHistory
from ._declustering import splittings_of
from ._jets import jet_of_each, recombine
from ._metric import AbstractMetric, RapidityAzimuth
from ._scheme import AbstractScheme


def exclusive_jets(
    history: MergeHistory,
    mask: Bool[Array, " constituents"],
    *,
    num_jets: int,
    num_steps: Int[Array, ""] | None = None,
) -> Bool[Array, "jets constituents"]:
    """What is left of a history that is stopped early: of kt, Durham, Cambridge.

    As fastjet's `exclusive_jets`: what was merged with the beam until then belongs to
    none. `exclusive_momenta` gives their momenta.

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
    stopped = _stopped(history, mask, num_jets, num_steps)
    holder, names = jet_of_each(stopped, mask), _names(stopped, mask, num_jets)
    return (holder[None] == names[:, None]) & mask[None]


def exclusive_momenta(
    history: MergeHistory,
    momentum: Float[Array, "constituents 4"],
    mask: Bool[Array, " constituents"],
    *,
    num_jets: int,
    num_steps: Int[Array, ""] | None = None,
    scheme: AbstractScheme | None = None,
) -> Float[Array, "jets 4"]:
    """The four-momenta of `exclusive_jets`, in the same order.

    Args:
        history: Which pseudojets merged.
        momentum: Four-momenta (px, py, pz, E), in GeV. Dead slots may hold anything.
        mask: Which slots hold a constituent.
        num_jets: How many there are to be; if `num_steps` is given, how many slots
            there are for them.
        num_steps: After how many steps to stop; unless given, as soon as `num_jets` are
            left.
        scheme: How momenta are recombined; by `EScheme` unless given.

    Returns:
        Four-momenta, in GeV, pathwise in those of the constituents; zero where there
        are fewer jets.
    """
    stopped = _stopped(history, mask, num_jets, num_steps)
    names = _names(stopped, mask, num_jets)
    found = recombine(stopped, momentum, mask, scheme=scheme)
    some = names < mask.shape[0]
    place = jnp.where(some, names, 0)
    return jnp.where(some[:, None], found[place], 0.0)


def _stopped(
    history: MergeHistory,
    mask: Bool[Array, " constituents"],
    num_jets: int,
    num_steps: Int[Array, ""] | None,
) -> MergeHistory:
    if num_jets < 1:
        raise ValueError(
            f"`num_jets` is {num_jets}, but at least one jet must be left; ask for 1."
        )
    if num_steps is None:
        num_steps = jnp.sum(mask, dtype=jnp.int32) - num_jets
    done = jnp.arange(mask.shape[0], dtype=jnp.int32) < num_steps
    return MergeHistory(history.keep, jnp.where(done, history.take, -2))


def _names(
    history: MergeHistory, mask: Bool[Array, " constituents"], num_jets: int
) -> Int[Array, " jets"]:
    # The slots of what is left, increasing; one beyond all for none.
    slots = jnp.arange(mask.shape[0], dtype=history.keep.dtype)
    ended = jnp.any(slots[:, None] == _beams(history)[None], axis=1)
    left = mask & (jet_of_each(history, mask) == slots) & ~ended
    names = jnp.sort(jnp.where(left, slots, mask.shape[0]))
    missing = max(num_jets - mask.shape[0], 0)
    return jnp.pad(names, (0, missing), constant_values=mask.shape[0])[:num_jets]


def _beams(history: MergeHistory) -> Int[Array, " steps"]:
    return jnp.where(history.take == -1, history.keep, -1)


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
    metric: AbstractMetric | None = None,
    scheme: AbstractScheme | None = None,
) -> Float[Array, " steps"]:
    """The distance d_ij or d_iB of each step of a history.

    Args:
        history: Which pseudojets merged.
        momentum: Four-momenta (px, py, pz, E), in GeV. Dead slots may hold anything.
        mask: Which slots hold a constituent.
        radius: Jet radius R.
        power: Power p of the transverse momentum.
        metric: That of the clustering; `RapidityAzimuth` unless given.
        scheme: That of the clustering; `EScheme` unless given.

    Returns:
        The distances, in GeV^2p; infinite where nothing is left to do. Differentiable.
        Divided by the square of the radius (or what stands for it), unless that is
        infinite: then they are Durham's.
    """
    metric = RapidityAzimuth() if metric is None else metric
    splits = splittings_of(history, momentum, mask, scheme=scheme)
    one, other = (
        metric.coordinates(p.T, power[None]) for p in (splits.harder, splits.softer)
    )
    limit = metric.reach2(radius)
    pair = jnp.minimum(one.weight, other.weight) * metric.apart2(one.place, other.place)
    unit = jnp.where(radius == jnp.inf, 1.0, limit)
    distance = jnp.where(splits.mask, pair, limit * one.weight) / unit
    return jnp.where(history.take < -1, jnp.inf, distance)
