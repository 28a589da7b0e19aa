from collections.abc import Callable
from typing import Any, no_type_check

import jax
import lineax as lx
import optimistix as optx
from jaxtyping import Array, Float, PyTree


def solve_optimality(
    update: Callable[[Float[Array, " n"], PyTree], Float[Array, " n"]],
    optimality: Callable[[Float[Array, " n"], PyTree], Float[Array, " n"]],
    start: Float[Array, " n"],
    args: PyTree,
    *,
    num_steps: int,
    adjoint: optx.AbstractAdjoint,
    symmetric: bool = True,
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

    Returns:
        The solution. The gradient to `start` is zero with the implicit adjoint.
    """
    tags = frozenset({lx.positive_semidefinite_tag}) if symmetric else frozenset()
    inputs = (update, optimality, start, args, num_steps)
    root, _ = adjoint.apply(_primal, _rewrite, inputs, tags)
    return root


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
