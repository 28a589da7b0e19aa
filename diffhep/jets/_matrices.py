"""What is known of each pair of slots, and the loops over all pairs."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ._distance import largest_distance, pair_distance
from ._lanes import Lanes
from ._tiles import (
    SIDE,
    number_of_tiles,
    over_tiles,
    places_of,
    read_block,
    read_tile,
    write_block,
    write_tile,
)


_Index = Int[Array, ""]


class Matrices(eqx.Module):
    """Symmetric matrices over slots, in tiles."""

    distance: Float[Array, "places lanes"]
    """Distances; `largest_distance` where there is no pair."""
    factor: Float[Array, "places lanes"]
    """Unnormalised probability of each pair in this step."""
    share: Float[Array, "places lanes"]
    """The derivative of the log-probability to `distance`, as far as it has not been
    handed on to the pseudojets."""
    stale: Bool[Array, "slots lanes"]
    """Slots whose share has been handed on, and counts as zero."""


def no_matrices(state: Lanes) -> Matrices:
    """Matrices with nothing in them yet.

    Args:
        state: The pseudojets.

    Returns:
        The matrices.
    """
    slots, lanes = state.alive.shape
    places = number_of_tiles(slots // SIDE) * SIDE * SIDE
    zeros = jnp.zeros((places, lanes), state.momentum.dtype)
    return Matrices(zeros, zeros, zeros, jnp.zeros_like(state.alive))


def rearrange(
    matrices: Matrices,
    state: Lanes,
    origin: Int[Array, "slots lanes"],
    *,
    blocks: _Index,
) -> Matrices:
    """The matrices for slots that have moved.

    Args:
        matrices: The matrices before.
        state: The pseudojets after.
        origin: Where each slot comes from.
        blocks: How many blocks of slots hold living ones.

    Returns:
        The matrices after, with `largest_distance` where there is no pair.
    """

    def fill(
        tile: _Index, row: _Index, column: _Index, carry: tuple[Array, Array]
    ) -> tuple[Array, Array]:
        distance, share = carry
        one = read_block(state.jet, row)[:, :, None]
        two = read_block(state.jet, column)[:, None]
        alive = read_block(state.alive, row)[:, None]
        alive &= read_block(state.alive, column)[None]
        number = jnp.arange(SIDE, dtype=jnp.int32)
        below = number[:, None] + row * SIDE > number[None] + column * SIDE
        valid = alive & below[:, :, None]
        new = pair_distance(one, two)
        distance = write_tile(
            distance, tile, jnp.where(valid, new, largest_distance(new))
        )
        place = places_of(
            read_block(origin, row)[:, None], read_block(origin, column)[None]
        )
        place = jnp.reshape(place, (SIDE * SIDE, -1))
        old = jnp.take_along_axis(matrices.share, place, axis=0, mode="clip")
        kept = valid & ~(read_block(stale, row)[:, None])
        kept &= ~(read_block(stale, column)[None])
        old = jnp.where(kept, jnp.reshape(old, valid.shape), 0.0)
        share = write_tile(share, tile, old)
        return distance, share

    stale = jnp.take_along_axis(matrices.stale, origin, axis=0, mode="clip")
    carry = (matrices.distance, jnp.zeros_like(matrices.share))
    distance, share = over_tiles(blocks, origin.shape[0], fill, carry)
    return Matrices(distance, matrices.factor, share, jnp.zeros_like(state.alive))


def least_by_slot(
    matrices: Matrices, beam: Float[Array, "slots lanes"], *, blocks: _Index
) -> Float[Array, "slots lanes"]:
    """The least distance of each slot to the beam or to another.

    Args:
        matrices: The matrices.
        beam: The distances to the beam.
        blocks: How many blocks of slots hold living ones.

    Returns:
        The distances.
    """

    def note(tile: _Index, row: _Index, column: _Index, least: Array) -> Array:
        distance = read_tile(matrices.distance, tile)
        for block, axis in ((row, 1), (column, 0)):
            value = jnp.min(distance, axis=axis)
            value = jnp.minimum(read_block(least, block), value)
            least = write_block(least, block, value)
        return least

    return over_tiles(blocks, beam.shape[0], note, beam)


def fill_factors(
    matrices: Matrices,
    least: Float[Array, " lanes"],
    scale: Float[Array, " lanes"],
    *,
    blocks: _Index,
    slots: int,
) -> tuple[Matrices, Float[Array, "slots lanes"], Float[Array, " lanes"]]:
    """The unnormalised probabilities of all pairs.

    Args:
        matrices: The matrices.
        least: The least distance.
        scale: Sharpness over least distance.
        blocks: How many blocks of slots hold living ones.
        slots: How many slots there are.

    Returns:
        The matrices with their factors; the sum of the factors of each slot; and the
        sum of factor times distance over all pairs.
    """

    def fill(
        tile: _Index, row: _Index, column: _Index, carry: tuple[Array, Array, Array]
    ) -> tuple[Array, Array, Array]:
        factor, weight, moment = carry
        distance = read_tile(matrices.distance, tile)
        new = jnp.exp((least[None, None] - distance) * scale[None, None])
        for block, axis in ((row, 1), (column, 0)):
            part = read_block(weight, block) + jnp.sum(new, axis=axis)
            weight = write_block(weight, block, part)
        # Added up over tiles before it is over slots, which would be slower.
        return write_tile(factor, tile, new), weight, moment + new * distance

    lanes = least.shape[0]
    carry = (
        matrices.factor,
        jnp.zeros((slots, lanes), least.dtype),
        jnp.zeros((SIDE, SIDE, lanes), least.dtype),
    )
    factor, weight, moment = over_tiles(blocks, slots, fill, carry)
    moment = jnp.sum(jnp.sum(moment, axis=0), axis=0)
    return eqx.tree_at(lambda m: m.factor, matrices, factor), weight, moment


def add_shares(
    matrices: Matrices, density: Float[Array, " lanes"], *, blocks: _Index
) -> Matrices:
    """The matrices with the derivatives of a step's normalisation added.

    Args:
        matrices: The matrices, with the factors of the step.
        density: What to multiply these with.
        blocks: How many blocks of slots hold living ones.

    Returns:
        The matrices, in which no slot is stale.
    """

    def fill(tile: _Index, row: _Index, column: _Index, share: Array) -> Array:
        stale = read_block(matrices.stale, row)[:, None]
        stale |= read_block(matrices.stale, column)[None]
        old = jnp.where(stale, 0.0, read_tile(share, tile))
        more = density[None, None] * read_tile(matrices.factor, tile)
        return write_tile(share, tile, old + more)

    share = over_tiles(blocks, matrices.stale.shape[0], fill, matrices.share)
    return Matrices(
        matrices.distance, matrices.factor, share, jnp.zeros_like(matrices.stale)
    )
