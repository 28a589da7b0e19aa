"""Symmetric matrices over slots: the lower triangle, in square tiles, lanes last.

A loop over tiles takes only those that hold living slots, so that the work shrinks
with their number although every shape is static. Each pair of slots stands in one
place; what lies on or above the diagonal of a tile on the diagonal belongs to no pair.
"""

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Shaped, UInt


# Slots on the side of a tile, a power of two. With 32 lanes a tile just fits into the
# fastest caches.
SIDE = 16
_SHIFT = SIDE.bit_length() - 1

_Carry = TypeVar("_Carry")
_Index = Int[Array, ""]


def number_of_tiles(blocks: _Index | int) -> _Index | int:
    """Tiles in the lower triangle of so many blocks of slots."""
    return blocks * (blocks + 1) // 2


def over_tiles(
    blocks: _Index,
    slots: int,
    body: Callable[[_Index, _Index, _Index, _Carry], _Carry],
    carry: _Carry,
) -> _Carry:
    """A loop over the tiles of the first blocks of slots.

    Args:
        blocks: How many blocks of slots take part.
        slots: How many slots there are in all.
        body: From the number of the tile, its block of rows, its block of columns (not
            above that of the rows) and the carry to the carry.
        carry: What to begin with.

    Returns:
        The last carry.
    """
    tables = [jnp.asarray(x, jnp.int32) for x in np.tril_indices(slots // SIDE)]

    def one(tile: _Index, carry: _Carry) -> _Carry:
        rows, columns = (
            jax.lax.dynamic_index_in_dim(table, tile, keepdims=False)
            for table in tables
        )
        return body(tile, rows, columns, carry)

    return jax.lax.fori_loop(0, number_of_tiles(blocks), one, carry)


def read_tile(
    matrix: Float[Array, "places lanes"], tile: _Index
) -> Float[Array, "side side lanes"]:
    """One tile."""
    size = SIDE * SIDE
    values = jax.lax.dynamic_slice_in_dim(matrix, tile * size, size)
    return jnp.reshape(values, (SIDE, SIDE, -1))


def write_tile(
    matrix: Float[Array, "places lanes"],
    tile: _Index,
    values: Float[Array, "side side lanes"],
) -> Float[Array, "places lanes"]:
    """The matrix with one tile replaced."""
    size = SIDE * SIDE
    values = jnp.reshape(values, (size, -1))
    return jax.lax.dynamic_update_slice_in_dim(matrix, values, tile * size, axis=0)


def read_block(
    values: Shaped[Array, "*rest slots lanes"], block: _Index
) -> Shaped[Array, "*rest side lanes"]:
    """One block of slots."""
    return jax.lax.dynamic_slice_in_dim(values, block * SIDE, SIDE, axis=-2)


def write_block(
    values: Float[Array, "slots lanes"],
    block: _Index,
    part: Float[Array, "side lanes"],
) -> Float[Array, "slots lanes"]:
    """The values with one block of slots replaced."""
    return jax.lax.dynamic_update_slice_in_dim(values, part, block * SIDE, axis=0)


def places_of(
    one: Int[Array, "*#shape"], two: Int[Array, "*#shape"]
) -> UInt[Array, "*shape"]:
    """Where in a matrix the pair of two slots stands.

    Args:
        one: Slots.
        two: Slots. The same as `one` is a place that belongs to no pair.

    Returns:
        Numbers of places. Unsigned, which spares the test for negative indices.
    """
    row, column = jnp.maximum(one, two), jnp.minimum(one, two)
    # Shifts, because the compiler cannot know that no slot number is negative.
    row_block, column_block = row >> _SHIFT, column >> _SHIFT
    tile = ((row_block * (row_block + 1)) >> 1) + column_block
    place = (tile << (2 * _SHIFT)) | ((row & (SIDE - 1)) << _SHIFT)
    return (place | (column & (SIDE - 1))).astype(jnp.uint32)


def read_row(
    matrix: Float[Array, "places lanes"],
    place: Int[Array, " lanes"],
    own: Float[Array, "slots lanes"],
) -> Float[Array, "slots lanes"]:
    """One slot's row of a symmetric matrix in each lane.

    Args:
        matrix: The matrix.
        place: The slot.
        own: What stands on the diagonal.

    Returns:
        The row.
    """
    number = jnp.arange(own.shape[0], dtype=place.dtype)[:, None]
    lane = jnp.arange(own.shape[1], dtype=jnp.uint32)[None]
    places = places_of(number, place[None])
    row = matrix.at[places, lane].get(mode="promise_in_bounds")
    return jnp.where(number == place[None], own, row)


def write_row(
    matrix: Float[Array, "places lanes"],
    place: Int[Array, " lanes"],
    row: Float[Array, "slots lanes"],
) -> Float[Array, "places lanes"]:
    """The symmetric matrix with one slot's row and column replaced in each lane.

    Args:
        matrix: The matrix.
        place: The slot. Lanes in which it lies beyond all slots are left alone.
        row: The new row; what stands on the diagonal belongs to no pair.

    Returns:
        The new matrix.
    """
    slots, lanes = row.shape
    number = jnp.arange(slots, dtype=place.dtype)[:, None]
    lane = jnp.arange(lanes, dtype=jnp.uint32)[None]
    beyond = jnp.asarray(matrix.shape[0], jnp.uint32)
    places = jnp.where(place[None] < slots, places_of(number, place[None]), beyond)
    return matrix.at[places, lane].set(row, mode="drop", unique_indices=True)


def add_place(
    matrix: Float[Array, "places lanes"],
    one: Int[Array, " lanes"],
    two: Int[Array, " lanes"],
    more: Float[Array, " lanes"],
) -> Float[Array, "places lanes"]:
    """The symmetric matrix with something added to one pair of slots in each lane."""
    lane = jnp.arange(one.shape[0], dtype=jnp.uint32)
    index = (places_of(one, two), lane)
    return matrix.at[index].add(more, mode="promise_in_bounds", unique_indices=True)
