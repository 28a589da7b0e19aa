"""Likelihoods with more than one minimum, and fits that begin at several places."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
import pytest
from scipy.optimize import brentq
from scipy.stats import chi2, norm

from diffhep.inference import (
    BoundedTwoSidedTest,
    FitStatus,
    FunctionLikelihood,
    Measurement,
    deviance,
    fit_likelihood,
    fit_measurement,
    fit_toys,
    neyman_interval,
    profile_interval,
    profile_scan,
)


WIDTH = 0.25
LOW, HIGH = jnp.asarray([0.05, 0.0]), jnp.asarray([6.0, 0.0])
_fit = eqx.filter_jit(fit_measurement)


def _rate(parameters):
    # Two bins of |a x + b|^2 with x the root of the strength; the first is largest at
    # no signal and at much of it, the second breaks the symmetry a little.
    root = jnp.sqrt(parameters[0])
    return jnp.stack([(root - 1.2) ** 2 + 1, 1 + 0.1 * root])


def _value(parameters, data):
    measured, auxiliary = data
    pull = parameters[1]
    residual = (measured - _rate(parameters) * (1 + 0.1 * pull)) / WIDTH
    return jnp.sum(residual**2) / 2 + (pull - auxiliary) ** 2 / 2


def _draw(parameters, data, key):
    measured, _ = data
    first, second = jax.random.split(key)
    mean = _rate(parameters) * (1 + 0.1 * parameters[1])
    noise = jax.random.normal(first, measured.shape, measured.dtype)
    drawn = mean + WIDTH * noise
    return drawn, parameters[1] + jax.random.normal(second, (), measured.dtype)


# The rates of a root of 2.1, and not of 0.3, where the first bin is the same.
MEASURED = jnp.asarray([1.81, 1.5])


def _measure(starts, start=LOW):
    data = (MEASURED, jnp.asarray(0.0))
    likelihood = FunctionLikelihood(_value, data, draw=_draw)
    lower, upper = jnp.asarray([0.01, -5.0]), jnp.asarray([16.0, 5.0])
    return Measurement(likelihood, start, lower, upper, None, 0, starts=starts)


def _profiled(strength, measured=MEASURED):
    # With the pull eliminated, which is linear.
    root = np.sqrt(strength)
    rate = np.stack([(root - 1.2) ** 2 + 1, 1 + 0.1 * root])
    measured = np.asarray(measured).reshape(2, *(1,) * (rate.ndim - 1))
    pull = np.sum((measured - rate) * 0.1 * rate / WIDTH**2, axis=0)
    pull = pull / (1 + np.sum((0.1 * rate / WIDTH) ** 2, axis=0))
    residual = (measured - rate * (1 + 0.1 * pull)) / WIDTH
    return np.sum(residual**2, axis=0) + pull**2


GRID = np.linspace(0.01, 16.0, 40001)


def test_the_better_minimum_counts():
    low, high = (_fit(_measure(None, start)) for start in (LOW, HIGH))
    assert low.status == high.status == FitStatus.converged
    assert low.parameters[0] < 1
    assert high.parameters[0] > 4
    values = _profiled(GRID)
    np.testing.assert_allclose(high.parameters[0], GRID[np.argmin(values)], atol=1e-3)
    # Whatever place comes first, and where the likelihood is no number at another.
    for starts in (HIGH[None], jnp.stack([LOW, HIGH, LOW]), jnp.stack([HIGH, LOW])):
        found = _fit(_measure(starts))
        assert found.status == FitStatus.converged
        np.testing.assert_allclose(found.parameters, high.parameters, rtol=1e-9)
    for first, other in ((LOW, HIGH), (HIGH, LOW)):
        found = _fit(_measure(other[None], first))
        np.testing.assert_allclose(found.parameters, high.parameters, rtol=1e-9)
    nowhere = jnp.full(2, jnp.nan)
    for starts in (jnp.stack([nowhere, HIGH]), jnp.stack([HIGH, nowhere])):
        found = _fit(_measure(starts))
        np.testing.assert_allclose(found.parameters, high.parameters, rtol=1e-9)


def test_mirror_searches_about_each_place():
    def value(x, _):
        # Four minima, at 1, 3, 7 and 9; the last is the lowest.
        a, b, c, d = x[0] - 1, x[0] - 3, x[0] - 7, x[0] - 9
        return (a * b * c * d) ** 2 / 1e3 - 0.1 * x[0]

    likelihood = FunctionLikelihood(value, None)
    one = jnp.asarray([2.2])
    found = [
        fit_likelihood(likelihood, one, mirror=mirror, starts=starts).parameters[0]
        for mirror in (False, True)
        for starts in (None, jnp.asarray([[7.8]]))
    ]
    # From 2.2 to 3; to 3 and 1; to 3 and 7; to 3, 1, 7 and 9 (8.6 is across).
    np.testing.assert_allclose(found, [3, 7, 3, 9], atol=0.1)


def test_fixed_and_held_parameters_keep_their_values():
    measurement = _measure(jnp.asarray([[6.0, 3.0], [9.0, -2.0]]))
    held = _fit(measurement, strength=jnp.asarray(2.0))
    assert held.parameters[0] == 2
    fixed = eqx.tree_at(
        lambda m: m.fixed,
        measurement,
        jnp.asarray([False, True]),
        is_leaf=lambda x: x is None,
    )
    found = _fit(fixed)
    assert found.parameters[1] == 0
    assert found.parameters[0] > 4


def test_interval_and_scan_are_about_the_better_minimum():
    measurement = _measure(HIGH[None])
    best = _fit(measurement)
    values = _profiled(GRID)
    least = np.min(values)
    low, high = eqx.filter_jit(profile_interval)(measurement, best)
    centre = float(best.parameters[0])
    rise = lambda x: _profiled(x) - least - 1  # noqa: E731
    np.testing.assert_allclose(low, brentq(rise, 3.0, centre), rtol=1e-5)
    np.testing.assert_allclose(high, brentq(rise, centre, 8.0), rtol=1e-5)
    strengths = jnp.asarray([0.05, 0.3, 2.0, 5.0])
    scan = eqx.filter_jit(profile_scan)(measurement, strengths)
    wanted = _profiled(np.asarray(strengths)) - least
    np.testing.assert_allclose(scan.deviance, wanted, atol=1e-6)
    # From the wrong minimum some of the deviances would be negative, and are zero.
    wrong = eqx.filter_jit(profile_scan)(_measure(None), strengths)
    assert wrong.deviance[3] == 0


def test_derivative_is_that_of_the_better_end():
    def best(measured):
        measurement = eqx.tree_at(
            lambda m: m.likelihood.data[0], _measure(HIGH[None]), measured
        )
        found = fit_measurement(measurement)
        held = fit_measurement(measurement, strength=jnp.asarray(5.0))
        rise = deviance(measurement.likelihood, held, found)
        return jnp.append(found.parameters, rise)

    found = jax.jit(jax.jacrev(best))(MEASURED)
    eps = 1e-5 * jnp.eye(2)
    up, down = (jax.jit(jax.vmap(best))(MEASURED[None] + s * eps) for s in (1, -1))
    np.testing.assert_allclose(found, (up - down).T / 2e-5, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("size", [None, 5])
def test_toys_begin_everywhere(size):
    measurement = _measure(HIGH[None])
    keys = jax.random.split(jax.random.key(0), 60)
    truth = jnp.asarray([4.4, 0.0])
    sample = lambda key: measurement.likelihood.sample(truth, key=key).data  # noqa: E731
    data = jax.vmap(sample)(keys)
    found = eqx.filter_jit(fit_toys)(measurement, data, batch_size=size)
    assert all(jax.vmap(lambda s: s == FitStatus.converged)(found.status))
    values = 2 * jax.vmap(_value)(found.parameters, data)
    measured, auxiliary = (np.asarray(x) for x in data)
    for value, bins, centre in zip(values, measured, auxiliary, strict=True):
        # The auxiliary measurement shifts the pull.
        root = np.sqrt(GRID)
        rate = np.stack([(root - 1.2) ** 2 + 1, 1 + 0.1 * root])
        pull = centre + np.sum((bins[:, None] - rate) * 0.1 * rate / WIDTH**2, axis=0)
        pull = pull / (1 + np.sum((0.1 * rate / WIDTH) ** 2, axis=0))
        residual = (bins[:, None] - rate * (1 + 0.1 * pull)) / WIDTH
        least = np.min(np.sum(residual**2, axis=0) + (pull - centre) ** 2)
        np.testing.assert_allclose(value, least, atol=1e-4)
    # From one place some end elsewhere.
    alone = eqx.filter_jit(fit_toys)(_measure(None), data)
    assert np.any(np.abs(alone.parameters[:, 0] - found.parameters[:, 0]) > 1)


@pytest.mark.parametrize("size", [None, 8])
def test_intervals_from_toys_begin_everywhere(size):
    # One bin, symmetric about its least rate: two minima of the same height, or one.
    def value(x, measured):
        return (measured - (x[0] - 3) ** 2) ** 2 / 2

    def draw(x, measured, key):
        del measured
        return (x[0] - 3) ** 2 + jax.random.normal(key)

    likelihood = FunctionLikelihood(value, jnp.asarray(2.0), draw=draw)
    measurement = Measurement(
        likelihood,
        jnp.asarray([2.0]),
        jnp.asarray([0.0]),
        jnp.asarray([8.0]),
        None,
        0,
        # The rate is between 0 and 25, and beyond 9 on one side only.
        starts=jnp.asarray([[4.5], [7.0]]),
    )
    strengths = jnp.asarray([0.2, 3.0, 4.6, 6.5])
    found = eqx.filter_jit(neyman_interval)(
        measurement,
        strengths,
        statistic=BoundedTwoSidedTest(),
        num_toys=1500,
        batch_size=size,
        key=jax.random.key(3),
    )
    rates = (np.asarray(strengths) - 3) ** 2
    np.testing.assert_allclose(found.statistic, (2 - rates) ** 2, atol=1e-8)
    # Gaussian about the rate, which cannot be negative: a deviance of q or more.
    for mean, q, p_value, failed in zip(
        rates, found.statistic, found.p_value, found.failed, strict=True
    ):
        assert failed == 0
        root = np.sqrt(q)
        # Below zero the best rate is zero: q = (x - mean)^2 - x^2.
        edge = -(q - mean**2) / (2 * mean) if mean > 0 else -np.inf
        below = norm.cdf(edge - mean) if root > mean else norm.cdf(-root)
        exact = norm.sf(root) + below
        if mean == 0:
            exact = chi2.sf(q, 1) / 2
        error = np.sqrt(exact * (1 - exact) / 1500)
        assert abs(p_value - exact) < 4 * error + 1e-9


def test_unrolled_steps_are_those_of_one_search():
    unrolled = optx.RecursiveCheckpointAdjoint()
    with pytest.raises(ValueError, match="Only the implicit adjoint"):
        fit_measurement(_measure(HIGH[None]), adjoint=unrolled)
