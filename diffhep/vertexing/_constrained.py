"""Least squares under exact constraints, by Lagrange's multipliers."""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optimistix as optx
from jaxtyping import Array, Bool, Float

from ..numerics import (
    SmallGeneral,
    inverse_general,
    matmul,
    matvec,
    solve_optimality,
)


Constraint = Callable[
    [Float[Array, " measured"], Float[Array, " unmeasured"]],
    Float[Array, " constraints"],
]
"""What has to vanish, as a function of what was measured and what was not. As an
`equinox.Module` it may hold arrays, to which gradients flow; as a function it may not
close over any."""


class ConstraintStatus(eqx.Enumeration):
    """How a fit with constraints ended."""

    good = "The constraints are met at the least chi-squared."
    singular = (
        "The constraints contradict or repeat each other, or do not determine what was "
        "not measured."
    )
    not_converged = (
        "The fit did not reach its minimum: the constraints may be far from what was "
        "measured, or more steps are needed (`num_steps`)."
    )


class ConstrainedFit(eqx.Module):
    """Measurements improved by constraints, and what they say about the rest."""

    measured: Float[Array, " measured"]
    """The improved measurements."""
    unmeasured: Float[Array, " unmeasured"]
    """What was not measured."""
    covariance: Float[Array, "all all"]
    """Covariance of both, the improved measurements first."""
    chi2: Float[Array, ""]
    """Chi-squared of the change of the measurements."""
    ndf: int = eqx.field(static=True)
    """Degrees of freedom: constraints less unmeasured quantities."""
    converged: Bool[Array, ""]
    """Whether the solution was reached, to about 1e-6 standard deviations (0.03 in
    single precision). If not, all is finite and means nothing."""
    status: ConstraintStatus
    """How the fit ended: a sentence to read, a value to compare with."""


class _Problem(eqx.Module):
    constraints: tuple[Any, ...]
    measured: Float[Array, " measured"]
    covariance: Float[Array, "measured measured"]

    def __call__(
        self, unknowns: Float[Array, " unknowns"]
    ) -> Float[Array, " constraints"]:
        # Of measurements and unmeasured quantities in one vector.
        measured, unmeasured = jnp.split(unknowns, self.measured.shape)
        parts = [constraint(measured, unmeasured) for constraint in self.constraints]
        return jnp.concatenate(parts)


# What is solved, and where the search for measurements and the rest begins.
_Args = tuple[_Problem, Float[Array, " unknowns"]]


def fit_constrained(
    measured: Float[Array, " measured"],
    covariance: Float[Array, "measured measured"],
    constraints: Sequence[Constraint],
    *,
    unmeasured: Float[Array, " unmeasured"] | None = None,
    num_steps: int = 15,
    adjoint: optx.AbstractAdjoint | None = None,
) -> ConstrainedFit:
    r"""The smallest change of measurements that meets constraints exactly.

    Makes $\chi^2 = (q-q_0)^TV^{-1}(q-q_0) + 2\lambda^Th(q, u)$ stationary in the
    measured $q$, the unmeasured $u$ and the multipliers $\lambda$, linearised anew in
    each step, as in Frodesen, Skjeggestad and Tofte, "Probability and statistics in
    particle physics" (1979), chapter 10. $V$ is never inverted: measurements without
    errors may be among the others. The derivatives of the fit to measurements,
    covariance and whatever the constraints hold are those of the implicit function
    theorem for all equations together.

    Args:
        measured: The measurements.
        covariance: Their covariance.
        constraints: What has to vanish; any number of functions together.
        unmeasured: Where to start for what was not measured; nothing unless given. No
            gradient flows to it.
        num_steps: Number of steps. Each linearises: the error falls by a constant
            factor, that of the constraints' curvature within the errors.
        adjoint: How the gradient crosses the fit; implicit unless given.

    Returns:
        The fit.

    Raises:
        ValueError: There is no constraint or no step, or there are more unmeasured
            quantities than constraints.
    """
    if num_steps < 1 or not constraints:
        raise ValueError(
            f"`num_steps` is {num_steps} and there are {len(constraints)} "
            "`constraints`; take at least one step and one constraint."
        )
    if unmeasured is None:
        unmeasured = jnp.zeros((0,), measured.dtype)
    problem = _Problem(tuple(constraints), measured, covariance)
    start = jnp.concatenate([measured, unmeasured])
    number = jax.eval_shape(problem, start).shape[0]
    if number < unmeasured.shape[0]:
        raise ValueError(
            f"There are {unmeasured.shape[0]} unmeasured quantities and {number} "
            "constraints; as many constraints at least are needed to determine them."
        )
    root = solve_optimality(
        _update,
        _stationary,
        jnp.concatenate([start, jnp.zeros((number,), start.dtype)]),
        (problem, start),
        num_steps=num_steps,
        adjoint=optx.ImplicitAdjoint(SmallGeneral()) if adjoint is None else adjoint,
        symmetric=False,
    )
    return _summary(root, problem, start)


def _stationary(solution: Float[Array, " all"], args: _Args) -> Float[Array, " all"]:
    # Half the gradient of chi-squared: to q times V, to u, and to the multipliers.
    problem, start = args
    size = problem.measured.shape[0]
    unknowns, multipliers = jnp.split(solution, start.shape)
    values, pull_back = jax.vjp(problem, unknowns)
    (force,) = pull_back(multipliers)
    shift = unknowns[:size] - problem.measured
    moved = shift + matvec(problem.covariance, force[:size])
    return jnp.concatenate([moved, force[size:], values])


def _matrix(
    unknowns: Float[Array, " unknowns"], problem: _Problem
) -> Float[Array, "all all"]:
    # Of the linearised equations: the constraints' second derivatives are left out.
    size = problem.measured.shape[0]
    slopes = jax.jacfwd(problem)(unknowns)
    number, free = slopes.shape[0], slopes.shape[1] - size
    spread = matmul(problem.covariance, slopes[:, :size].T)
    none = jnp.zeros((size, free), slopes.dtype)
    zero = jnp.zeros((number + free, number + free), slopes.dtype)
    return jnp.block(
        [
            [jnp.eye(size, dtype=slopes.dtype), none, spread],
            [none.T, zero[:free, :free], slopes[:, size:].T],
            [slopes[:, :size], slopes[:, size:], zero[:number, :number]],
        ]
    )


def _update(solution: Float[Array, " all"], args: _Args) -> Float[Array, " all"]:
    unknowns = solution[: args[1].shape[0]]
    inverse = inverse_general(_matrix(unknowns, args[0]))
    move = -matvec(inverse, _stationary(solution, args))
    # Without a step to take it stays where it was, finite.
    return solution + jnp.where(jnp.all(jnp.isfinite(move)), move, 0.0)


def _summary(
    root: Float[Array, " all"], problem: _Problem, start: Float[Array, " unknowns"]
) -> ConstrainedFit:
    size, total = problem.measured.shape[0], start.shape[0]
    unknowns, multipliers = jnp.split(root, start.shape)
    matrix = _matrix(unknowns, problem)
    # Singular by the product with its inverse, whose diagonal has no unit.
    sure = inverse_general(jax.lax.stop_gradient(matrix))
    error = jnp.max(jnp.abs(jnp.sum(matrix * sure.T, axis=1) - 1))
    regular = error < jnp.sqrt(jnp.finfo(error.dtype).eps)
    one = jnp.eye(matrix.shape[0], dtype=matrix.dtype)
    inverse = inverse_general(jnp.where(regular, matrix, one))
    # What a change of the measurements does to all.
    response = inverse[:total, :size]
    covariance = matmul(response, matmul(problem.covariance, response.T))
    _, pull_back = jax.vjp(problem, unknowns)
    force = pull_back(multipliers)[0][:size]
    move = matvec(inverse, _stationary(root, (problem, start)))[:total]
    width = jnp.sqrt(
        jnp.concatenate(
            [jnp.diagonal(problem.covariance), jnp.diagonal(covariance)[size:]]
        )
    )
    far = jnp.max(jnp.abs(move) / jnp.where(width > 0, width, 1.0))
    # False for NaN.
    close = far < 1e2 * jnp.sqrt(jnp.finfo(far.dtype).eps)
    ended = ConstraintStatus.where(
        close, ConstraintStatus.good, ConstraintStatus.not_converged
    )
    return ConstrainedFit(
        measured=unknowns[:size],
        unmeasured=unknowns[size:],
        covariance=covariance,
        chi2=-jnp.sum((unknowns[:size] - problem.measured) * force),
        ndf=multipliers.shape[0] - (total - size),
        converged=regular & close,
        status=ConstraintStatus.where(regular, ended, ConstraintStatus.singular),
    )
