"""A branch that a batch takes for those of its lanes that need it."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, PyTree


# Of the lanes of a batch, how many share a turn of the rare branch.
_SHARE = 8


def cond_few(
    predicate: Bool[Array, ""],
    rare: Callable[..., PyTree],
    usual: Callable[..., PyTree],
    *operands: PyTree,
) -> PyTree:
    """`jax.lax.cond`, whose rare branch a batch computes for few lanes.

    Under `vmap`, `jax.lax.cond` computes both branches for all lanes. This one computes
    the rare branch for an eighth of the lanes at a time, as often as there are lanes
    left that take it. Only for what nobody differentiates in reverse.

    Args:
        predicate: Whether to take the rare branch.
        rare: The expensive branch, a function of the operands, which may not close over
            arrays that are batched.
        usual: The cheap one, likewise.
        operands: What both depend on.

    Returns:
        What the branch returns.
    """
    leaves, structure = jax.tree.flatten(operands)

    def on_leaves(branch: Callable[..., PyTree]) -> Callable[..., PyTree]:
        return lambda *leaves: branch(*jax.tree.unflatten(structure, leaves))

    @jax.custom_batching.custom_vmap
    def choose(predicate: Any, *leaves: Any) -> Any:
        return jax.lax.cond(predicate, on_leaves(rare), on_leaves(usual), *leaves)

    @choose.def_vmap
    def choose_batch(size: int, batched: Any, predicate: Any, *leaves: Any) -> Any:
        axes = [0 if x else None for x in batched[1:]]
        group = max(size // _SHARE, 1)
        some = jax.vmap(on_leaves(rare), axes, axis_size=group)

        def busy(carry: Any) -> Bool[Array, ""]:
            return jnp.any(carry[0])

        def turn(carry: Any) -> Any:
            waiting, found = carry
            # No lane has the number that fills up: its outcome is not written.
            (slot,) = jnp.nonzero(waiting, size=group, fill_value=size)
            lane = jnp.minimum(slot, size - 1)
            inside = (
                x if a is None else x[lane] for x, a in zip(leaves, axes, strict=True)
            )
            found = jax.tree.map(
                lambda x, y: x.at[slot].set(y, mode="drop"), found, some(*inside)
            )
            return waiting.at[slot].set(False, mode="drop"), found

        found = jax.vmap(on_leaves(usual), axes, axis_size=size)(*leaves)
        waiting = jnp.broadcast_to(predicate, (size,))
        _, found = jax.lax.while_loop(busy, turn, (waiting, found))
        return found, jax.tree.map(lambda _: True, found)

    return choose(predicate, *leaves)
