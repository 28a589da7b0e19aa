"""Confidence intervals from toys, against sums over outcomes and published tables."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import xlogy
from scipy.stats import poisson

from diffhep.inference import (
    FitStatus,
    TwoSidedTest,
    fit_measurement,
    neyman_interval,
    profile_interval,
)
from diffhep.inference._crossing import last_crossing


LEVEL, BACKGROUND, TOYS = 0.1, 3.0, 2000
COUNTS = np.arange(80.0)
# Feldman and Cousins, physics/9711021, Table IV: 90 per cent for a background of 3.0,
# 1 to 10 events. Without that for none, 1.08, which they raised so that the limit does
# not fall with the background.
TABLE = {
    1: (0.00, 1.88),
    2: (0.00, 3.04),
    3: (0.00, 4.42),
    4: (0.00, 5.60),
    5: (0.00, 6.99),
    6: (0.15, 8.47),
    7: (0.89, 9.53),
    8: (1.51, 10.99),
    9: (1.88, 12.30),
    10: (2.63, 13.50),
}
_interval = eqx.filter_jit(neyman_interval)


@pytest.fixture(scope="module")
def counting(measure):
    """A signal of mu events over a background of 3; from count to measurement."""
    factor = {"name": "mu", "type": "normfactor", "data": None}
    samples = [
        {"name": "signal", "data": [1.0], "modifiers": [factor]},
        {"name": "background", "data": [BACKGROUND], "modifiers": []},
    ]
    bounds = {"name": "mu", "inits": [1.0], "bounds": [[0.0, 60.0]]}
    config = {"poi": "mu", "parameters": [bounds]}
    content = {
        "channels": [{"name": "channel", "samples": samples}],
        "observations": [{"name": "channel", "data": [0.0]}],
        "measurements": [{"name": "test", "config": config}],
        "version": "1.0.0",
    }
    measurement = measure(content)

    def observe(count):
        where = lambda m: m.likelihood.data.counts  # noqa: E731
        return eqx.tree_at(where, measurement, jnp.asarray([float(count)]))

    return observe


def _exact(strength):
    # Of each count: its probability, and that of a statistic at least as large.
    def value(mu):
        return mu + BACKGROUND - xlogy(COUNTS, mu + BACKGROUND)

    statistic = 2 * (value(strength) - value(np.maximum(COUNTS - BACKGROUND, 0.0)))
    share = poisson.pmf(COUNTS, strength + BACKGROUND)
    return share, (statistic[None, :] >= statistic[:, None] - 1e-9) @ share


def test_the_oracle_is_the_published_table():
    strengths = np.arange(0.0, 16.0, 0.005)
    accepted = np.stack([_exact(x)[1] for x in strengths]) > LEVEL
    for count, ends in TABLE.items():
        inside = strengths[accepted[:, count]]
        np.testing.assert_allclose((inside[0], inside[-1]), ends, atol=0.0101)


def test_intervals_are_those_of_feldman_and_cousins(counting):
    strengths = jnp.linspace(0.0, 15.0, 31)
    exact = np.stack([_exact(x)[1] for x in np.asarray(strengths)])
    for count in (1, 3, 6, 10):
        found = _interval(
            counting(count),
            strengths,
            level=LEVEL,
            num_toys=TOYS,
            key=jax.random.key(count),
        )
        assert np.all(found.failed == 0)
        assert all(x == FitStatus.converged for x in _each(found.status, 31))
        wanted = exact[:, count]
        # 4.5 of the errors.
        pull = (found.p_value - wanted) / found.p_value_error
        assert np.all(np.abs(pull) < 4.5)
        np.testing.assert_array_equal(found.accepted, found.p_value > LEVEL)
        below = np.asarray(found.statistic) <= np.asarray(found.critical) + 1e-9
        np.testing.assert_array_equal(found.accepted, below)
        clear = np.abs(wanted - LEVEL) > 4.5 * found.p_value_error
        np.testing.assert_array_equal(found.accepted[clear], wanted[clear] > LEVEL)
        # Within a step of the strengths and the errors.
        for end, error, value in zip(
            (found.lower, found.upper),
            (found.lower_error, found.upper_error),
            TABLE[count],
            strict=True,
        ):
            assert abs(end - value) < 0.5 + 4.5 * error
        if TABLE[count][0] == 0:
            assert found.lower == found.lower_error == 0


def _each(status, number):
    return [jax.tree.map(lambda x, i=i: x[i], status) for i in range(number)]


def test_counting_experiments_cover_at_least_as_often_as_they_say(counting):
    # Those that are accepted at the truth, weighted by their probability.
    strengths = jnp.asarray([0.5, 4.0])
    share, p_value = np.stack([_exact(x) for x in np.asarray(strengths)], axis=1)
    found = np.zeros(2)
    for count in range(20):
        interval = _interval(
            counting(count),
            strengths,
            level=LEVEL,
            num_toys=TOYS,
            key=jax.random.key(0),
        )
        found += share[:, count] * np.asarray(interval.accepted)
    wanted = np.sum(share, axis=1, where=p_value > LEVEL)
    np.testing.assert_allclose(found, wanted, atol=1e-3)
    assert np.all(found > 1 - LEVEL)


def test_profile_construction_covers(validation, measure):
    # One bin, its background with an auxiliary measurement of 51 events.
    measurement = measure(validation["1bin_shapesys"])
    truth = jnp.asarray([1.5, 1.0])
    number = 400

    @jax.jit
    def accepted(keys):
        def covers(key):
            draw, toys = jax.random.split(key)
            drawn = measurement.likelihood.sample(truth, key=draw)
            found = neyman_interval(
                eqx.tree_at(lambda m: m.likelihood, measurement, drawn),
                truth[:1],
                level=LEVEL,
                num_toys=300,
                key=toys,
            )
            return found.accepted[0], found.failed[0]

        return jax.lax.map(covers, keys)

    inside, failed = accepted(jax.random.split(jax.random.key(6), number))
    assert np.all(failed == 0)
    # Four binomial errors, and a little for the few toys and the approximation.
    error = np.sqrt(LEVEL * (1 - LEVEL) / number)
    assert abs(np.mean(np.asarray(inside)) - (1 - LEVEL)) < 4 * error + 0.005


def test_many_events_have_the_interval_of_minos(validation, measure):
    content = jax.tree.map(lambda x: x, validation["1bin_shapesys"])
    signal, background = content["channels"][0]["samples"]
    signal["data"] = [100.0]
    background["data"] = [2500.0]
    background["modifiers"][0]["data"] = [40.0]
    content["observations"][0]["data"] = [2900.0]
    measurement = measure(content)
    best = eqx.filter_jit(fit_measurement)(measurement)
    ends = eqx.filter_jit(profile_interval)(measurement, best, rise=1.0)
    strengths = jnp.linspace(2.8, 5.2, 13)
    found = _interval(
        measurement,
        strengths,
        level=0.3173,
        statistic=TwoSidedTest(),
        num_toys=TOYS,
        key=jax.random.key(5),
    )
    for end, error, wanted in zip(
        (found.lower, found.upper),
        (found.lower_error, found.upper_error),
        ends,
        strict=True,
    ):
        assert 0 < error < 0.05
        # Four errors, and the straight line through a step of 0.2.
        assert abs(end - wanted) < 4 * error + 0.01
    # The critical value is the quantile of a chi-square, 1 at this level.
    pull = (found.critical - 1.0) / found.critical_error
    assert np.all(np.abs(pull) < 4.5)
    assert np.abs(np.mean(pull)) < 4.5 / np.sqrt(13)


def test_ends_that_are_not_in_the_grid_are_not_numbers(counting):
    def ends(low, high):
        found = _interval(
            counting(10),
            jnp.asarray([low, high]),
            level=LEVEL,
            num_toys=TOYS,
            key=jax.random.key(0),
        )
        return np.isnan([found.lower, found.upper]).tolist()

    assert ends(5.0, 8.0) == [True, True]
    assert ends(0.0, 8.0) == [False, True]
    assert ends(8.0, 20.0) == [True, False]
    assert ends(30.0, 40.0) == [True, True]
    # Beyond the bound of the strength it is the bound that is tested.
    found = _interval(
        counting(1),
        jnp.asarray([-2.0, 5.0]),
        level=LEVEL,
        num_toys=TOYS,
        key=jax.random.key(0),
    )
    np.testing.assert_array_equal(found.strengths, [0.0, 5.0])
    assert found.lower == 0.0
    assert 0.0 < found.upper < 5.0


def test_what_is_not_known_beyond_a_crossing_is_no_limit():
    points, errors = jnp.arange(4.0), jnp.full(4, 0.01)
    known = jnp.asarray([0.5, 0.3, 0.1, 0.0])
    np.testing.assert_allclose(last_crossing(points, known, errors, 0.2)[0], 1.5)
    unknown = known.at[3].set(jnp.nan)
    assert np.isnan(last_crossing(points, unknown, errors, 0.2)).all()
