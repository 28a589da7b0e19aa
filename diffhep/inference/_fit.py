"""Maximum-likelihood fit of a binned model."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optimistix as optx
from jaxtyping import Array, Float

from ..numerics import (
    SmallCholesky,
    inverse_spd,
    is_positive_definite,
    matvec,
    solve_optimality,
)
from ._binned_model import BinnedModel, expected_yields, likelihood_change, widest
from ._template_error import eliminate_factors


# Fractions of a Newton step that are tried, the longest first.
_FRACTIONS = (1.0, 0.5, 0.25, 0.0625, 0.0078125)
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

    parameters: Float[Array, " 3"]
    """Signal strength; nuisance parameters of the background's normalisation and of
    the jet energy scale, in standard deviations."""
    covariance: Float[Array, "3 3"]
    """Inverse of the Hessian at the minimum; zero for a fixed signal strength."""
    distance: Float[Array, ""]
    """Estimated vertical distance to the minimum, in units of the negative
    log-likelihood. Its rounding error is about the machine precision times the
    number of events."""
    status: FitStatus
    """How the fit ended."""


def fit(
    model: BinnedModel,
    data: Float[Array, " bins"],
    *,
    strength: Float[Array, ""] | None = None,
    start: Float[Array, " 3"] | None = None,
    num_steps: int = 30,
    adjoint: optx.AbstractAdjoint = IMPLICIT,
    throw: bool = False,
) -> FitResult:
    """The parameters at which the data are likeliest, with their covariance.

    Newton's method, damped by a line search; where the Hessian is not positive
    definite its Fisher approximation takes its place. In 64 bits wherever JAX has them.

    Args:
        model: The model.
        data: Observed number of events per bin; need not be whole.
        strength: Signal strength to hold fixed; free unless given.
        start: Where to begin; no signal change and no pulls unless given.
        num_steps: How many Newton steps to take.
        adjoint: How the gradient crosses the fit.
        throw: Whether a fit that fails raises. Its status tells otherwise.

    Returns:
        The result.

    Raises:
        RuntimeError: The fit failed and `throw` is set.
    """
    model, data = widest((model, data))
    begin = jnp.asarray([1.0, 0.0, 0.0], data.dtype) if start is None else widest(start)
    fixed = None if strength is None else widest(strength)
    begin = begin if fixed is None else begin[1:]
    args = (model, data, fixed)
    root = solve_optimality(
        _newton_step if num_steps else _stay,
        _slope,
        begin,
        args,
        num_steps=num_steps,
        adjoint=adjoint,
    )
    slope, hessian, fisher = _derivatives(root, args)
    covariance = inverse_spd(hessian)
    distance = slope @ matvec(covariance, slope) / 2
    status = _judge(root, slope, fisher, distance)
    if throw:
        root = _raise_if_failed(root, status)
    if fixed is not None:
        covariance = jnp.pad(covariance, ((1, 0), (1, 0)))
    return FitResult(_parameters(root, fixed), covariance, distance, status)


def _parameters(
    free: Float[Array, " free"], fixed: Float[Array, ""] | None
) -> Float[Array, " 3"]:
    return free if fixed is None else jnp.concatenate([fixed[None], free])


def _derivatives(
    free: Float[Array, " free"], args: Any
) -> tuple[Float[Array, " free"], Float[Array, "free free"], Float[Array, "free free"]]:
    # Of the negative log-likelihood: slope, Hessian, and the Hessian's expectation if
    # the model were true there, which is positive definite.
    model, data, fixed = args
    parameters = _parameters(free, fixed)
    rate, first, second = expected_yields(model, parameters)
    constrained = jnp.asarray([0.0, 1.0, 1.0], rate.dtype)
    bins = eliminate_factors(rate, data, model.relative_variance)
    excess = bins.factor - data / rate
    slope = jnp.sum(first * excess[None, :], axis=1) + constrained * parameters
    outer = first[:, None, :] * first[None, :, :]
    curvature = data / rate**2 + bins.slope
    observed = outer * curvature[None, None, :] + second * excess[None, None, :]
    hessian = jnp.sum(observed, axis=-1) + jnp.diag(constrained)
    expected = eliminate_factors(rate, rate, model.relative_variance).slope + 1 / rate
    fisher = jnp.sum(outer * expected[None, None, :], axis=-1) + jnp.diag(constrained)
    if fixed is None:
        return slope, hessian, fisher
    return slope[1:], hessian[1:, 1:], fisher[1:, 1:]


def _slope(free: Float[Array, " free"], args: Any) -> Float[Array, " free"]:
    return _derivatives(free, args)[0]


def _stay(free: Float[Array, " free"], args: Any) -> Float[Array, " free"]:
    del args
    return free


def _newton_step(free: Float[Array, " free"], args: Any) -> Float[Array, " free"]:
    model, data, fixed = args
    slope, hessian, fisher = _derivatives(free, args)
    # A parameter without influence must not move, and must not spoil the others.
    unit = jnp.eye(free.shape[0], dtype=free.dtype)
    ridge = jnp.finfo(free.dtype).eps * jnp.trace(fisher) * unit
    definite = is_positive_definite(hessian + ridge)
    curvature = jnp.where(definite, hessian, fisher) + ridge
    step = -matvec(inverse_spd(curvature), slope)
    fractions = jnp.asarray(_FRACTIONS, free.dtype)
    old = _parameters(free, fixed)
    changes = jax.vmap(
        lambda f: likelihood_change(
            model, _parameters(free + f * step, fixed), old, data
        )
    )(fractions)
    best = jnp.argmin(jnp.where(jnp.isnan(changes), jnp.inf, changes))
    # So close to the minimum the change is rounding error, and Newton's step is right.
    close = definite & (-(slope @ step) < jnp.finfo(free.dtype).eps ** 0.5)
    fraction = jnp.where(close, 1.0, fractions[best])
    improves = close | (changes[best] < 0)
    return jnp.where(improves, free + fraction * step, free)


def _judge(
    root: Float[Array, " free"],
    slope: Float[Array, " free"],
    fisher: Float[Array, "free free"],
    distance: Float[Array, ""],
) -> FitStatus:
    finite = jnp.all(jnp.isfinite(root)) & jnp.all(jnp.isfinite(slope))
    # Not a number where the Hessian is not positive definite: no minimum there.
    near = distance < jnp.finfo(root.dtype).eps ** 0.5
    status = FitStatus.where(near, FitStatus.converged, FitStatus.not_converged)
    status = FitStatus.where(is_positive_definite(fisher), status, FitStatus.degenerate)
    return FitStatus.where(finite, status, FitStatus.not_finite)


def _raise_if_failed(
    root: Float[Array, " free"], status: FitStatus
) -> Float[Array, " free"]:
    for item in (
        FitStatus.not_converged,
        FitStatus.degenerate,
        FitStatus.not_finite,
    ):
        root = eqx.error_if(root, status == item, FitStatus[item])
    return root
