"""Which candidate is the nearest, and which one is drawn."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ._distance import largest_distance, pair_distance
from ._lanes import Lanes, at, first, lowest, slot_numbers, total
from ._matrices import Matrices, fill_factors, least_by_slot
from ._tiles import SIDE, read_row


class Choice(eqx.Module):
    """Two slots that merge; the same slot twice is the beam."""

    keep: Int[Array, " lanes"]
    """The lower slot."""
    take: Int[Array, " lanes"]
    """The other slot."""
    distance: Float[Array, " lanes"]
    """Their distance."""


class Draw(eqx.Module):
    """A choice at random, and its distribution."""

    choice: Choice
    scale: Float[Array, " lanes"]
    """Sharpness over least distance; zero in lanes that have finished."""
    norm: Float[Array, " lanes"]
    """Sum of the factors of all candidates."""
    density: Float[Array, " lanes"]
    """Scale over norm."""
    mean: Float[Array, " lanes"]
    """Mean distance of all candidates."""
    beam_factor: Float[Array, "slots lanes"]
    """Unnormalised probability of each beam."""
    beam_moment: Float[Array, " lanes"]
    """Sum over beams of factor times distance."""


def nearest(
    state: Lanes,
    matrices: Matrices,
    beam: Float[Array, "slots lanes"],
    *,
    blocks: Int[Array, ""],
) -> Choice:
    """The candidate of least distance.

    Args:
        state: The pseudojets.
        matrices: The distances of pairs.
        beam: The distances to the beam.
        blocks: How many blocks of slots hold living ones.

    Returns:
        The candidate; any in a lane that has finished.
    """
    least = least_by_slot(matrices, beam, blocks=blocks)
    distance = lowest(least)
    one = first(least == distance[None])
    # Computed again: a look into the matrix would hinder the compiler from changing it
    # in place.
    row = pair_distance(at(state.jet, one)[:, None], state.jet)
    row = jnp.where(state.alive, row, largest_distance(row))
    row = jnp.where(slot_numbers(row) == one[None], beam, row)
    two = first(row == lowest(row)[None])
    return _choice(one, two, distance)


def _choice(
    one: Int[Array, " lanes"],
    two: Int[Array, " lanes"],
    distance: Float[Array, " lanes"],
) -> Choice:
    # Slots are in the order of their names, so that the lower one keeps.
    return Choice(jnp.minimum(one, two), jnp.maximum(one, two), distance)


def draw(
    state: Lanes,
    matrices: Matrices,
    beam: Float[Array, "slots lanes"],
    *,
    least: Float[Array, " lanes"],
    sharpness: Float[Array, " lanes"],
    uniform: Float[Array, " lanes"],
    blocks: Int[Array, ""],
) -> tuple[Draw, Matrices]:
    """A candidate at random.

    Args:
        state: The pseudojets.
        matrices: The distances of pairs.
        beam: The distances to the beam.
        least: The least of all distances.
        sharpness: Inverse temperature.
        uniform: A random number in [0, 1).
        blocks: How many blocks of slots hold living ones.

    Returns:
        The draw, and the matrices with their factors.
    """
    # Two constituents in one direction have a distance of zero and merge for certain;
    # the floor keeps the ratio finite.
    floor = jnp.finfo(least.dtype).tiny ** 0.75
    scale = sharpness / jnp.maximum(least, floor)
    scale = jnp.where(state.left > 0, scale, 0.0)
    beam_factor = jnp.exp((least[None] - beam) * scale[None])
    matrices, weight, moment = fill_factors(
        matrices, least, scale, blocks=blocks, slots=beam.shape[0]
    )
    # Half of the probability of a pair in each of its rows.
    weight = weight / 2 + beam_factor
    beam_moment = total(beam_factor * beam)
    norm = total(weight)
    one, rest = locate(weight, uniform * norm)
    row = read_row(matrices.factor, one, 2 * beam_factor) / 2
    two, _ = locate(row, rest)
    distance = pair_distance(at(state.jet, one), at(state.jet, two))
    distance = jnp.where(one == two, at(beam, one), distance)
    drawn = Draw(
        choice=_choice(one, two, distance),
        scale=scale,
        density=scale / norm,
        norm=norm,
        mean=(moment + beam_moment) / norm,
        beam_factor=beam_factor,
        beam_moment=beam_moment,
    )
    return drawn, matrices


def locate(
    weight: Float[Array, "slots lanes"], target: Float[Array, " lanes"]
) -> tuple[Int[Array, " lanes"], Float[Array, " lanes"]]:
    # Inverse of the cumulative distribution over slots: the slot in which the target
    # lies, and how far in. First the block, then the slot in it.
    blocks = jnp.reshape(weight, (-1, SIDE, weight.shape[1]))
    block, rest = _locate_along(jnp.sum(blocks, axis=1), target)
    slot, rest = _locate_along(
        jnp.take_along_axis(blocks, block[None, None], axis=0, mode="clip")[0], rest
    )
    return block * SIDE + slot, rest


def _locate_along(
    weight: Float[Array, "options lanes"], target: Float[Array, " lanes"]
) -> tuple[Int[Array, " lanes"], Float[Array, " lanes"]]:
    number = slot_numbers(weight)
    lower = (number > number.T)[:, :, None]
    before = jnp.sum(jnp.where(lower, weight[None], 0.0), axis=1)
    # The last option that may be it, and not the first beyond it: so that rounding
    # never picks one of no weight.
    possible = (weight > 0) & (before <= target[None])
    choice = jnp.max(jnp.where(possible, number, 0), axis=0)
    return choice, target - at(before, choice)
