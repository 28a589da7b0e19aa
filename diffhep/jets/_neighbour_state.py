"""Pseudojets that know their nearest neighbour, and what is recorded of them."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from ._distance import coordinates_of, largest_distance, plane_distance2
from ._lanes import at, slot_numbers
from ._radius import AbstractRadius, radii
from ._tiles import SIDE


Slots = Float[Array, "slots lanes"]
Lanes = Float[Array, " lanes"]
Jet = tuple[Array, ...]


class Parameters(eqx.Module):
    """The parameters of one clustering; with a last axis `lanes`, of several."""

    radius: AbstractRadius
    power: Float[Array, "*lanes"]
    sharpness: Float[Array, "*lanes"]


class State(eqx.Module):
    """The pseudojets, each in the lowest slot of its constituents."""

    momentum: Float[Array, "4 slots lanes"]
    jet: Jet
    """Rapidity, azimuth, weight and radius. In pieces: one array would be copied."""
    gradient: Jet
    """Derivative of the log-probability to `jet`, as far as it has been handed on."""
    alive: Bool[Array, "slots lanes"]
    neighbour: Int[Array, "slots lanes"]
    apart: Slots
    """Squared distance of the neighbour."""
    other: Slots
    """Weight of the neighbour."""
    share: Slots
    """Derivative of the log-probability to the distance of slot and neighbour."""
    stale: Bool[Array, "slots lanes"]
    """Which slots look for another neighbour."""
    left: Int[Array, " lanes"]


class Record(eqx.Module):
    """What the clusterings have produced so far."""

    step: Int[Array, ""]
    keep: Int[Array, "steps lanes"]
    take: Int[Array, "steps lanes"]
    momentum: Float[Array, "steps 4 2 lanes"]
    """Derivative to the momenta of the two pseudojets that end in a step."""
    log_prob: Lanes
    score: PyTree
    """Derivative to the parameters."""


class Draw(eqx.Module):
    """A candidate at random, and its distribution."""

    slot: Int[Array, " lanes"]
    merges: Bool[Array, " lanes"]
    """Whether it is that with the neighbour, and not that with the beam."""
    distance: Lanes
    least_slot: Int[Array, " lanes"]
    least_merges: Bool[Array, " lanes"]
    least: Lanes
    pair: Slots
    """Unnormalised probability of each neighbour."""
    beam: Slots
    """Unnormalised probability of each beam."""
    scale: Lanes
    """Sharpness over least distance; zero in lanes that have finished."""
    norm: Lanes
    mean: Lanes
    """Mean distance of all candidates."""


def jet_of(momentum: Array, parameters: Parameters) -> Jet:
    """Rapidity, azimuth, weight and radius of pseudojets."""
    lead = (1,) * (momentum.ndim - 2)
    power = jnp.reshape(parameters.power, (*lead, -1))
    rapidity, azimuth, weight = coordinates_of(momentum, power)
    return rapidity, azimuth, weight, radii(parameters.radius, momentum)


def start(
    mask: Bool[Array, "slots lanes"],
    momentum: Float[Array, "4 slots lanes"],
    parameters: Parameters,
) -> tuple[State, Record]:
    """Every constituent a pseudojet of its own, and an empty record."""
    slots, lanes = mask.shape
    extra = ((0, -slots % SIDE), (0, 0))
    momentum = jnp.pad(momentum, ((0, 0), *extra), constant_values=1)
    alive = jnp.pad(mask, extra)
    jet = jet_of(momentum, parameters)
    most, number = largest_distance(momentum), slot_numbers(alive)

    def compare(slot: Array, best: tuple[Array, ...]) -> tuple[Array, ...]:
        apart, neighbour, other = best
        row = plane_distance2(tuple(x[slot][None] for x in jet), jet)
        row = jnp.where(alive[slot][None] & (number != slot), row, most)
        nearer = row < apart
        return (
            jnp.where(nearer, row, apart),
            jnp.where(nearer, slot, neighbour),
            jnp.where(nearer, jet[2][slot][None], other),
        )

    zero = jnp.zeros_like(jet[0])
    best = (zero + most, jnp.zeros(zero.shape, jnp.int32), jet[2])
    apart, neighbour, other = jax.lax.fori_loop(0, slots, compare, best)
    state = State(
        momentum=momentum,
        jet=jet,
        gradient=(zero, zero, zero, zero),
        alive=alive,
        neighbour=neighbour,
        apart=apart,
        other=other,
        share=zero,
        stale=jnp.zeros_like(alive),
        left=jnp.sum(alive, axis=0, dtype=jnp.int32),
    )
    record = Record(
        step=jnp.zeros((), jnp.int32),
        keep=jnp.zeros((slots, lanes), jnp.int32),
        take=jnp.full((slots, lanes), -2, jnp.int32),
        momentum=jnp.zeros((slots, 4, 2, lanes), momentum.dtype),
        log_prob=zero[0],
        score=jax.tree.map(jnp.zeros_like, parameters),
    )
    return state, record


def ends_of(
    state: State, draw: Draw
) -> tuple[Int[Array, " lanes"], Int[Array, " lanes"]]:
    """The lower and the higher slot of a draw; the same twice for the beam."""
    other = jnp.where(draw.merges, at(state.neighbour, draw.slot), draw.slot)
    return jnp.minimum(draw.slot, other), jnp.maximum(draw.slot, other)


def first_lowest(values: Slots) -> Int[Array, " lanes"]:
    """The first slot of the least value."""
    # Two passes over contiguous lanes: faster than an argmin, which is one over pairs.
    number = slot_numbers(values)
    last = values.shape[0] - 1
    return jnp.min(jnp.where(values == jnp.min(values, axis=0)[None], number, last), 0)


def is_slot(like: Array, place: Int[Array, " lanes"]) -> Bool[Array, "slots lanes"]:
    """Which slots are the one of their lane."""
    return slot_numbers(like) == place[None]


def set_slot(values: Array, place: Int[Array, " lanes"], new: Array) -> Array:
    """The values with that of one slot in each lane replaced."""
    # A pass over all slots, which the compiler joins with others: faster than `put`,
    # before which it makes a copy.
    return jnp.where(is_slot(values, place), new[None], values)


def add_slot(values: Slots, place: Int[Array, " lanes"], more: Lanes) -> Slots:
    """The values with something added to that of one slot in each lane."""
    return values + jnp.where(is_slot(values, place), more[None], 0.0)
