"""From functions of many clusterings, lanes last, to functions of one under `vmap`."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jaxtyping import Array


_Output = tuple[Array, ...]
_Batched = tuple[bool, ...]

# Lanes that share a loop on an accelerator: it is idle with less, and a block is to fit
# into its memory.
_ACCELERATOR_BLOCK = 4096


def lanes_last(
    search: Callable[..., _Output], *, cpu_block: int
) -> Callable[..., _Output]:
    """A function of single clusterings, of which any nesting of `vmap` is one call.

    Args:
        search: A function of arrays whose last axis is `lanes`, and whose first one is
            the mask [slots, lanes], to arrays whose last axis is `lanes`.
        cpu_block: How many lanes share a loop on a CPU: more would fall out of its
            cache, and fewer pay for overheads.

    Returns:
        The same function of arrays without that axis.
    """

    @custom_vmap
    def lanes(*arrays: Array) -> _Output:
        return _in_blocks(search, arrays, cpu_block)

    @lanes.def_vmap
    def _(size: int, batched: list[bool], *arrays: Array) -> tuple[_Output, _Batched]:
        def fold(array: Array, has_axis: bool) -> Array:
            array = jnp.moveaxis(array, 0, -1) if has_axis else array[..., None]
            shape = (*array.shape[:-1], size)
            return jnp.reshape(jnp.broadcast_to(array, shape), (*shape[:-2], -1))

        def unfold(array: Array) -> Array:
            return jnp.moveaxis(
                jnp.reshape(array, (*array.shape[:-1], -1, size)), -1, 0
            )

        output = lanes(*(map(fold, arrays, batched)))
        return jax.tree.map(unfold, output), jax.tree.map(lambda _: True, output)

    def single(*arrays: Array) -> _Output:
        output = lanes(*(array[..., None] for array in arrays))
        return jax.tree.map(lambda x: x[..., 0], output)

    return single


def _in_blocks(
    search: Callable[..., _Output], arrays: tuple[Array, ...], cpu_block: int
) -> _Output:
    return jax.lax.platform_dependent(
        *arrays,
        cpu=lambda *arrays: _in_blocks_of(cpu_block, search, arrays),
        default=lambda *arrays: _in_blocks_of(_ACCELERATOR_BLOCK, search, arrays),
    )


def _in_blocks_of(
    size: int, search: Callable[..., _Output], arrays: tuple[Array, ...]
) -> _Output:
    # Lanes of similar length share a block, which runs to its longest lane.
    lanes = arrays[0].shape[-1]
    if lanes <= size:
        return search(*arrays)
    order = jnp.argsort(jnp.sum(arrays[0], axis=0, dtype=jnp.int32))
    # An unfilled last block repeats the last lane.
    fill = jnp.repeat(order[-1:], -lanes % size)
    blocks = jnp.reshape(jnp.concatenate([order, fill]), (-1, size))
    output = jax.lax.map(lambda block: search(*(x[..., block] for x in arrays)), blocks)
    back = jnp.argsort(order)

    def join(array: Array) -> Array:
        array = jnp.moveaxis(array, 0, -2)
        return jnp.reshape(array, (*array.shape[:-2], -1))[..., back]

    return jax.tree.map(join, output)
