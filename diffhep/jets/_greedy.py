"""Ordinary sequential recombination of many events at once, lanes last.

The least distance of all pairs and beams is that of a pseudojet, its nearest neighbour
in the plane, and its own weight (Cacciari, Salam, hep-ph/0512210). So each slot keeps
its nearest neighbour, and an iteration computes one row of distances: of a merged
pseudojet to all others, or of one whose neighbour is gone, and who looks for another.
The latter only when it would be next: what is gone only makes distances larger, so that
the old one is a lower bound until then.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ._algorithm import Algorithm
from ._blocks import lanes_last
from ._distance import largest_distance
from ._lanes import at, put, slot_numbers
from ._metric import AbstractMetric
from ._neighbour_state import first_lowest
from ._radius import ConstantRadius, radii
from ._scheme import AbstractScheme


# What stands for a neighbour that is gone.
_GONE = -1
_CPU_BLOCK = 64


class _Jet(NamedTuple):
    """What distances are computed from, in pieces: one array would be copied."""

    place: tuple[Array, ...]
    weight: Array
    limit: Array | None
    """The squared radius, unless it is constant."""


class _Rules(NamedTuple):
    """The algorithm, as the loop needs it."""

    metric: AbstractMetric
    scheme: AbstractScheme
    jet_of: Callable[[Array], _Jet]
    limit_of: Callable[[_Jet], Any]


class _State(eqx.Module):
    """The pseudojets, each in the lowest slot of its constituents."""

    momentum: Float[Array, "4 slots lanes"]
    jet: _Jet
    neighbour: Int[Array, "slots lanes"]
    """The slot of the nearest neighbour, or `_GONE`."""
    apart: Float[Array, "slots lanes"]
    """Squared distance of the neighbour; a lower bound of it if that is gone."""
    key: Float[Array, "slots lanes"]
    """Weight times `apart` or the squared radius, whichever is less; beyond all in
    dead slots."""
    left: Int[Array, " lanes"]
    """How many are alive."""
    keep: Int[Array, "steps lanes"]
    take: Int[Array, "steps lanes"]
    step: Int[Array, " lanes"]


class _Move(eqx.Module):
    """What an iteration does in each lane."""

    low: Int[Array, " lanes"]
    """The slot that looks for a neighbour, or into which two merge."""
    high: Int[Array, " lanes"]
    """The other of the two; the same if there is none."""
    merges: Bool[Array, " lanes"]
    ends: Bool[Array, " lanes"]
    """Whether the slot is declared a jet."""
    active: Bool[Array, " lanes"]


def greedy_history(
    momentum: Float[Array, "constituents 4"],
    mask: Bool[Array, " constituents"],
    algorithm: Algorithm,
) -> tuple[Int[Array, " steps"], Int[Array, " steps"]]:
    """The history of ordinary sequential recombination.

    Args:
        momentum: Four-momenta (px, py, pz, E), in GeV, safe in dead slots.
        mask: Which slots hold a constituent.
        algorithm: The algorithm.

    Returns:
        `keep` and `take` of `MergeHistory`.
    """
    leaves, structure = jax.tree.flatten(algorithm)
    keep, take = _cluster_lanes(structure)(mask, momentum.T, *leaves)
    return keep, take


@functools.cache
def _cluster_lanes(structure: Any) -> Callable[..., tuple[Array, ...]]:
    # One per kind of algorithm: `custom_vmap` knows arrays, not functions.
    def search(mask: Array, momentum: Array, *leaves: Array) -> Any:
        return _search(mask, momentum, jax.tree.unflatten(structure, leaves))

    return lanes_last(search, cpu_block=_CPU_BLOCK)


def _search(
    mask: Bool[Array, "slots lanes"],
    momentum: Float[Array, "4 slots lanes"],
    algorithm: Algorithm,
) -> tuple[Int[Array, "steps lanes"], Int[Array, "steps lanes"]]:
    rules = _rules(algorithm)
    momentum = rules.scheme.prepare(momentum)
    state = jax.lax.while_loop(
        lambda state: jnp.any(state.left > 0),
        lambda state: _apply(state, _choose(state, rules), rules),
        _start(mask, momentum, rules),
    )
    return state.keep, state.take


def _rules(algorithm: Algorithm) -> _Rules:
    radius, metric = algorithm.radius, algorithm.metric
    # A constant one need not be carried along.
    fixed = None
    if isinstance(radius, ConstantRadius):
        fixed = metric.reach2(radius.value)[None]

    def jet_of(momentum: Array) -> _Jet:
        lead = (1,) * (momentum.ndim - 2)
        power = jnp.reshape(algorithm.power, (*lead, -1))
        own = None if fixed is not None else metric.reach2(radii(radius, momentum))
        return _Jet(*metric.coordinates(momentum, power), own)

    def limit_of(jet: _Jet) -> Any:
        return jet.limit if fixed is None else fixed

    return _Rules(metric, algorithm.scheme, jet_of, limit_of)


def _start(
    mask: Bool[Array, "slots lanes"],
    momentum: Float[Array, "4 slots lanes"],
    rules: _Rules,
) -> _State:
    jet = rules.jet_of(momentum)
    most = largest_distance(momentum)
    number = slot_numbers(mask)

    def compare(slot: Array, best: tuple[Array, Array]) -> tuple[Array, Array]:
        apart, neighbour = best
        row = rules.metric.apart2(tuple(x[slot][None] for x in jet.place), jet.place)
        row = jnp.where(mask[slot][None] & (number != slot), row, most)
        nearer = row < apart
        return jnp.where(nearer, row, apart), jnp.where(nearer, slot, neighbour)

    slots = mask.shape[0]
    apart = jnp.full(mask.shape, most)
    neighbour = jnp.zeros(mask.shape, jnp.int32)
    apart, neighbour = jax.lax.fori_loop(0, slots, compare, (apart, neighbour))
    left = jnp.sum(mask, axis=0, dtype=jnp.int32)
    return _State(
        momentum=momentum,
        jet=jet,
        neighbour=neighbour,
        apart=apart,
        key=jnp.where(mask, _own_distance(jet, apart, rules), most),
        left=left,
        keep=jnp.zeros(mask.shape, jnp.int32),
        take=jnp.full(mask.shape, -2, jnp.int32),
        step=jnp.zeros_like(left),
    )


def _own_distance(
    jet: _Jet, apart: Float[Array, "slots lanes"], rules: _Rules
) -> Float[Array, "slots lanes"]:
    return jet.weight * jnp.minimum(apart, rules.limit_of(jet))


def _choose(state: _State, rules: _Rules) -> _Move:
    limit = rules.limit_of(state.jet)
    slot = first_lowest(state.key)
    neighbour = at(state.neighbour, slot)
    bound = limit[0] if limit.shape[0] == 1 else at(limit, slot)
    active = state.left > 0
    known = active & (neighbour != _GONE)
    ends = known & (at(state.apart, slot) >= bound)
    merges = known & ~ends
    other = jnp.where(merges, neighbour, slot)
    return _Move(
        jnp.minimum(slot, other), jnp.maximum(slot, other), merges, ends, active
    )


def _apply(
    state: _State,
    move: _Move,
    rules: _Rules,
) -> _State:
    most = largest_distance(state.apart)
    number = slot_numbers(state.key)
    done = move.merges | move.ends
    one, other = at(state.momentum, move.low), at(state.momentum, move.high)
    momentum = jnp.where(move.merges[None], rules.scheme.merge(one, other), one)
    new = rules.jet_of(momentum)
    here = (number == move.low[None]) & move.active[None]
    jet = jax.tree.map(lambda a, b: jnp.where(here, a[None], b), new, state.jet)
    dead = (state.key >= most) | ((number == move.high[None]) & done[None])
    row = rules.metric.apart2(tuple(x[None] for x in new.place), jet.place)
    row = jnp.where(dead | here, most, row)
    # Whoever is nearer to the new one than to any other; and whose neighbour is gone.
    nearer = (row < state.apart) & move.merges[None]
    orphan = (state.neighbour == move.low[None]) | (state.neighbour == move.high[None])
    neighbour = jnp.where(orphan & done[None], _GONE, state.neighbour)
    neighbour = jnp.where(nearer, move.low[None], neighbour)
    neighbour = jnp.where(here, first_lowest(row)[None], neighbour)
    apart = jnp.where(nearer, row, state.apart)
    apart = jnp.where(here, jnp.min(row, axis=0)[None], apart)
    step = jnp.where(done, state.step, state.keep.shape[0])
    count = done.astype(jnp.int32)
    return _State(
        momentum=put(state.momentum, move.low, momentum),
        jet=jet,
        neighbour=neighbour,
        apart=apart,
        key=jnp.where(dead, most, _own_distance(jet, apart, rules)),
        left=state.left - count,
        keep=put(state.keep, step, move.low),
        take=put(state.take, step, jnp.where(move.merges, move.high, -1)),
        step=state.step + count,
    )
