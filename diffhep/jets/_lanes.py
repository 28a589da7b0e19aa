"""The state of many clusterings at once: one lane per clustering, in the last axis.

A loop whose body is a handful of operations on one small event would be dominated by
overheads; with the lanes last each operation is long and contiguous.
"""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Shaped, UInt

from ._distance import coordinates_of
from ._tiles import SIDE


class Settings(eqx.Module):
    """The parameters of the clustering."""

    radius: Float[Array, " lanes"]
    power: Float[Array, " lanes"]
    sharpness: Float[Array, " lanes"]


class Lanes(eqx.Module):
    """The pseudojets of all lanes, in a whole number of blocks of slots."""

    name: Int[Array, "slots lanes"]
    """The constituent slot that names the pseudojet: the lowest inside it. Names
    increase with the slot."""
    alive: Bool[Array, "slots lanes"]
    """Which slots hold a pseudojet."""
    left: Int[Array, " lanes"]
    """How many do."""
    momentum: Float[Array, "4 slots lanes"]
    """Four-momentum (px, py, pz, E), in GeV."""
    jet: Float[Array, "3 slots lanes"]
    """Coordinates (rapidity, azimuth, weight)."""
    gradient: Float[Array, "3 slots lanes"]
    """Derivative of the log-probability to `jet`, from what has been handed on."""


class Record(eqx.Module):
    """What the clusterings have produced so far."""

    step: Int[Array, ""]
    """Number of steps done."""
    keep: Int[Array, "steps lanes"]
    """As in `MergeHistory`."""
    take: Int[Array, "steps lanes"]
    """As in `MergeHistory`."""
    log_prob: Float[Array, " lanes"]
    """Log-probability of the history."""
    momentum: Float[Array, "steps 4 2 lanes"]
    """Its derivative to the momenta of the two pseudojets that end in a step, in
    1/GeV."""
    radius: Float[Array, " lanes"]
    """Its derivative to the radius."""
    power: Float[Array, " lanes"]
    """Its derivative to the power."""
    sharpness: Float[Array, " lanes"]
    """Its derivative to the sharpness."""


def start(
    momentum: Float[Array, "4 slots lanes"],
    alive: Bool[Array, "slots lanes"],
    power: Float[Array, " lanes"],
) -> tuple[Lanes, Record]:
    """Every constituent a pseudojet of its own.

    Args:
        momentum: Four-momenta, in GeV; finite and not zero in dead slots.
        alive: Which slots hold a constituent.
        power: The power of the transverse momentum.

    Returns:
        The first state, and an empty record.
    """
    slots, lanes = alive.shape
    extra = ((0, -slots % SIDE), (0, 0))
    momentum = jnp.pad(momentum, ((0, 0), *extra), constant_values=1)
    jet = coordinates_of(momentum, power[None])
    alive = jnp.pad(alive, extra)
    state = Lanes(
        name=jnp.broadcast_to(slot_numbers(alive), alive.shape),
        alive=alive,
        left=jnp.sum(alive, axis=0, dtype=jnp.int32),
        momentum=momentum,
        jet=jet,
        gradient=jnp.zeros_like(jet),
    )
    zero = jnp.zeros_like(power)
    record = Record(
        step=jnp.zeros((), jnp.int32),
        keep=jnp.zeros((slots, lanes), jnp.int32),
        take=jnp.full((slots, lanes), -2, jnp.int32),
        log_prob=zero,
        momentum=jnp.zeros((slots, 4, 2, lanes), momentum.dtype),
        radius=zero,
        power=zero,
        sharpness=zero,
    )
    return state, record


def living_first(state: Lanes) -> tuple[Lanes, Int[Array, "slots lanes"]]:
    """The living slots moved to the front, in order.

    Args:
        state: The pseudojets.

    Returns:
        The same pseudojets; and which slot each one comes from.
    """
    rank = jnp.cumsum(state.alive, axis=0, dtype=jnp.int32) - 1
    slots, lanes = rank.shape
    number = jnp.broadcast_to(slot_numbers(rank), rank.shape)
    place = jnp.where(state.alive, rank, slots)
    lane = jnp.arange(lanes, dtype=jnp.int32)[None]
    origin = jnp.zeros_like(rank).at[place, lane].set(number, mode="drop")

    def move(values: Array) -> Array:
        index = jnp.reshape(origin, (1,) * (values.ndim - 2) + origin.shape)
        return jnp.take_along_axis(values, index, axis=-2, mode="clip")

    moved = jax.tree.map(move, (state.name, state.momentum, state.jet, state.gradient))
    name, momentum, jet, gradient = moved
    alive = slot_numbers(rank) < state.left[None]
    return Lanes(name, alive, state.left, momentum, jet, gradient), origin


def slot_numbers(like: Array) -> Int[Array, "slots 1"]:
    """The numbers of all slots of an array [slots, lanes]."""
    return jnp.arange(like.shape[0], dtype=jnp.int32)[:, None]


def total(values: Float[Array, "*rest slots lanes"]) -> Float[Array, "*rest lanes"]:
    """The sum over slots."""
    return jnp.sum(functools.reduce(jnp.add, _by_block(values)), axis=-2)


def lowest(values: Shaped[Array, "slots lanes"]) -> Shaped[Array, " lanes"]:
    """The minimum over slots."""
    return jnp.min(functools.reduce(jnp.minimum, _by_block(values)), axis=-2)


def _by_block(values: Array) -> list[Array]:
    # Not reduced in one go: the compiler emits a faster loop over a short axis.
    return jnp.split(values, values.shape[-2] // SIDE, axis=-2)


def first(condition: Bool[Array, "slots lanes"]) -> Int[Array, " lanes"]:
    """The first slot in which a condition holds; the last slot if there is none."""
    numbers = slot_numbers(condition)
    return lowest(jnp.where(condition, numbers, numbers[-1:]))


def at(values: Array, place: Int[Array, " lanes"]) -> Array:
    """The entry of one slot [slots, lanes] in each lane."""
    return values.at[..., place.astype(jnp.uint32), _lane(place)].get(mode="clip")


def put(values: Array, place: Int[Array, " lanes"], new: Array) -> Array:
    """The values with the entry of one slot [slots, lanes] in each lane replaced.

    A place beyond all slots is left out.
    """
    index = (..., place.astype(jnp.uint32), _lane(place))
    return values.at[index].set(new, mode="drop", unique_indices=True)


def add(values: Array, place: Int[Array, " lanes"], more: Array) -> Array:
    """The values with something added to the entry of one slot in each lane."""
    index = (..., place.astype(jnp.uint32), _lane(place))
    return values.at[index].add(more, mode="drop", unique_indices=True)


def _lane(place: Int[Array, " lanes"]) -> UInt[Array, " lanes"]:
    # Unsigned, which spares the test for negative indices.
    return jnp.arange(place.shape[0], dtype=jnp.uint32)
