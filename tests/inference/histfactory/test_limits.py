import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pyhf
import pytest

from diffhep.inference import (
    FitStatus,
    Measurement,
    TwoSidedTest,
    fit_measurement,
    histfactory,
    hypothesis_test,
    profile_interval,
    profile_statistic,
    upper_limit,
)


# pyhf's validation of schemas uses what jsonschema calls deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:jsonschema.RefResolver")

_limit = eqx.filter_jit(upper_limit)
_test = eqx.filter_jit(hypothesis_test)
_fit = eqx.filter_jit(fit_measurement)


@pytest.fixture(scope="module")
def two_channels(validation):
    """Two channels with shapesys modifiers: model, data, and pyhf's of them."""
    content = validation["2bin_2channel"]
    workspace = histfactory.read_workspace(content)
    model = histfactory.build_model(workspace)
    peer = pyhf.Workspace(content)
    peer_model = peer.model()
    data = histfactory.observed_data(workspace, model)
    return model, data, peer_model, peer.data(peer_model)


def test_limits_are_where_cls_says(two_channels):
    model, data, peer, peer_data = two_channels
    measurement = histfactory.measure(model, data)
    found = _limit(measurement, highest=jnp.asarray(10.0))
    at_limit = _test(measurement, found.observed)
    np.testing.assert_allclose(at_limit.cls, 0.05, rtol=1e-8)
    for index in range(5):
        at_limit = _test(measurement, found.expected[index])
        np.testing.assert_allclose(at_limit.expected_cls[index], 0.05, rtol=1e-8)
    optimiser = pyhf.optimize.minuit_optimizer(tolerance=1e-9, strategy=2)
    pyhf.set_backend("numpy", optimiser)
    try:
        observed, expected = pyhf.infer.intervals.upper_limits.upper_limit(
            peer_data, peer, rtol=1e-7
        )
    finally:
        pyhf.set_backend("numpy")
    np.testing.assert_allclose(found.observed, observed, rtol=1e-5)
    np.testing.assert_allclose(found.expected, expected, rtol=1e-5)


def test_derivative_of_a_limit(two_channels):
    model, data, *_ = two_channels

    @jax.jit
    def limits(counts):
        observed = eqx.tree_at(lambda d: d.counts, data, counts)
        found = upper_limit(histfactory.measure(model, observed))
        return jnp.append(found.expected, found.observed)

    exact = jax.jit(jax.jacrev(limits))(data.counts)
    for index in range(4):
        step = 0.05
        values = [limits(data.counts.at[index].add(k * step)) for k in (-2, -1, 1, 2)]
        slope = (8 * (values[2] - values[1]) - values[3] + values[0]) / (12 * step)
        np.testing.assert_allclose(exact[:, index], slope, rtol=1e-6, atol=1e-9)


def test_no_limit_below_the_highest_strength(two_channels):
    model, data, *_ = two_channels
    found = _limit(histfactory.measure(model, data), highest=jnp.asarray(0.2))
    assert jnp.isnan(found.observed)
    assert jnp.all(jnp.isnan(found.expected[2:]))


def test_profile_interval(two_channels):
    model, data, *_ = two_channels
    more = eqx.tree_at(lambda d: d.counts, data, data.counts + 20.0)
    measurement = histfactory.measure(model, more)
    best = _fit(measurement)
    assert best.status == FitStatus.converged
    ends = eqx.filter_jit(profile_interval)(measurement, best)
    assert 0 < ends[0] < best.parameters[model.layout.poi] < ends[1] < 10
    statistic = eqx.filter_jit(profile_statistic)
    for end in ends:
        rise = statistic(measurement, end, statistic=TwoSidedTest())
        np.testing.assert_allclose(rise, 1.0, rtol=1e-8)


def test_measurement_without_bounds_needs_a_highest_strength(two_channels):
    model, data, *_ = two_channels
    likelihood = histfactory.likelihood(model, data)
    free = Measurement(likelihood, model.start, None, None, None, model.layout.poi)
    with pytest.raises(ValueError, match="no upper bound; say with `highest`"):
        upper_limit(free)
    with pytest.raises(ValueError, match="There is no parameter 9 among 5"):
        Measurement(likelihood, model.start, None, None, None, 9)
