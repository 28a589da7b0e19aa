"""Derivatives through fits, against finite differences."""

import equinox as eqx
import jax
import numpy as np
import pytest

from diffhep.inference import (
    fit_measurement,
    histfactory,
)


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
