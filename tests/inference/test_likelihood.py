"""Fits of any likelihood: bounds, fixed parameters, failures."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
import pytest

from diffhep.inference import (
    FitStatus,
    FunctionLikelihood,
    Measurement,
    asimov_uncertainty,
    fit_likelihood,
    fit_measurement,
)
from diffhep.testing import check_gradient


def _bowl(parameters, data):
    # A Gaussian with correlations, about a centre.
    centre, precision = data
    shift = parameters - centre
    return shift @ precision @ shift / 2


def _exponential(parameters, data):
    # An unbinned extended likelihood: rate and slope of exponentially falling events.
    rate, slope = parameters[0], parameters[1]
    times, weights = data
    density = rate * slope * jnp.exp(-slope * times)
    return rate - jnp.sum(weights * jnp.log(density))


def _sample(parameters, data):
    # The average experiment: the same points, weighted.
    times, _ = data
    rate, slope = parameters[0], parameters[1]
    density = rate * slope * jnp.exp(-slope * times)
    return times, density * (times[1] - times[0])


CENTRE = jnp.asarray([2.0, -1.0, 0.5])
PRECISION = jnp.asarray([[4.0, 1.0, 0.5], [1.0, 3.0, -0.4], [0.5, -0.4, 2.0]])
_fit = eqx.filter_jit(fit_likelihood)


def test_bounds_of_a_quadratic_form():
    likelihood = FunctionLikelihood(_bowl, (CENTRE, PRECISION))
    upper = jnp.asarray([1.0, jnp.inf, jnp.inf])
    lower = jnp.asarray([-5.0, -0.8, -jnp.inf])
    result = _fit(likelihood, jnp.zeros(3), lower=lower, upper=upper)
    assert result.status == FitStatus.converged
    # Karush, Kuhn and Tucker, by trying each set of active bounds.
    wanted, free = _by_enumeration(np.asarray(lower), np.asarray(upper))
    np.testing.assert_allclose(result.parameters, wanted, rtol=1e-12)
    np.testing.assert_array_equal(result.free, free)
    inner = np.linalg.inv(np.asarray(PRECISION)[np.ix_(free, free)])
    found = np.asarray(result.covariance)
    np.testing.assert_allclose(found[np.ix_(free, free)], inner, rtol=1e-12)
    assert np.all(found[~free] == 0)
    assert np.all(found[:, ~free] == 0)


def _by_enumeration(lower, upper):
    precision, centre = np.asarray(PRECISION), np.asarray(CENTRE)
    best = None
    for sides in np.ndindex(3, 3, 3):
        held = np.asarray(sides) > 0
        point = np.where(np.asarray(sides) == 1, lower, upper)
        if not np.all(np.isfinite(point[held])):
            continue
        free = ~held
        if free.any():
            pull = precision[np.ix_(free, held)] @ (point - centre)[held]
            inner = precision[np.ix_(free, free)]
            point[free] = centre[free] - np.linalg.solve(inner, pull)
        if np.all((point >= lower) & (point <= upper)):
            value = (point - centre) @ precision @ (point - centre)
            if best is None or value < best[0]:
                best = value, point, free
    return best[1], best[2]


def test_fixed_parameters_carry_their_derivative():
    likelihood = FunctionLikelihood(_bowl, (CENTRE, PRECISION))
    fixed = jnp.asarray([False, True, False])

    def best(start, centre):
        other = FunctionLikelihood(_bowl, (centre, PRECISION))
        return _fit(other, start, fixed=fixed).parameters

    start = jnp.asarray([0.3, 0.7, -0.2])
    result = _fit(likelihood, start, fixed=fixed)
    assert result.parameters[1] == 0.7
    assert not result.free[1]
    to_start, to_centre = jax.jacobian(best, argnums=(0, 1))(start, CENTRE)
    free = np.asarray([0, 2])
    precision = np.asarray(PRECISION)
    response = -np.linalg.solve(precision[np.ix_(free, free)], precision[free, 1])
    np.testing.assert_allclose(to_start[free, 1], response, rtol=1e-12)
    assert np.all(to_start[:, free] == 0)
    np.testing.assert_allclose(to_centre[free, 1], -response, rtol=1e-12)
    np.testing.assert_array_equal(to_centre[1], 0.0)


def test_second_derivative_of_a_fit():
    def best(scale):
        data = (jnp.asarray([0.2, 0.5, 1.1, 2.0]) * scale, jnp.ones(4))
        likelihood = FunctionLikelihood(_exponential, data)
        lower = jnp.asarray([1e-3, 1e-3])
        result = fit_likelihood(likelihood, jnp.ones(2), lower=lower, num_steps=30)
        return result.parameters

    # The slope is one over the mean.
    found = jax.jit(lambda x: (best(x), jax.jacfwd(jax.jacfwd(best))(x)))
    value, second = found(jnp.asarray(1.3))
    mean = 0.95
    np.testing.assert_allclose(value, [4.0, 1 / (1.3 * mean)], rtol=1e-12)
    np.testing.assert_allclose(second, [0.0, 2 / (1.3**3 * mean)], atol=1e-10)


def test_implicit_derivative_with_a_bound_agrees_with_the_unrolled_steps():
    upper = jnp.asarray([1.0, jnp.inf, jnp.inf])

    def best(centre, adjoint):
        likelihood = FunctionLikelihood(_bowl, (centre, PRECISION))
        return fit_likelihood(
            likelihood, jnp.zeros(3), upper=upper, num_steps=6, adjoint=adjoint
        ).parameters

    implicit, unrolled = (
        jax.jit(jax.jacrev(lambda x, a=a: best(x, a)))(CENTRE)
        for a in (optx.ImplicitAdjoint(), optx.RecursiveCheckpointAdjoint())
    )
    np.testing.assert_allclose(implicit, unrolled, rtol=1e-10, atol=1e-12)
    np.testing.assert_array_equal(implicit[0], 0.0)
    assert np.all(np.asarray(implicit)[1:, 1:].diagonal() != 0)


def test_asimov_uncertainty_of_an_unbinned_likelihood():
    times = jnp.linspace(0.0, 30.0, 3001)
    likelihood = FunctionLikelihood(
        _exponential, (times, jnp.ones(3001)), expected=_sample
    )
    start = jnp.asarray([400.0, 1.2])
    measurement = Measurement(likelihood, start, jnp.asarray([0.1, 0.1]), None, None, 1)
    # The Fisher information of an exponential: N / slope^2.
    width = asimov_uncertainty(measurement, start)
    np.testing.assert_allclose(width, 1.2 / 20, rtol=5e-3)
    average = eqx.tree_at(
        lambda m: (m.likelihood, m.start),
        measurement,
        (likelihood.asimov(start), jnp.asarray([300.0, 0.8])),
    )
    fitted = fit_measurement(average)
    assert fitted.status == FitStatus.converged
    np.testing.assert_allclose(fitted.parameters, start, rtol=1e-2)
    with pytest.raises(ValueError, match="give `FunctionLikelihood` the function"):
        FunctionLikelihood(_exponential, likelihood.data).asimov(start)


def _draw(parameters, data, key):
    # A Gaussian about the parameters.
    centre, precision = data
    width = jnp.linalg.cholesky(jnp.linalg.inv(precision))
    return parameters + width @ jax.random.normal(key, centre.shape), precision


def test_samples_of_a_function():
    likelihood = FunctionLikelihood(_bowl, (CENTRE, PRECISION), draw=_draw)
    keys = jax.random.split(jax.random.key(0), 2000)

    def best(key, truth):
        return _fit(likelihood.sample(truth, key=key), jnp.zeros(3)).parameters

    truth = jnp.asarray([0.3, 0.1, -0.2])
    found = jax.jit(jax.vmap(lambda key: best(key, truth)))(keys)
    covariance = np.linalg.inv(np.asarray(PRECISION))
    error = np.sqrt(np.diagonal(covariance) / 2000)
    # Four standard errors.
    assert np.all(np.abs(np.mean(found, axis=0) - truth) < 4 * error)
    np.testing.assert_allclose(np.cov(found.T), covariance, atol=4 * 0.5 / 2000**0.5)
    # Draws have no derivative, and can be drawn again.
    assert np.all(jax.jacrev(lambda x: best(keys[0], x))(truth) == 0)
    assert likelihood.sample(truth, key=keys[0]).draw is _draw
    with pytest.raises(ValueError, match="the function `draw`"):
        FunctionLikelihood(_bowl, (CENTRE, PRECISION)).sample(truth, key=keys[0])


def _saddle(parameters, data):
    return data * (parameters[0] ** 4 / 4 - parameters[0] ** 2 / 2) + jnp.sum(
        parameters[1:] ** 2
    )


def test_leaves_a_region_of_negative_curvature():
    likelihood = FunctionLikelihood(_saddle, jnp.asarray(1.0))
    result = _fit(likelihood, jnp.asarray([0.1, 3.0]))
    assert result.status == FitStatus.converged
    np.testing.assert_allclose(result.parameters, [1.0, 0.0], atol=1e-10)


def test_failures_are_told_apart():
    likelihood = FunctionLikelihood(_saddle, jnp.asarray(1.0))
    start = jnp.asarray([30.0, 3.0])
    few = fit_likelihood(likelihood, start, num_steps=1)
    assert few.status == FitStatus.not_converged
    with pytest.raises(RuntimeError, match="did not reach a minimum"):
        fit_likelihood(likelihood, start, num_steps=1, throw=True)
    broken = fit_likelihood(FunctionLikelihood(_saddle, jnp.asarray(jnp.nan)), start)
    assert broken.status == FitStatus.not_finite
    flat = FunctionLikelihood(_saddle, jnp.asarray(0.0))
    assert fit_likelihood(flat, start).status == FitStatus.degenerate


def test_gradient_of_the_covariance():
    def width(times):
        likelihood = FunctionLikelihood(_exponential, (times, jnp.ones(4)))
        lower = jnp.asarray([1e-3, 1e-3])
        result = fit_likelihood(likelihood, jnp.ones(2), lower=lower, num_steps=30)
        return jnp.sqrt(result.covariance[1, 1])

    times = jnp.asarray([0.2, 0.5, 1.1, 2.0])
    check_gradient(jax.jit(width), (times,), rtol=1e-6, order=4, forward=False)
