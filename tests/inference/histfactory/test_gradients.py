"""Derivatives through fits, against finite differences."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffhep.inference import (
    FitStatus,
    asimov_uncertainty,
    fit_measurement,
    histfactory,
    hypothesis_test,
)
from diffhep.testing import check_gradient


@pytest.fixture(scope="module")
def published(sbottom):
    """Region C: six bins, nine samples, 66 parameters, best fit inside the bounds."""
    workspace = sbottom("RegionC", "1600_850_60")
    model = histfactory.build_model(workspace)
    return model, histfactory.observed_data(workspace, model)


@eqx.filter_jit
def _best(model, data):
    best = fit_measurement(histfactory.measure(model, data))
    return best.parameters, best.covariance[model.layout.poi, model.layout.poi] ** 0.5


@eqx.filter_jit
def _slopes(model, data):
    def outcome(parts, which):
        nominal, counts = parts
        changed = eqx.tree_at(lambda m: m.nominal, model, nominal)
        observed = eqx.tree_at(lambda d: d.counts, data, counts)
        parameters, width = _best(changed, observed)
        return (parameters[model.layout.poi], width)[which]

    parts = (model.nominal, data.counts)
    return [jax.grad(outcome)(parts, which) for which in (0, 1)]


def test_fit_and_uncertainty_to_every_template_bin_and_count(published):
    model, data = published
    exact = _slopes(model, data)
    poi = model.layout.poi

    def outcome(nominal, counts):
        parameters, width = _best(
            eqx.tree_at(lambda m: m.nominal, model, nominal),
            eqx.tree_at(lambda d: d.counts, data, counts),
        )
        return np.asarray([parameters[poi], width])

    def difference(index, which, step):
        values = {}
        for k in (-2, -1, 1, 2):
            parts = [model.nominal, data.counts]
            parts[which] = parts[which].at[index].add(k * step)
            values[k] = outcome(*parts)
        # Fourth order.
        return (8 * (values[1] - values[-1]) - (values[2] - values[-2])) / (12 * step)

    scale = [np.max(np.abs(slope[1])) for slope in exact]
    for which, array in enumerate((model.nominal, data.counts)):
        for index in np.ndindex(array.shape):
            # A sample that is absent from a channel, or never shows there.
            if which == 0 and array[index] == 0:
                continue
            step = 2e-3 * max(float(array[index]), 0.05)
            found = difference(index, which, step)
            for quantity in (0, 1):
                np.testing.assert_allclose(
                    found[quantity],
                    exact[quantity][which][index],
                    rtol=1e-6,
                    atol=1e-6 * scale[quantity],
                )


def _changed(model, data, scale):
    # The templates scaled, and the auxiliary data that follow from them.
    model = eqx.tree_at(lambda m: m.nominal, model, model.nominal * scale)
    auxiliary = histfactory.nominal_auxiliary(model)
    return model, eqx.tree_at(lambda d: d.auxiliary, data, auxiliary)


@pytest.fixture(scope="module")
def small():
    """Two bins, a shapesys and a normsys modifier."""
    content = {
        "channels": [
            {
                "name": "search",
                "samples": [
                    {
                        "name": "signal",
                        "data": [6.0, 9.0],
                        "modifiers": [
                            {"name": "mu", "type": "normfactor", "data": None}
                        ],
                    },
                    {
                        "name": "background",
                        "data": [50.0, 30.0],
                        "modifiers": [
                            {"name": "bin", "type": "shapesys", "data": [7.0, 4.0]},
                            {
                                "name": "norm",
                                "type": "normsys",
                                "data": {"lo": 0.9, "hi": 1.15},
                            },
                        ],
                    },
                ],
            }
        ],
        "observations": [{"name": "search", "data": [54.0, 41.0]}],
        "measurements": [{"name": "m", "config": {"poi": "mu", "parameters": []}}],
        "version": "1.0.0",
    }
    workspace = histfactory.read_workspace(content)
    model = histfactory.build_model(workspace)
    return model, histfactory.observed_data(workspace, model)


def test_fit_at_a_given_strength_depends_on_it(small):
    model, data = small

    @jax.jit
    def best(strength, counts):
        observed = eqx.tree_at(lambda d: d.counts, data, counts)
        fit = fit_measurement(histfactory.measure(model, observed), strength=strength)
        return fit.parameters

    check_gradient(
        best, (jnp.asarray(0.7), data.counts), rtol=1e-6, order=4, forward=False
    )
    assert jax.jacobian(best)(jnp.asarray(0.7), data.counts)[model.layout.poi] == 1.0


def test_nothing_flows_to_a_parameter_on_its_bound(small):
    model, data = small
    few = eqx.tree_at(lambda d: d.counts, data, jnp.asarray([40.0, 22.0]))

    @jax.jit
    def best(counts):
        observed = eqx.tree_at(lambda d: d.counts, few, counts)
        return fit_measurement(histfactory.measure(model, observed))

    found = best(few.counts)
    poi = model.layout.poi
    assert found.status == FitStatus.converged
    assert found.parameters[poi] == 0.0
    assert not found.free[poi]
    assert jnp.all(found.covariance[poi] == 0)
    slopes = jax.jacobian(lambda x: best(x).parameters)(few.counts)
    assert jnp.all(slopes[poi] == 0)
    others = np.delete(np.asarray(slopes), poi, axis=0)
    assert np.all(np.any(others != 0, axis=1))


def test_cls_to_strength_templates_and_counts(small):
    model, data = small

    def cls(strength, scale, counts):
        changed, observed = _changed(model, data, scale)
        observed = eqx.tree_at(lambda d: d.counts, observed, counts)
        found = hypothesis_test(histfactory.measure(changed, observed), strength)
        return jnp.append(found.expected_cls, found.cls)

    inputs = (jnp.asarray(1.3), jnp.asarray([[1.0], [1.1]]), data.counts)
    check_gradient(jax.jit(cls), inputs, rtol=1e-6, order=4, forward=False)


def test_expected_uncertainty_to_templates(small):
    model, data = small

    @jax.jit
    def width(scale):
        changed, observed = _changed(model, data, scale)
        measurement = histfactory.measure(changed, observed)
        return asimov_uncertainty(measurement, changed.start)

    scale = jnp.asarray([[1.0, 0.9], [1.1, 1.2]])
    check_gradient(width, (scale,), rtol=1e-6, forward=False)
    # The Schur complement, from the expected Hessian.
    likelihood = histfactory.likelihood(model, data).asimov(model.start)
    hessian = np.asarray(jax.hessian(likelihood.value)(model.start))
    poi = model.layout.poi
    rest = np.delete(np.arange(len(hessian)), poi)
    inner = np.linalg.solve(hessian[np.ix_(rest, rest)], hessian[rest, poi])
    schur = hessian[poi, poi] - hessian[poi, rest] @ inner
    np.testing.assert_allclose(width(jnp.ones((2, 1))), schur**-0.5, rtol=1e-12)


def test_derivatives_in_closed_form(rich):
    # All modifiers; a normsys of zero, an empty bin, a strength of zero.
    rich["channels"][0]["samples"][1]["modifiers"][2]["data"]["lo"] = 0.0
    workspace = histfactory.read_workspace(rich)
    model = histfactory.build_model(workspace)
    data = histfactory.observed_data(workspace, model)
    likelihood = histfactory.likelihood(model, data)

    def value(point):
        return likelihood.value(point)

    closed = eqx.filter_jit(likelihood.derivatives)
    slope, hessian = jax.jit(jax.grad(value)), jax.jit(jax.hessian(value))
    jes = model.names.index("jes")
    random = np.random.default_rng(3)
    for shift in (-1.7, -1.0, -0.4, 0.0, 0.6, 1.9):
        point = np.asarray(model.start) + 0.2 * random.normal(size=len(model.names))
        point = np.abs(point)
        point[jes] = shift
        point[model.layout.poi] = 0.0
        found = closed(jnp.asarray(point))
        wanted = slope(jnp.asarray(point))
        np.testing.assert_allclose(found.slope, wanted, rtol=1e-11, atol=1e-10)
        if abs(shift) == 1.0:
            # The second derivative of the polynomial is continuous, not smooth.
            continue
        wanted = hessian(jnp.asarray(point))
        np.testing.assert_allclose(found.hessian, wanted, rtol=1e-10, atol=1e-9)
        assert np.all(np.linalg.eigvalsh(found.fisher) > -1e-9)
        ahead = jnp.asarray(point + 0.05)
        change = likelihood.change(ahead, jnp.asarray(point))
        difference = likelihood.value(ahead) - likelihood.value(jnp.asarray(point))
        np.testing.assert_allclose(change, difference, rtol=1e-10)


def test_zeros_have_finite_derivatives(rich):
    rich["channels"][0]["samples"][1]["modifiers"][2]["data"]["lo"] = 0.0
    rich["channels"][0]["samples"][0]["data"][2] = 0.0
    workspace = histfactory.read_workspace(rich)
    model = histfactory.build_model(workspace)
    data = histfactory.observed_data(workspace, model)
    jes = model.names.index("jes")

    @jax.jit
    def slopes(point):
        def value(model, data):
            return histfactory.negative_log_likelihood(model, point, data)

        return eqx.filter_grad(lambda both: value(*both))((model, data))

    for shift in (-2.0, -1.0, 0.0, 1.0):
        leaves = jax.tree.leaves(slopes(model.start.at[jes].set(shift)))
        assert all(jnp.all(jnp.isfinite(leaf)) for leaf in leaves)


@pytest.mark.parametrize("kinds", [(), ("histosys",), ("normsys",)])
def test_models_without_some_kind_of_modifier(kinds):
    data = {
        "histosys": {"lo_data": [45.0, 70.0], "hi_data": [56.0, 77.0]},
        "normsys": {"lo": 0.9, "hi": 1.15},
    }
    modifiers = [{"name": k, "type": k, "data": data[k]} for k in kinds]
    mu = {"name": "mu", "type": "normfactor", "data": None}
    samples = [
        {"name": "signal", "data": [5.0, 12.0], "modifiers": [mu]},
        {"name": "background", "data": [50.0, 72.0], "modifiers": modifiers},
    ]
    workspace = histfactory.read_workspace(
        {
            "version": "1.0.0",
            "channels": [{"name": "one", "samples": samples}],
            "observations": [{"name": "one", "data": [60.0, 80.0]}],
            "measurements": [{"name": "x", "config": {"poi": "mu", "parameters": []}}],
        }
    )
    model = histfactory.build_model(workspace)
    observed = histfactory.observed_data(workspace, model)

    @jax.jit
    def outcome(nominal):
        changed = eqx.tree_at(lambda m: m.nominal, model, nominal)
        expected = histfactory.expected_data(changed, changed.start)
        average = histfactory.measure(changed, expected)
        sigma = asimov_uncertainty(average, changed.start)
        return _best(changed, observed)[0], sigma

    check_gradient(outcome, (model.nominal,), rtol=1e-6, forward=False)
