"""Many independent systems of three unknowns, and what else is computed at their roots.

`solve_optimality` with `BlockSolver3` does the same in two passes, one through the
condition and one through what is computed at the root. Where both are the same long
computation, one pass takes half of the gradient's compilation.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ._blocks import inverse_blocks
from ._recompute import store


_Values = TypeVar("_Values", bound=PyTree)


def solve_blocks(
    advance: Callable[
        [Float[Array, "blocks 3"], Float[Array, "blocks 3"], _Values, Any],
        Float[Array, "blocks 3"],
    ],
    equations: Callable[
        [Float[Array, "blocks 3"], Any], tuple[Float[Array, "blocks 3"], _Values]
    ],
    start: Float[Array, "blocks 3"],
    args: Any,
    *,
    num_steps: int,
) -> tuple[Float[Array, "blocks 3"], _Values]:
    r"""The roots, found by a fixed number of steps, and the values there.

    With $F(y, a)$ the residual and $G(y, a)$ the values, the derivative is that of the
    implicit function theorem,

    $$\delta y = -\left(\frac{\partial F}{\partial y}\right)^{-1}
        \frac{\partial F}{\partial a}\,\delta a, \quad
      \delta G = \frac{\partial G}{\partial a}\,\delta a
        + \frac{\partial G}{\partial y}\,\delta y,$$

    zero where a block is singular.

    Args:
        advance: One step, `(y, residual, values, args) -> y`. A module-level function:
            it may not close over arrays.
        equations: `(y, args) -> (residual, values)`, likewise. The residual vanishes at
            the solution. Each value has a leading axis `blocks`, and no block may
            depend on the unknowns of another.
        start: Where to begin. No gradient flows to it.
        args: Everything else that both functions depend on.
        num_steps: How many steps to take.

    Returns:
        The roots, and the values.
    """
    return _solve(advance, equations, start, args, num_steps)


@eqx.filter_custom_jvp
def _solve(advance: Any, equations: Any, start: Any, args: Any, num_steps: Any) -> Any:
    def one(carry: Any, _: None) -> tuple[Any, None]:
        after = carry[0]
        residual, values = equations(after, args)
        return (advance(after, residual, values, args), after, values), None

    # The values are those of the step before, so that the equations are compiled once.
    shapes = jax.eval_shape(equations, start, args)[1]
    empty = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    carry, _ = jax.lax.scan(one, (start, start, empty), length=num_steps + 1)
    _, root, values = carry
    return root, values


@_solve.def_jvp
def _solve_jvp(primals: Any, tangents: Any) -> tuple[Any, Any]:
    _, equations, _, args, _ = primals
    root, values = _solve(*primals)
    root = store(root)
    # Arguments without a tangent (integers, say) take no part in the derivative.
    tangent = tangents[3]
    missing = jax.tree.map(lambda t: t is None, tangent, is_leaf=lambda t: t is None)
    constant, moving = eqx.partition(args, missing, is_leaf=lambda t: t is None)

    def at_root(moving: Any) -> Any:
        return equations(root, eqx.combine(moving, constant))

    def along(axis: Float[Array, " 3"]) -> Any:
        direction = jnp.broadcast_to(axis[None, :], root.shape)
        return jax.jvp(lambda y: equations(y, args), (root,), (direction,))[1]

    _, (change, shifts) = jax.jvp(at_root, (moving,), (tangent,))
    columns, slopes = jax.vmap(along)(jnp.eye(3, dtype=root.dtype))
    inverse = inverse_blocks(jnp.moveaxis(columns, 0, -1))
    move = -jnp.sum(inverse * change[:, None, :], axis=2)

    def total(shift: Any, slope: Any) -> Any:
        ways = jnp.reshape(move.T, (*move.T.shape, *(1,) * (shift.ndim - 1)))
        return shift + jnp.sum(ways * slope, axis=0)

    return (root, values), (move, jax.tree.map(total, shifts, slopes))
