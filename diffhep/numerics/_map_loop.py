"""A loop of unknown length for each of many inputs, some at a time, none waiting."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, PyTree


class LoopEnds(NamedTuple):
    """How the loops of `map_loop` ended."""

    states: PyTree
    """Their last states, with a leading axis."""
    num_iterations: Int[Array, ""]
    """How many steps all lanes took together. Times the lanes, less the sum of the
    loops' own steps, that is what idle lanes did in vain."""


class _Lanes(NamedTuple):
    states: PyTree
    task: Int[Array, " lanes"]
    # Which input a lane works on; their number, if there is none left.
    upcoming: Int[Array, ""]
    ends: PyTree
    num_iterations: Int[Array, ""]


def map_loop(
    begin: Callable[[Any], Any],
    proceed: Callable[[Any, Any], Bool[Array, ""]],
    advance: Callable[[Any, Any], Any],
    inputs: PyTree,
    *,
    lanes: int,
) -> LoopEnds:
    """The last states of one while-loop for each input.

    A while-loop under `vmap` runs until the longest of a batch has ended. Here a lane
    whose loop ends takes the next input at once, so that the steps of all lanes are
    about the sum of the loops' lengths over the number of lanes, and the length of the
    last ones. No derivative is taken through it.

    Args:
        begin: The first state, `input -> state`. Of arrays only.
        proceed: Whether to go on, `(state, input) -> yes or no`.
        advance: One step, `(state, input) -> state`. Of a lane without an input its
            outcome does not matter.
        inputs: The inputs, along a leading axis. What all loops share is better closed
            over: it is not copied.
        lanes: How many loops run at a time.

    Returns:
        The last states.

    Raises:
        ValueError: There is no lane.
    """
    if lanes < 1:
        raise ValueError(f"There are {lanes} lanes; give at least one.")
    number = jax.tree.leaves(inputs)[0].shape[0]
    like = jax.eval_shape(jax.vmap(begin), inputs)
    ends = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), like)
    zero = jnp.asarray(0)
    if number == 0:
        return LoopEnds(ends, zero)
    lanes = min(lanes, number)
    task = jnp.arange(lanes)
    states = jax.vmap(begin)(_take(inputs, task))

    def busy(carry: _Lanes) -> Bool[Array, ""]:
        return jnp.any(carry.task < number)

    def step(carry: _Lanes) -> _Lanes:
        states, task, upcoming, ends, num_iterations = carry
        own = _take(inputs, jnp.minimum(task, number - 1))
        going = (task < number) & jax.vmap(proceed)(states, own)
        states = _choose(going, jax.vmap(advance)(states, own), states)
        over = (task < number) & ~jax.vmap(proceed)(states, own)
        # No loop has this number: what is not over is not written.
        slot = jnp.where(over, task, number)
        ends = jax.tree.map(
            lambda all_ends, x: all_ends.at[slot].set(x, mode="drop"), ends, states
        )
        after = jnp.minimum(upcoming + jnp.cumsum(over) - 1, number)
        task = jnp.where(over, after, task)
        upcoming = jnp.minimum(upcoming + jnp.sum(over), number)
        fresh = over & (task < number)

        def refill() -> Any:
            taken = _take(inputs, jnp.minimum(task, number - 1))
            return _choose(fresh, jax.vmap(begin)(taken), states)

        states = jax.lax.cond(jnp.any(fresh), refill, lambda: states)
        return _Lanes(states, task, upcoming, ends, num_iterations + 1)

    first = _Lanes(states, task, jnp.asarray(lanes), ends, zero)
    last = jax.lax.while_loop(busy, step, first)
    return LoopEnds(last.ends, last.num_iterations)


def _take(inputs: PyTree, index: Int[Array, "*some"]) -> PyTree:
    return jax.tree.map(lambda x: x[index], inputs)


def _choose(which: Bool[Array, " lanes"], new: PyTree, old: PyTree) -> PyTree:
    # Not a product: what is not chosen may be NaN.
    return jax.tree.map(lambda x, y: jax.vmap(jnp.where)(which, x, y), new, old)
