from collections.abc import Callable
from typing import Any, no_type_check

import equinox as eqx
import jax
import lineax as lx
import optimistix as optx
from jaxtyping import Array, Float, PyTree

from ._linear import matvec
from ._recompute import store
from ._solver import AbstractSmallSolver


def solve_optimality(
    update: Callable[[Float[Array, " n"], PyTree], Float[Array, " n"]],
    optimality: Callable[[Float[Array, " n"], PyTree], Float[Array, " n"]],
    start: Float[Array, " n"],
    args: PyTree,
    *,
    num_steps: int,
    adjoint: optx.AbstractAdjoint,
    symmetric: bool = True,
    jacobian: Callable[[Float[Array, " n"], PyTree], Float[Array, "n n"]] | None = None,
) -> Float[Array, " n"]:
    """The root of `optimality`, found by a fixed number of `update` steps.

    A fixed number, because a while-loop under `vmap` runs to its slowest lane. How
    the gradient crosses the solve is `adjoint`: `optimistix.ImplicitAdjoint`
    applies the implicit function theorem to `optimality` at the solution (the number
    of steps then matters only for how well the root is found);
    `optimistix.RecursiveCheckpointAdjoint` differentiates the steps.

    Args:
        update: One step of the solver, `(y, args) -> y`. A module-level function: it
            may not close over arrays.
        optimality: The condition that vanishes at the solution, `(y, args) ->
            residual`. A module-level function likewise. Its Jacobian must be
            non-singular there.
        start: Where to begin.
        args: Everything that both functions depend on and that is differentiated.
        num_steps: How many steps to take.
        adjoint: How the gradient crosses the solve.
        symmetric: Whether the Jacobian of `optimality` is symmetric positive definite,
            as that of the gradient of a chi-squared is.
        jacobian: The Jacobian of `optimality`, `(y, args) -> matrix`, a module-level
            function, if there is a faster way to it than differentiating.

    Returns:
        The solution. The gradient to `start` is zero with the implicit adjoint.
    """
    if isinstance(adjoint, optx.ImplicitAdjoint) and isinstance(
        adjoint.linear_solver, AbstractSmallSolver
    ):
        return _implicit(
            update, optimality, start, args, num_steps, adjoint.linear_solver, jacobian
        )
    tags = frozenset({lx.positive_semidefinite_tag}) if symmetric else frozenset()
    inputs = (update, optimality, start, args, num_steps)
    root, _ = adjoint.apply(_primal, _rewrite, inputs, tags)
    return root


# Optimistix's own implicit derivative goes through lineax's operators, which compare
# the sharding of what they are called with: inside `shard_map` they refuse. With a
# solver that needs only products with the Jacobian nothing of that is in the way.
@eqx.filter_custom_jvp
def _implicit(  # noqa: PLR0917 - custom_jvp takes positional arguments
    update: Any,
    optimality: Any,
    start: Any,
    args: Any,
    num_steps: Any,
    solver: Any,
    jacobian: Any,
) -> Any:
    del optimality, solver, jacobian
    root, _ = jax.lax.scan(
        lambda y, _: (update(y, args), None), start, length=num_steps
    )
    return root


@_implicit.def_jvp
def _implicit_jvp(primals: Any, tangents: Any) -> tuple[Any, Any]:
    _, optimality, _, args, _, solver, jacobian = primals
    root = store(_implicit(*primals))
    # Arguments without a tangent (integers, say) take no part in the derivative.
    tangent = tangents[3]
    missing = jax.tree.map(lambda t: t is None, tangent, is_leaf=lambda t: t is None)
    constant, moving = eqx.partition(args, missing, is_leaf=lambda t: t is None)

    def at_root(moving: Any) -> Any:
        return optimality(root, eqx.combine(moving, constant))

    matrix = None if jacobian is None else jacobian(root, args)

    def multiply(vector: Any) -> Any:
        if matrix is not None:
            return matvec(matrix, vector)
        return jax.jvp(lambda y: optimality(y, args), (root,), (vector,))[1]

    _, change = jax.jvp(at_root, (moving,), (tangent,))
    return root, -solver.apply(solver.invert(multiply, root), change)


# Optimistix wants plain functions here, and the run-time type checker of the tests
# would wrap them.
@no_type_check
def _primal(inputs: Any) -> tuple[Float[Array, " n"], None]:
    update, _, start, args, num_steps, _while_loop = inputs
    # A scan and not the adjoint's own loop: of known length, so reverse mode works.
    root, _ = jax.lax.scan(
        lambda y, _: (update(y, args), None), start, length=num_steps
    )
    return root, None


@no_type_check
def _rewrite(root: Float[Array, " n"], residual: None, inputs: Any) -> Any:
    del residual
    _, optimality, _, args, *_ = inputs
    return optimality(root, args)
