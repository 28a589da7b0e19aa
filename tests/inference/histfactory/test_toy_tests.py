"""Tests and limits from toys, against pyhf and against sums over all outcomes."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pyhf
import pytest
from scipy.special import xlogy
from scipy.stats import norm, poisson

from diffhep.inference import (
    BoundedLimitTest,
    BoundedTwoSidedTest,
    DiscoveryTest,
    FitStatus,
    FunctionLikelihood,
    Measurement,
    hypothesis_test,
    profile_statistic,
    toy_hypothesis_test,
    toy_upper_limit,
)


# pyhf's validation of schemas uses what jsonschema calls deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:jsonschema.RefResolver")

TOYS = 1000
ONE = jnp.asarray(1.0)
SIGNAL, BACKGROUND, WIDTH = 10.0, 50.0, 7.0
NUMBERS = ("cls", "p_tested", "p_alternative", "expected_cls", "expected_p_tested")
_test = eqx.filter_jit(toy_hypothesis_test)
_limit = eqx.filter_jit(toy_upper_limit)


@pytest.fixture(scope="module")
def counting(validation, measure):
    """One bin with 55 events, whose background was measured with 51."""
    return measure(validation["1bin_shapesys"])


# All outcomes of that experiment: events, and events of the auxiliary measurement.
STRENGTH = (BACKGROUND / WIDTH) ** 2
OUTCOMES = tuple(
    x.ravel() for x in np.meshgrid(np.arange(140.0), np.arange(120.0), indexing="ij")
)
OBSERVED = (55.0, STRENGTH)


def _factor(mu, events, other):
    # The background's factor that fits best, the root of a quadratic equation.
    a = (BACKGROUND + STRENGTH) * BACKGROUND
    b = (BACKGROUND + STRENGTH) * mu * SIGNAL - (events + other) * BACKGROUND
    return (-b + np.sqrt(b**2 + 4 * a * other * mu * SIGNAL)) / (2 * a)


def _statistic(mu, events, other, *, below):
    # Zero where the fitted strength is below, or else above, the tested one.
    def value(x):
        factor = _factor(x, events, other)
        rate, mean = x * SIGNAL + factor * BACKGROUND, factor * STRENGTH
        return rate + mean - xlogy(events, rate) - xlogy(other, mean)

    best = np.clip((events - BACKGROUND * other / STRENGTH) / SIGNAL, 0.0, 10.0)
    rise = np.maximum(2 * (value(mu) - value(best)), 0.0)
    return np.where(best < mu if below else best > mu, 0.0, rise)


def _exact(mu, alternative, *, below=False):
    # Of both hypotheses, the probability of a statistic at least as large as that of
    # the data, and as that of each outcome; and how probable the alternative makes it.
    values = _statistic(mu, *OUTCOMES, below=below)
    values, order = np.unique(np.round(values, 9), return_inverse=True)
    observed, tails = [], []
    for truth in (mu, alternative):
        factor = _factor(truth, *OBSERVED)
        share = poisson.pmf(OUTCOMES[0], truth * SIGNAL + factor * BACKGROUND)
        share = share * poisson.pmf(OUTCOMES[1], factor * STRENGTH)
        above = np.cumsum(np.bincount(order, share)[::-1])[::-1]
        data = _statistic(mu, *OBSERVED, below=below)
        observed.append(above[np.searchsorted(values, data - 1e-8)])
        tails.append(above[order])
    return observed, tails, share


def _band(values, share):
    # Quantiles of a discrete distribution.
    order = np.argsort(values)
    reached = np.cumsum(share[order])
    return values[order][np.searchsorted(reached, norm.cdf([-2, -1, 0, 1, 2]))]


@pytest.mark.parametrize(
    # The last ones of a discovery lie where the p-value jumps to one.
    ("statistic", "strength", "other", "quantiles"),
    [(BoundedLimitTest(), 1.5, 0.0, 5), (DiscoveryTest(), 0.0, 1.0, 3)],
)
def test_probabilities_are_sums_over_all_outcomes(
    counting, statistic, strength, other, quantiles
):
    below = isinstance(statistic, DiscoveryTest)
    observed, tails, share = _exact(strength, other, below=below)
    assert np.sum(share) > 1 - 1e-6
    wanted = {
        "cls": observed[0] / observed[1],
        "p_tested": observed[0],
        "p_alternative": observed[1],
        "expected_cls": _band(tails[0] / tails[1], share),
        "expected_p_tested": _band(tails[0], share),
    }
    pulls = {name: [] for name in wanted}
    number = 12
    for seed in range(number):
        found = _test(
            counting,
            jnp.asarray(strength),
            statistic=statistic,
            num_toys=TOYS,
            key=jax.random.key(seed),
        )
        assert np.all(found.failed == 0)
        for name, value in wanted.items():
            error = getattr(found, f"{name}_error")
            pull = (getattr(found, name) - value) / error
            pulls[name].append(np.atleast_1d(pull)[:quantiles])
    for name, pull in pulls.items():
        # 4.5 standard errors of the mean, none alone beyond 4.5, and spreads that agree
        # with 1. Those of bands may be smaller: discrete p-values, whole toys.
        spread, error = np.std(pull, axis=0), 4.5 / np.sqrt(2 * number)
        assert np.all(np.abs(np.mean(pull, axis=0)) < 4.5 / np.sqrt(number)), name
        assert np.all(np.abs(pull) < 4.5), name
        assert np.all(spread < 1 + error), name
        assert "expected" in name or np.all(spread > 1 - error), name


@pytest.mark.parametrize("statistic", [BoundedLimitTest(), DiscoveryTest()])
def test_conventions_are_those_of_pyhf(counting, statistic, monkeypatch):
    # The same test statistics in pyhf's calculator: the same probabilities and bands.
    strength = jnp.asarray(0.0 if isinstance(statistic, DiscoveryTest) else 1.0)
    found = _test(
        counting, strength, statistic=statistic, num_toys=TOYS, key=jax.random.key(3)
    )
    # pyhf 0.7.6 names an argument that NumPy has renamed.
    monkeypatch.setattr(
        type(pyhf.tensorlib),
        "percentile",
        lambda _, x, q, axis=None: np.percentile(x, q, axis=axis),
    )
    tested, alternative = (
        pyhf.infer.calculators.EmpiricalDistribution(np.asarray(x))
        for x in (found.tested, found.alternative)
    )
    model = pyhf.simplemodels.uncorrelated_background([SIGNAL], [BACKGROUND], [WIDTH])
    peer = pyhf.infer.calculators.ToyCalculator([55.0], model)
    wanted = peer.pvalues(float(found.statistic), tested, alternative)
    ours = found.p_tested, found.p_alternative, found.cls
    np.testing.assert_allclose(ours, wanted, rtol=1e-12)
    p_tested, _, cls = peer.expected_pvalues(tested, alternative)
    # To the digits that pyhf has of the quantiles.
    np.testing.assert_allclose(found.expected_cls, cls, rtol=1e-8)
    np.testing.assert_allclose(found.expected_p_tested, p_tested, rtol=1e-8)


def test_each_statistic_is_that_of_pyhf(validation, measure):
    content = validation["2bin_2channel"]
    measurement = measure(content)
    peer = pyhf.Workspace(content).model()
    settings = peer.config.suggested_init(), peer.config.suggested_bounds()
    settings = (*settings, peer.config.suggested_fixed())
    truth = measurement.start.at[measurement.poi].set(0.6)
    statistics = pyhf.infer.test_statistics
    cases = (
        (BoundedLimitTest(), 1.0, statistics.qmu_tilde),
        (BoundedTwoSidedTest(), 1.0, statistics.tmu_tilde),
        (DiscoveryTest(), 0.0, statistics.q0),
    )
    keys = jax.random.split(jax.random.key(5), 8)
    # The order of parameters is the same; so is that of the auxiliary data.
    assert peer.config.poi_index == measurement.poi
    pyhf.set_backend("numpy", pyhf.optimize.minuit_optimizer(tolerance=1e-6))
    try:
        for statistic, strength, function in cases:
            value = eqx.filter_jit(
                lambda m, s=strength, t=statistic: profile_statistic(
                    m, jnp.asarray(s), statistic=t
                )
            )
            for key in keys:
                drawn = measurement.likelihood.sample(truth, key=key)
                changed = eqx.tree_at(lambda m: m.likelihood, measurement, drawn)
                data = [*drawn.data.counts.tolist(), *drawn.data.auxiliary.tolist()]
                wanted = function(strength, data, peer, *settings)
                np.testing.assert_allclose(value(changed), wanted, atol=2e-4)
    finally:
        pyhf.set_backend("numpy")


def test_toys_are_those_of_pyhf(counting):
    # pyhf draws, from NumPy's old generator, and fits toys of its own: the same
    # probabilities within errors.
    model = pyhf.simplemodels.uncorrelated_background([SIGNAL], [BACKGROUND], [WIDTH])
    number = 300
    np.random.seed(7)  # noqa: NPY002
    data = [55.0, *model.config.auxdata]
    peer = pyhf.infer.calculators.ToyCalculator(
        data, model, ntoys=number, track_progress=False
    )
    distributions = peer.distributions(1.0)
    p_tested, p_alternative, _ = peer.pvalues(peer.teststatistic(1.0), *distributions)
    found = _test(counting, ONE, num_toys=TOYS, key=jax.random.key(8))
    for ours, theirs in (
        (found.p_tested, p_tested),
        (found.p_alternative, p_alternative),
    ):
        error = np.sqrt(theirs * (1 - theirs) * (1 / number + 1 / TOYS))
        assert abs(ours - theirs) < 4 * error


def test_asymptotics_for_many_events(validation, measure):
    content = jax.tree.map(lambda x: x, validation["1bin_shapesys"])
    signal, background = content["channels"][0]["samples"]
    signal["data"] = [60.0]
    background["data"] = [2500.0]
    background["modifiers"][0]["data"] = [40.0]
    content["observations"][0]["data"] = [2530.0]
    measurement = measure(content)
    found = _test(measurement, ONE * 2, num_toys=TOYS, key=jax.random.key(1))
    wanted = eqx.filter_jit(hypothesis_test)(measurement, ONE * 2)
    for name in NUMBERS:
        pull = (getattr(found, name) - getattr(wanted, name)) / jnp.hypot(
            # 2 per cent for what is left of small numbers.
            getattr(found, f"{name}_error"),
            0.02 * getattr(wanted, name),
        )
        assert np.all(np.abs(pull) < 4), (name, pull)


def test_limit_is_where_the_exact_cls_is_5_per_cent(counting):
    strengths = jnp.linspace(0.5, 5.0, 10)
    fine = np.linspace(0.5, 5.0, 91)
    observed, median = [], []
    for strength in fine:
        (p_tested, p_alternative), tails, share = _exact(strength, 0.0)
        observed.append(p_tested / p_alternative)
        median.append(_band(tails[0] / tails[1], share)[1:4])
    wanted = [np.interp(-0.05, -np.asarray(observed), fine)]
    wanted += [np.interp(-0.05, -x, fine) for x in np.asarray(median).T]
    found = _limit(counting, strengths, num_toys=TOYS, key=jax.random.key(2))
    ours = jnp.append(found.observed, found.expected[1:4])
    errors = jnp.append(found.observed_error, found.expected_error[1:4])
    # The straight line through a step of 0.5 adds 0.03 at most.
    assert np.all(np.abs(ours - np.asarray(wanted)) < 4 * errors + 0.03)
    assert np.all(errors < 0.25)
    assert found.tests.cls.shape == (10,)
    low = _limit(counting, strengths[:2], num_toys=200, key=jax.random.key(2))
    assert np.isnan(low.observed)


def _count(parameters, data):
    # A counting experiment with a background of 9; a broken one gives no fit.
    events, broken = data
    rate = parameters[0] + 9.0
    return jnp.where(broken, jnp.nan, rate - events * jnp.log(rate))


def _draw_events(parameters, data, key):
    events, _ = data
    first, second = jax.random.split(key)
    drawn = jax.random.poisson(first, parameters[0] + 9.0).astype(events.dtype)
    return drawn, jax.random.bernoulli(second, 0.3)


def _measure_events(events, broken=False):
    likelihood = FunctionLikelihood(
        _count, (jnp.asarray(events), jnp.asarray(broken)), draw=_draw_events
    )
    start = jnp.asarray([1.0])
    return Measurement(likelihood, start, 0 * start, 50 * start, None, poi=0)


def test_failures_are_counted_and_left_out(precision):
    del precision
    found = _test(
        _measure_events(8.0), jnp.asarray(2.0), num_toys=TOYS, key=jax.random.key(0)
    )
    share = np.asarray(found.failed) / TOYS
    assert np.all(np.abs(share - 0.3) < 4 * np.sqrt(0.3 * 0.7 / TOYS))
    np.testing.assert_array_equal(
        np.stack([np.isnan(found.tested), np.isnan(found.alternative)]).sum(1),
        found.failed,
    )
    # Eight events or fewer.
    for ours, error, rate in (
        (found.p_tested, found.p_tested_error, 11.0),
        (found.p_alternative, found.p_alternative_error, 9.0),
    ):
        assert abs(ours - poisson.cdf(8, rate)) < 4 * error
    assert np.all(np.isfinite(found.expected_cls_error))
    broken = _test(
        _measure_events(8.0, True),
        jnp.asarray(2.0),
        num_toys=TOYS,
        key=jax.random.key(0),
    )
    assert broken.status != FitStatus.converged
    assert all(np.all(np.isnan(getattr(broken, name))) for name in NUMBERS)


def test_outcome_has_no_derivative(counting):
    def cls(strength, measurement):
        found = toy_hypothesis_test(
            measurement, strength, num_toys=20, key=jax.random.key(0)
        )
        return found.cls + found.expected_cls[2] + found.statistic

    assert jax.jit(jax.grad(cls))(ONE, counting) == 0


def test_batches_change_nothing(counting):
    one, some = (
        _test(counting, ONE, num_toys=TOYS, batch_size=size, key=jax.random.key(4))
        for size in (None, 8)
    )
    for name in ("tested", "alternative", "cls", "expected_cls"):
        np.testing.assert_allclose(
            getattr(one, name), getattr(some, name), rtol=1e-10, atol=1e-10
        )
