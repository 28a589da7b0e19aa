"""Maximum-likelihood fits: projected Newton steps, exact derivatives of the outcome."""

import equinox as eqx
import jax
import jax.numpy as jnp
import optimistix as optx
from jax.lax import stop_gradient
from jaxtyping import Array, Bool, Float

from ..numerics import (
    SmallCholesky,
    cond_few,
    inverse_spd,
    matvec,
    safe_sqrt,
    solve_optimality,
)
from ._likelihood import AbstractLikelihood, Derivatives
from ._search import (
    Problem,
    Search,
    find,
    free_ones,
    is_straight,
    newton_step,
    project,
    restrict,
)


IMPLICIT = optx.ImplicitAdjoint(linear_solver=SmallCholesky())


class FitStatus(eqx.Enumeration):
    """How a fit ended."""

    converged = "The fit converged."
    not_converged = (
        "The fit did not reach a minimum; raise `num_steps`, or give a better `start`."
    )
    degenerate = (
        "The likelihood does not constrain every parameter (is the signal empty?); "
        "leave out the parameter, or look at the templates."
    )
    not_finite = (
        "The likelihood is not finite; look for NaN and for negative numbers among "
        "templates and data."
    )
    unbounded = (
        "The likelihood rises steadily along a parameter (are there events at all?); "
        "give the parameter a bound, or the fit another `start`."
    )


class FitResult(eqx.Module):
    """The outcome of a fit."""

    parameters: Float[Array, " parameters"]
    """Where the likelihood is greatest."""
    covariance: Float[Array, "parameters parameters"]
    """Inverse of the Hessian of the free parameters; zero for all others."""
    free: Bool[Array, " parameters"]
    """Which parameters were neither fixed nor ended on a bound."""
    distance: Float[Array, ""]
    """Estimated vertical distance to the minimum, in units of the negative
    log-likelihood. Its rounding error is about the machine precision times the
    number of events."""
    status: FitStatus
    """How the fit ended."""


def standard_deviations(result: FitResult) -> Float[Array, " parameters"]:
    """The errors of the parameters.

    Args:
        result: A fit.

    Returns:
        Roots of the covariance's diagonal, with zero slope where that is zero; NaN
        where it is.
    """
    return safe_sqrt(jnp.diagonal(result.covariance))


def fit_likelihood(
    likelihood: AbstractLikelihood,
    start: Float[Array, " parameters"],
    *,
    lower: Float[Array, " parameters"] | None = None,
    upper: Float[Array, " parameters"] | None = None,
    fixed: Bool[Array, " parameters"] | None = None,
    mirror: bool = False,
    starts: Float[Array, "starts parameters"] | None = None,
    num_steps: int = 100,
    adjoint: optx.AbstractAdjoint = IMPLICIT,
    throw: bool = False,
) -> FitResult:
    r"""The parameters at which the likelihood is greatest, with their covariance.

    Newton's method with a line search, projected onto the bounds; where the Hessian
    does not help, its Fisher approximation takes its place. A parameter along which the
    likelihood rises without curvature goes to its bound. It ends when the next step
    would be as small as rounding, by the quadratic convergence of a smooth likelihood:
    a derivative of the outcome needs a minimum that exact. That derivative is

    $$\delta\hat\theta_F = -H_{FF}^{-1}\,\delta(\partial L/\partial\theta_F)$$

    for the free parameters, that of `start` for fixed ones, and that of the bound for
    those that ended on one. The minimum is a local one, the lowest of those that
    the searches find.

    Args:
        likelihood: What is fitted.
        start: Where to begin; of fixed parameters, their values.
        lower: Lower bounds; none unless given.
        upper: Upper bounds; none unless given.
        fixed: Which parameters keep their value; none unless given. Not static: one
            compilation serves every choice.
        mirror: Whether to search a second time, from the other side of `start`, and
            take the better end. For likelihoods with a kink at `start`, which may have
            a minimum on either side of it.
        starts: Other places where to begin; the best end counts. For likelihoods with
            more than one minimum, as interference makes. One search after the other.
        num_steps: How many Newton steps each search may take.
        adjoint: How the gradient crosses the fit.
        throw: Whether a fit that fails raises. Its status tells otherwise.

    Returns:
        The result.

    Raises:
        ValueError: There are `starts`, and the adjoint differentiates the steps of one
            search.
        RuntimeError: The fit failed and `throw` is set.
    """
    if starts is not None and not isinstance(adjoint, optx.ImplicitAdjoint):
        raise ValueError(
            "Only the implicit adjoint goes with several searches; leave out `adjoint` "
            "or `starts`."
        )
    problem = make_problem(likelihood, start, lower=lower, upper=upper, fixed=fixed)
    begin = project(start, problem)
    update, length = _advance, num_steps
    if isinstance(adjoint, optx.ImplicitAdjoint):
        # Only the minimum counts, not the way to it.
        if num_steps:
            searched, others = stop_gradient((problem, starts))
            begin = find(Search(searched, mirror, num_steps, others))
        update, length = _stay, 0
    root = solve_optimality(
        update,
        _optimality,
        begin,
        problem,
        num_steps=length,
        adjoint=adjoint,
        jacobian=_jacobian,
    )
    result = _describe(root, problem)
    if not throw:
        return result
    parameters = _raise_if_failed(result.parameters, result.status)
    return eqx.tree_at(lambda r: r.parameters, result, parameters)


def make_problem(
    likelihood: AbstractLikelihood,
    start: Float[Array, " parameters"],
    *,
    lower: Float[Array, " parameters"] | None,
    upper: Float[Array, " parameters"] | None,
    fixed: Bool[Array, " parameters"] | None,
) -> Problem:
    """What a search for the minimum has to know.

    Args:
        likelihood: What is fitted.
        start: Where to begin; of fixed parameters, their values.
        lower: Lower bounds.
        upper: Upper bounds.
        fixed: Which parameters keep their value.

    Returns:
        The problem.
    """
    if fixed is not None:
        # The bounds are for what moves.
        lower = None if lower is None else jnp.where(fixed, -jnp.inf, lower)
        upper = None if upper is None else jnp.where(fixed, jnp.inf, upper)
    return Problem(likelihood, start, lower, upper, fixed)


def describe_end(end: Float[Array, " parameters"], problem: Problem) -> FitResult:
    """The result of a fit whose search has ended, with its implicit derivatives.

    Args:
        end: Where it ended. No gradient flows to it.
        problem: What is fitted.

    Returns:
        The result.
    """
    root = solve_optimality(
        _stay,
        _optimality,
        end,
        problem,
        num_steps=0,
        adjoint=IMPLICIT,
        jacobian=_jacobian,
    )
    return _describe(root, problem)


def _advance(point: Float[Array, " n"], problem: Problem) -> Float[Array, " n"]:
    first, mode = newton_step(point, jnp.asarray(0), problem, branch=jax.lax.cond)
    second, _ = newton_step(point, jnp.asarray(1), problem, branch=jax.lax.cond)
    return jnp.where(mode == 1, second, first)


def _stay(point: Float[Array, " n"], problem: Problem) -> Float[Array, " n"]:
    del problem
    return point


def _anchor(point: Float[Array, " n"], problem: Problem) -> Float[Array, " n"]:
    # What parameters that do not move are: the values of the fixed ones, the bounds.
    anchor = stop_gradient(point)
    if problem.lower is not None:
        anchor = jnp.where(anchor <= problem.lower, problem.lower, anchor)
    if problem.upper is not None:
        anchor = jnp.where(anchor >= problem.upper, problem.upper, anchor)
    if problem.fixed is not None:
        anchor = jnp.where(problem.fixed, problem.held, anchor)
    return anchor


def _optimality(point: Float[Array, " n"], problem: Problem) -> Float[Array, " n"]:
    still = stop_gradient(point)
    slope = problem.likelihood.derivatives(still).slope
    free = free_ones(still, stop_gradient(slope), problem)
    anchor = _anchor(point, problem)
    # The free parameters depend on where the others are held, and not on `point` there:
    # the Jacobian is symmetric.
    slope = problem.likelihood.derivatives(jnp.where(free, point, anchor)).slope
    return jnp.where(free, slope, point - anchor)


def _jacobian(point: Float[Array, " n"], problem: Problem) -> Float[Array, "n n"]:
    slope, hessian, _ = problem.likelihood.derivatives(point)
    return restrict(hessian, free_ones(point, slope, problem))


def _describe(root: Float[Array, " n"], problem: Problem) -> FitResult:
    derivatives = problem.likelihood.derivatives(root)
    free = free_ones(root, derivatives.slope, problem)
    slope = jnp.where(free, derivatives.slope, 0.0)
    both = free[:, None] & free[None, :]
    covariance = inverse_spd(restrict(derivatives.hessian, free))
    covariance = jnp.where(both, covariance, 0.0)
    distance = slope @ matvec(covariance, slope) / 2
    status = _judge(root, derivatives, free, covariance)
    return FitResult(root, covariance, free, distance, status)


def _judge(
    root: Float[Array, " n"],
    derivatives: Derivatives,
    free: Bool[Array, " n"],
    covariance: Float[Array, "n n"],
) -> FitStatus:
    slope, hessian, fisher = derivatives
    slope = jnp.where(free, slope, 0.0)
    finite = jnp.all(jnp.isfinite(root)) & jnp.all(jnp.isfinite(slope))
    # Not a number where the Hessian is not positive definite: no minimum there.
    distance = slope @ matvec(covariance, slope) / 2
    near = distance < jnp.finfo(root.dtype).eps ** 0.5
    determined = cond_few(
        ~_is_determined(hessian, covariance),
        lambda matrix: _is_determined(matrix, inverse_spd(matrix)),
        lambda _: jnp.asarray(True),
        stop_gradient(restrict(fisher, free)),
    )
    status = FitStatus.where(near, FitStatus.converged, FitStatus.not_converged)
    status = FitStatus.where(determined, status, FitStatus.degenerate)
    endless = jnp.any(is_straight(slope, hessian, fisher))
    status = FitStatus.where(endless, FitStatus.unbounded, status)
    return FitStatus.where(finite, status, FitStatus.not_finite)


def _is_determined(
    matrix: Float[Array, "n n"], inverse: Float[Array, "n n"]
) -> Bool[Array, ""]:
    # Whether each parameter has curvature of its own, beyond rounding: one over this
    # product is the share that the other parameters leave.
    share = jnp.diagonal(matrix) * jnp.diagonal(inverse)
    return jnp.all(share * 4 * jnp.finfo(matrix.dtype).eps < 1)


def _raise_if_failed(root: Float[Array, " n"], status: FitStatus) -> Float[Array, " n"]:
    for item in (
        FitStatus.not_converged,
        FitStatus.degenerate,
        FitStatus.not_finite,
        FitStatus.unbounded,
    ):
        root = eqx.error_if(root, status == item, FitStatus[item])
    return root
