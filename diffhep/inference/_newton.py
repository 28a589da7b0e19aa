"""Maximum-likelihood fits: projected Newton steps, exact derivatives of the outcome."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optimistix as optx
from jax.lax import stop_gradient
from jaxtyping import Array, Bool, Float, Int

from ..numerics import (
    SmallCholesky,
    inverse_spd,
    matvec,
    safe_sqrt,
    solve_optimality,
    solve_spd,
)
from ._likelihood import AbstractLikelihood, Derivatives


# Fractions of a Newton step that are tried where the whole one does not do.
_FRACTIONS = (1.0, 0.5, 0.25, 0.0625, 0.0078125)
# Beyond the three kinds of steps.
_DONE = 3
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


class _Problem(eqx.Module):
    # What is fitted, with where the parameters that do not move are held.
    likelihood: AbstractLikelihood
    held: Float[Array, " parameters"]
    lower: Float[Array, " parameters"] | None
    upper: Float[Array, " parameters"] | None
    fixed: Bool[Array, " parameters"] | None


def fit_likelihood(
    likelihood: AbstractLikelihood,
    start: Float[Array, " parameters"],
    *,
    lower: Float[Array, " parameters"] | None = None,
    upper: Float[Array, " parameters"] | None = None,
    fixed: Bool[Array, " parameters"] | None = None,
    mirror: bool = False,
    num_steps: int = 100,
    adjoint: optx.AbstractAdjoint = IMPLICIT,
    throw: bool = False,
) -> FitResult:
    r"""The parameters at which the likelihood is greatest, with their covariance.

    Newton's method with a line search, projected onto the bounds; where the Hessian
    does not help, its Fisher approximation takes its place. It ends when the next step
    would be as small as rounding, by the quadratic convergence of a smooth likelihood:
    a derivative of the outcome needs a minimum that exact. That derivative is

    $$\delta\hat\theta_F = -H_{FF}^{-1}\,\delta(\partial L/\partial\theta_F)$$

    for the free parameters, that of `start` for fixed ones, and that of the bound for
    those that ended on one. The minimum is a local one.

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
        num_steps: How many Newton steps to take at most.
        adjoint: How the gradient crosses the fit.
        throw: Whether a fit that fails raises. Its status tells otherwise.

    Returns:
        The result.

    Raises:
        RuntimeError: The fit failed and `throw` is set.
    """
    if fixed is not None:
        # The bounds are for what moves.
        lower = None if lower is None else jnp.where(fixed, -jnp.inf, lower)
        upper = None if upper is None else jnp.where(fixed, jnp.inf, upper)
    problem = _Problem(likelihood, start, lower, upper, fixed)
    begin = _project(start, problem)
    update, length = _advance, num_steps
    if isinstance(adjoint, optx.ImplicitAdjoint):
        # Only the minimum counts, not the way to it.
        if num_steps:
            searched = stop_gradient(problem)
            begin = _find(begin, searched, mirror=mirror, num_steps=num_steps)
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


def _project(point: Float[Array, " n"], problem: _Problem) -> Float[Array, " n"]:
    if problem.lower is not None:
        point = jnp.maximum(point, problem.lower)
    if problem.upper is not None:
        point = jnp.minimum(point, problem.upper)
    return point


def _free(
    point: Float[Array, " n"], slope: Float[Array, " n"], problem: _Problem
) -> Bool[Array, " n"]:
    # All but the fixed ones, and those that a bound keeps from going downhill.
    free = jnp.ones(point.shape, bool) if problem.fixed is None else ~problem.fixed
    if problem.lower is not None:
        free = free & ((point > problem.lower) | (slope < 0))
    if problem.upper is not None:
        free = free & ((point < problem.upper) | (slope > 0))
    return free


def _restrict(
    matrix: Float[Array, "n n"], free: Bool[Array, " n"]
) -> Float[Array, "n n"]:
    # To the free parameters; the identity for all others.
    identity = jnp.eye(matrix.shape[0], dtype=matrix.dtype)
    return jnp.where(free[:, None] & free[None, :], matrix, identity)


def _find(
    begin: Float[Array, " n"], problem: _Problem, *, mirror: bool, num_steps: int
) -> Float[Array, " n"]:
    if not mirror:
        return _search(begin, problem, num_steps=num_steps)

    def again(carry: Any, _: None) -> tuple[Any, None]:
        best, origin = carry
        found = _search(origin, problem, num_steps=num_steps)
        better = ~(problem.likelihood.change(found, best) >= 0)
        best = jnp.where(better & jnp.all(jnp.isfinite(found)), found, best)
        return (best, _project(2 * begin - found, problem)), None

    (best, _), _ = jax.lax.scan(again, (begin, begin), length=2)
    return best


def _search(
    begin: Float[Array, " n"], problem: _Problem, *, num_steps: int
) -> Float[Array, " n"]:
    def proceed(carry: Any) -> Bool[Array, ""]:
        _, mode, index = carry
        return (mode < _DONE) & (index < num_steps)

    def advance(carry: Any) -> Any:
        point, mode, index = carry
        return *_newton_step(point, mode, problem), index + 1

    carry = (stop_gradient(begin), jnp.asarray(0), jnp.asarray(0))
    return jax.lax.while_loop(proceed, advance, carry)[0]


def _newton_step(
    point: Float[Array, " n"], mode: Int[Array, ""], problem: _Problem
) -> tuple[Float[Array, " n"], Int[Array, ""]]:
    # The next point, and how to go on: with the Hessian; where that does not help, with
    # its stand-in; at last with the diagonal of this, downhill along the bounds too.
    slope, hessian, fisher = problem.likelihood.derivatives(point)
    free = _free(point, slope, problem)
    slope = jnp.where(free, slope, 0.0)
    tiny = jnp.finfo(point.dtype).eps
    diagonal = jnp.diagonal(fisher)
    curvature = jnp.where(mode == 1, fisher, jnp.diag(diagonal))
    curvature = jnp.where(mode == 0, hessian, curvature)
    # A parameter without influence must not move, and must not spoil the others.
    identity = jnp.eye(point.shape[0], dtype=point.dtype)
    ridge = tiny * jnp.sum(diagonal) * identity
    step = -solve_spd(_restrict(curvature + ridge, free), slope)
    whole = _project(point + step, problem)
    # So close to the minimum the change is rounding error, and Newton's step is right.
    # (No comparison holds where the matrix is not positive definite.)
    decrement = -(slope @ step)
    close = (mode == 0) & (decrement < tiny**0.5)
    # Half of what a parabola promises.
    enough = problem.likelihood.change(whole, point) < -decrement / 4
    chosen, improves = jax.lax.cond(
        close | enough,
        lambda: (whole, jnp.asarray(True)),
        lambda: _shorten(point, step, problem),
    )
    after = jnp.where(improves, 0, mode + 1)
    # Newton's method about squares it: 1e-11 standard deviations are left in double
    # precision, 1e-5 in single.
    after = jnp.where(close & (decrement < tiny**0.7), _DONE, after)
    return chosen, after


def _shorten(
    point: Float[Array, " n"], step: Float[Array, " n"], problem: _Problem
) -> tuple[Float[Array, " n"], Bool[Array, ""]]:
    # The best of some fractions of the step, if it leads downhill.
    fractions = jnp.asarray(_FRACTIONS, point.dtype)
    if problem.lower is not None or problem.upper is not None:
        # A step that bounds bend may lead uphill; as far as the first it does not. No
        # gradient to the fraction: the last steps, which count, are whole ones.
        room = _room(*stop_gradient((point, step, problem)))
        fractions = jnp.concatenate([fractions, jnp.stack([room, room / 4])])
    trials = jax.vmap(lambda f: _project(point + f * step, problem))(fractions)
    changes = jax.vmap(lambda x: problem.likelihood.change(x, point))(trials)
    best = jnp.argmin(jnp.where(jnp.isnan(changes), jnp.inf, changes))
    improves = changes[best] < 0
    return jnp.where(improves, trials[best], point), improves


def _room(
    point: Float[Array, " n"], step: Float[Array, " n"], problem: _Problem
) -> Float[Array, ""]:
    # The fraction of the step up to the first bound.
    some = step != 0
    safe = jnp.where(some, step, 1.0)
    room = jnp.ones_like(point)
    for bound, outwards in ((problem.lower, step < 0), (problem.upper, step > 0)):
        if bound is not None:
            gap = jnp.where(outwards, bound - point, safe)
            room = jnp.minimum(room, gap / safe)
    return jnp.min(room)


def _advance(point: Float[Array, " n"], problem: _Problem) -> Float[Array, " n"]:
    first, mode = _newton_step(point, jnp.asarray(0), problem)
    second, _ = _newton_step(point, jnp.asarray(1), problem)
    return jnp.where(mode == 1, second, first)


def _stay(point: Float[Array, " n"], problem: _Problem) -> Float[Array, " n"]:
    del problem
    return point


def _anchor(point: Float[Array, " n"], problem: _Problem) -> Float[Array, " n"]:
    # What parameters that do not move are: the values of the fixed ones, the bounds.
    anchor = stop_gradient(point)
    if problem.lower is not None:
        anchor = jnp.where(anchor <= problem.lower, problem.lower, anchor)
    if problem.upper is not None:
        anchor = jnp.where(anchor >= problem.upper, problem.upper, anchor)
    if problem.fixed is not None:
        anchor = jnp.where(problem.fixed, problem.held, anchor)
    return anchor


def _optimality(point: Float[Array, " n"], problem: _Problem) -> Float[Array, " n"]:
    still = stop_gradient(point)
    slope = problem.likelihood.derivatives(still).slope
    free = _free(still, stop_gradient(slope), problem)
    anchor = _anchor(point, problem)
    # The free parameters depend on where the others are held, and not on `point` there:
    # the Jacobian is symmetric.
    slope = problem.likelihood.derivatives(jnp.where(free, point, anchor)).slope
    return jnp.where(free, slope, point - anchor)


def _jacobian(point: Float[Array, " n"], problem: _Problem) -> Float[Array, "n n"]:
    slope, hessian, _ = problem.likelihood.derivatives(point)
    return _restrict(hessian, _free(point, slope, problem))


def _describe(root: Float[Array, " n"], problem: _Problem) -> FitResult:
    derivatives = problem.likelihood.derivatives(root)
    free = _free(root, derivatives.slope, problem)
    slope = jnp.where(free, derivatives.slope, 0.0)
    both = free[:, None] & free[None, :]
    covariance = inverse_spd(_restrict(derivatives.hessian, free))
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
    determined = jax.lax.cond(
        _is_determined(hessian, covariance),
        lambda: jnp.asarray(True),
        lambda: _is_determined(fisher, inverse_spd(_restrict(fisher, free))),
    )
    status = FitStatus.where(near, FitStatus.converged, FitStatus.not_converged)
    status = FitStatus.where(determined, status, FitStatus.degenerate)
    return FitStatus.where(finite, status, FitStatus.not_finite)


def _is_determined(
    matrix: Float[Array, "n n"], inverse: Float[Array, "n n"]
) -> Bool[Array, ""]:
    # Whether each parameter has curvature of its own, beyond rounding: one over this
    # product is the share that the other parameters leave.
    share = jnp.diagonal(matrix) * jnp.diagonal(inverse)
    return jnp.all(share * 4 * jnp.finfo(matrix.dtype).eps < 1)


def _raise_if_failed(root: Float[Array, " n"], status: FitStatus) -> Float[Array, " n"]:
    for item in (FitStatus.not_converged, FitStatus.degenerate, FitStatus.not_finite):
        root = eqx.error_if(root, status == item, FitStatus[item])
    return root
