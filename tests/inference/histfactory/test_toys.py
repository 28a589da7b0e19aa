import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pyhf
import pytest

from diffhep.inference import (
    FitStatus,
    fit_measurement,
    fit_toys,
    histfactory,
    impacts,
)


# pyhf's validation of schemas uses what jsonschema calls deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:jsonschema.RefResolver")

TOYS = 1000
_fit = eqx.filter_jit(fit_measurement)
_fit_toys = eqx.filter_jit(fit_toys)


@pytest.fixture(scope="module")
def two_channels(validation):
    """Two channels with shapesys modifiers, the signal allowed to be negative."""
    content = validation["2bin_2channel"]
    workspace = histfactory.read_workspace(content)
    model = histfactory.build_model(workspace)
    data = histfactory.observed_data(workspace, model)
    measurement = histfactory.measure(model, data)
    lower = measurement.lower.at[model.layout.poi].set(-10.0)
    return content, model, eqx.tree_at(lambda m: m.lower, measurement, lower)


def _draw(model, number):
    keys = jax.random.split(jax.random.key(11), number)
    return jax.jit(
        jax.vmap(lambda key: histfactory.sample_data(model, model.start, key=key))
    )(keys)


def test_toys_have_the_moments_of_the_model(rich):
    model = histfactory.build_model(histfactory.read_workspace(rich))
    toys = _draw(model, TOYS)
    average = histfactory.expected_data(model, model.start)
    widths = histfactory.likelihood(model, average).prepared.width
    assert toys.counts.shape == (TOYS, model.layout.bins)
    for found, wanted in (
        (toys.counts, average.counts),
        (toys.auxiliary, average.auxiliary),
    ):
        spread = np.std(found, axis=0) / np.sqrt(TOYS)
        assert np.all(np.abs(np.mean(found, axis=0) - wanted) < 4 * spread + 1e-12)
    ratio = np.var(toys.counts, axis=0) / np.asarray(average.counts)
    np.testing.assert_allclose(ratio, 1.0, atol=4 * np.sqrt(2 / TOYS) + 0.05)
    assert np.all(np.asarray(widths) > 0)


def test_pulls_are_normal_and_errors_cover(two_channels):
    _, model, measurement = two_channels
    toys = _draw(model, TOYS)
    best = _fit_toys(measurement, toys)
    assert jnp.all(jax.vmap(lambda s: s == FitStatus.converged)(best.status))
    found = jax.jit(jax.vmap(lambda d, b: histfactory.pulls(model, d, b)))(toys, best)
    poi = model.layout.poi
    assert np.all(np.isnan(found.shift[:, poi]))
    nuisances = np.delete(np.arange(len(model.names)), poi)
    constraint = np.asarray(found.constraint)
    assert np.all(constraint[:, nuisances] < 1.05)
    # The fit has to say something of a parameter for its pull to mean anything.
    measured = [i for i in nuisances if np.mean(constraint[:, i]) < 0.95]
    assert len(measured) >= 2
    significance = np.asarray(found.significance)[:, measured]
    # Four standard errors, and a little for constraints of 100 to 1600 events: they are
    # not quite Gaussian.
    mean, spread = np.mean(significance, axis=0), np.std(significance, axis=0)
    assert np.all(np.abs(mean) < 4 / np.sqrt(TOYS) + 0.05)
    assert np.all(np.abs(spread - 1) < 4 / np.sqrt(2 * TOYS) + 0.05)
    width = np.sqrt(np.asarray(best.covariance)[:, poi, poi])
    pull = (np.asarray(best.parameters)[:, poi] - 1.0) / width
    assert np.abs(np.mean(pull)) < 4 / np.sqrt(TOYS) + 0.05
    assert np.abs(np.std(pull) - 1) < 4 / np.sqrt(2 * TOYS) + 0.05


def test_each_toy_is_fitted_as_if_alone(two_channels):
    _, model, measurement = two_channels
    toys = _draw(model, TOYS)
    best = _fit_toys(measurement, toys)
    for index in (0, 7, 500):
        one = jax.tree.map(lambda x, i=index: x[i], toys)
        alone = _fit(eqx.tree_at(lambda m: m.likelihood.data, measurement, one))
        np.testing.assert_allclose(
            best.parameters[index], alone.parameters, rtol=1e-10, atol=1e-12
        )


def test_toys_of_a_published_model_converge(sbottom):
    workspace = sbottom("RegionC", "1600_850_60")
    model = histfactory.build_model(workspace)
    data = histfactory.observed_data(workspace, model)
    toys = _draw(model, 200)
    best = _fit_toys(histfactory.measure(model, data), toys)
    assert jnp.all(jax.vmap(lambda s: s == FitStatus.converged)(best.status))


def test_toys_in_batches_are_the_same(two_channels):
    _, model, measurement = two_channels
    # 20 do not fill batches of 8.
    toys = _draw(model, 20)
    alone = _fit_toys(measurement, toys)
    for size in (8, 64):
        found = _fit_toys(measurement, toys, batch_size=size)
        for name in ("parameters", "covariance"):
            np.testing.assert_allclose(
                getattr(found, name), getattr(alone, name), rtol=1e-10, atol=1e-10
            )
        np.testing.assert_array_equal(found.free, alone.free)


def test_derivatives_in_batches_are_the_same(two_channels):
    _, model, measurement = two_channels
    toys = _draw(model, 10)

    def total(measurement, toys, strength, size):
        found = fit_toys(measurement, toys, strength=strength, batch_size=size)
        widths = jnp.sum(jnp.sqrt(found.covariance[:, 1, 1]))
        return jnp.sum(found.parameters * jnp.arange(1.0, 11.0)[:, None]) + widths

    for strength in (None, jnp.asarray(0.5)):
        alone, together = (
            eqx.filter_jit(eqx.filter_grad(lambda args, size=size: total(*args, size)))(
                (measurement, toys, strength)
            )
            for size in (None, 4)
        )
        pairs = list(zip(*map(jax.tree.leaves, (alone, together)), strict=True))
        # Templates and bounds, counts and auxiliary data, the strength.
        assert len(pairs) > 10
        assert any(np.any(np.asarray(x) != 0) for x, _ in pairs)
        for one, other in pairs:
            np.testing.assert_allclose(other, one, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["counts", "auxiliary"])
def test_a_broken_toy_fails_and_spoils_no_other_of_its_batch(two_channels, name):
    _, model, measurement = two_channels
    toys = _draw(model, 20)
    clean = _fit_toys(measurement, toys, batch_size=4)
    broken = np.zeros(20, bool)
    broken[[0, 3, 7, 18, 19]] = True
    poison = getattr(toys, name).at[broken].set(jnp.nan)
    poisoned = eqx.tree_at(lambda x: getattr(x, name), toys, poison)
    found = _fit_toys(measurement, poisoned, batch_size=4)
    failed = jax.vmap(lambda s: s == FitStatus.not_finite)(found.status)
    np.testing.assert_array_equal(failed, broken)
    for part in ("parameters", "covariance"):
        good, wanted = (np.asarray(getattr(x, part))[~broken] for x in (found, clean))
        np.testing.assert_allclose(good, wanted, rtol=1e-10, atol=1e-10)


def test_likelihood_draws_the_same_toys(two_channels):
    _, model, measurement = two_channels
    key = jax.random.key(3)
    drawn = measurement.likelihood.sample(model.start, key=key).data
    wanted = histfactory.sample_data(model, model.start, key=key)
    np.testing.assert_array_equal(drawn.counts, wanted.counts)
    np.testing.assert_array_equal(drawn.auxiliary, wanted.auxiliary)


def test_impacts_are_those_of_pyhf(two_channels):
    content, model, measurement = two_channels
    best = _fit(measurement)
    found = eqx.filter_jit(impacts)(measurement, best)
    poi = model.layout.poi
    assert found.up[poi] == found.down[poi] == found.linear[poi] == 0
    peer = pyhf.Workspace(content)
    peer_model = peer.model()
    bounds = peer_model.config.suggested_bounds()
    bounds[poi] = (-10.0, 10.0)
    pyhf.set_backend("numpy", pyhf.optimize.minuit_optimizer(tolerance=1e-7))
    try:
        for which in (i for i in range(len(model.names)) if i != poi):
            width = float(jnp.sqrt(best.covariance[which, which]))
            for sign, ours in ((1, found.up), (-1, found.down)):
                start = np.asarray(best.parameters).tolist()
                start[which] += sign * width
                fixed = [index == which for index in range(len(start))]
                fitted = pyhf.infer.mle.fit(
                    peer.data(peer_model), peer_model, start, bounds, fixed
                )
                wanted = fitted[poi] - best.parameters[poi]
                np.testing.assert_allclose(ours[which], wanted, atol=1e-4)
    finally:
        pyhf.set_backend("numpy")
    np.testing.assert_allclose(found.linear, (found.up - found.down) / 2, atol=0.02)
