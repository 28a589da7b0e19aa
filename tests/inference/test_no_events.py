"""Likelihoods that are straight along a parameter, as where no event is observed."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import xlogy
from scipy.stats import poisson

from diffhep.inference import (
    FitStatus,
    FunctionLikelihood,
    Measurement,
    fit_likelihood,
    neyman_interval,
    toy_hypothesis_test,
    toy_upper_limit,
)


SIGNAL, BACKGROUND, TOYS = 2.0, 0.8, 1000
COUNTS = np.arange(60.0)
_fit = eqx.filter_jit(fit_likelihood)


def _one_bin(parameters, events):
    rate = SIGNAL * parameters[0] + BACKGROUND
    return rate - events * jnp.log(rate)


def _bins(parameters, events):
    # Three bins, and a pull that changes signal and background.
    mu, pull = parameters[0], parameters[1]
    signal = mu * jnp.asarray([2.0, 1.0, 0.5], mu.dtype) * (1 + pull / 10)
    rate = signal + jnp.asarray([3.0, 1.0, 0.2], mu.dtype) * jnp.exp(pull / 5)
    return jnp.sum(rate - events * jnp.log(rate)) + pull**2 / 2


def _draw(parameters, events, key):
    rate = SIGNAL * parameters[0] + BACKGROUND
    return jax.random.poisson(key, rate).astype(events.dtype)


def _measure(events):
    likelihood = FunctionLikelihood(_one_bin, jnp.asarray(events), draw=_draw)
    start = jnp.ones(1)
    return Measurement(likelihood, start, 0 * start, None, None, poi=0)


@pytest.mark.parametrize("lowest", [0.0, -0.1, 0.3, -0.399999])
def test_goes_down_to_the_bound(precision, lowest):
    def best(events, lower):
        found = fit_likelihood(
            FunctionLikelihood(_one_bin, events), jnp.ones(1), lower=lower[None]
        )
        return found.parameters[0], found

    args = (jnp.asarray(0.0), jnp.asarray(lowest))
    to_args, found = jax.jit(jax.jacrev(best, argnums=(0, 1), has_aux=True))(*args)
    assert found.parameters.dtype == precision
    assert found.status == FitStatus.converged
    assert found.parameters[0] == args[1]
    assert not found.free[0]
    assert to_args == (0, 1)


def test_goes_up_to_the_bound():
    # Fewer events the larger the parameter.
    likelihood = FunctionLikelihood(lambda x, _: 5.0 - x[0], None)
    found = fit_likelihood(likelihood, jnp.zeros(1), upper=jnp.asarray([3.0]))
    assert found.status == FitStatus.converged
    assert found.parameters[0] == 3.0


@pytest.mark.parametrize("lower", [None, jnp.asarray([-jnp.inf])])
def test_says_that_a_bound_is_missing(lower):
    likelihood = FunctionLikelihood(_one_bin, jnp.asarray(0.0))
    found = _fit(likelihood, jnp.ones(1), lower=lower)
    assert found.status == FitStatus.unbounded
    assert found.parameters[0] == 1.0
    with pytest.raises(RuntimeError, match="give the parameter a bound"):
        fit_likelihood(likelihood, jnp.ones(1), lower=lower, throw=True)


@pytest.mark.parametrize(
    "events", [[0.0, 0.0, 0.0], [0.0, 2.0, 0.0], [4.0, 0.0, 0.0], [9.0, 3.0, 0.0]]
)
def test_bins_without_events_beside_a_nuisance_parameter(events):
    def best(events):
        lower = jnp.asarray([0.0, -jnp.inf])
        found = fit_likelihood(
            FunctionLikelihood(_bins, events), jnp.asarray([1.0, 0.0]), lower=lower
        )
        return found.parameters, found

    events = jnp.asarray(events)
    to_events, found = jax.jit(jax.jacrev(best, has_aux=True))(events)
    assert found.status == FitStatus.converged
    # A grid about the point: nothing there is less likely.
    likelihood = FunctionLikelihood(_bins, events)
    steps = jnp.linspace(-0.05, 0.05, 11)
    near = found.parameters[None] + jnp.stack(jnp.meshgrid(steps, steps), -1).reshape(
        -1, 2
    )
    values = jax.vmap(likelihood.value)(near.at[:, 0].max(0.0))
    assert jnp.min(values) >= likelihood.value(found.parameters) - 1e-12
    eps = 1e-5 * jnp.eye(3)
    up, down = (jax.vmap(lambda x: best(x)[0])(events[None] + s * eps) for s in (1, -1))
    # A count below zero would be another likelihood.
    some = events > 0
    numeric = ((up - down) / 2e-5)[some].T
    np.testing.assert_allclose(to_events[:, some], numeric, rtol=1e-6, atol=1e-9)
    if not found.free[0]:
        assert np.all(to_events[0] == 0)


def test_a_straight_parameter_does_not_spoil_the_others():
    # No bound: the others are at their minimum nevertheless.
    centre = jnp.asarray([2.0, -1.0])

    def value(x, centre):
        return jnp.sum(jnp.cosh(x[:2] - centre)) + 3.0 * x[2]

    likelihood = FunctionLikelihood(value, centre)
    found = _fit(likelihood, jnp.zeros(3))
    assert found.status == FitStatus.unbounded
    np.testing.assert_allclose(found.parameters, [2.0, -1.0, 0.0], atol=1e-10)
    lower = jnp.asarray([-jnp.inf, -jnp.inf, -4.0])
    found = _fit(likelihood, jnp.zeros(3), lower=lower)
    assert found.status == FitStatus.converged
    np.testing.assert_allclose(found.parameters, [2.0, -1.0, -4.0], atol=1e-10)


def _statistics(strength, *, one_sided):
    # Of each count, beside a strength that is not negative.
    def value(mu):
        rate = SIGNAL * mu + BACKGROUND
        return rate - xlogy(COUNTS, rate)

    best = np.maximum((COUNTS - BACKGROUND) / SIGNAL, 0.0)
    rise = 2 * (value(strength) - value(best))
    return np.where(one_sided & (best > strength), 0.0, rise)


def _tails(strength, truth, *, one_sided):
    # The probability of a statistic at least as large as that of each count.
    values = _statistics(strength, one_sided=one_sided)
    share = poisson.pmf(COUNTS, SIGNAL * truth + BACKGROUND)
    return (values[None, :] >= values[:, None] - 1e-9) @ share


@pytest.mark.parametrize("events", [0, 1, 3])
def test_toys_without_events_count(events):
    strength = 1.2
    found = eqx.filter_jit(toy_hypothesis_test)(
        _measure(float(events)),
        jnp.asarray(strength),
        num_toys=TOYS,
        key=jax.random.key(events),
    )
    # Almost half of the toys of the background are without an event.
    assert np.all(found.failed == 0)
    assert found.status == FitStatus.converged
    wanted = _statistics(strength, one_sided=True)[events]
    np.testing.assert_allclose(found.statistic, wanted, rtol=1e-12)
    for name, truth in (("p_tested", strength), ("p_alternative", 0.0)):
        exact = _tails(strength, truth, one_sided=True)[events]
        error = np.sqrt(exact * (1 - exact) / TOYS)
        assert abs(getattr(found, name) - exact) < 4 * error + 1e-9, name


def test_limit_without_events():
    strengths = jnp.linspace(0.9, 2.1, 5)
    found = eqx.filter_jit(toy_upper_limit)(
        _measure(0.0), strengths, num_toys=4 * TOYS, key=jax.random.key(0)
    )
    assert np.all(found.tests.failed == 0)
    # CLs is exp(-2 mu); the straight line adds 0.02.
    wanted = -np.log(0.05) / SIGNAL
    assert abs(found.observed - wanted) < 4 * found.observed_error + 0.025
    assert found.observed_error < 0.1


@pytest.mark.parametrize("events", [0, 2])
def test_interval_without_events(events):
    strengths = jnp.linspace(0.0, 3.0, 7)
    found = eqx.filter_jit(neyman_interval)(
        _measure(float(events)),
        strengths,
        level=0.1,
        num_toys=TOYS,
        key=jax.random.key(events),
    )
    assert np.all(found.failed == 0)
    exact = np.asarray(
        [_tails(x, x, one_sided=False)[events] for x in np.asarray(strengths)]
    )
    error = np.sqrt(exact * (1 - exact) / TOYS)
    assert np.all(np.abs(found.p_value - exact) < 4 * error + 1e-9)
    assert found.lower == 0
