"""The published search for bottom squarks: likelihoods, minima, CLs."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pyhf
import pytest

from diffhep.inference import (
    FitStatus,
    fit_measurement,
    histfactory,
    hypothesis_test,
)


# pyhf's validation of schemas uses what jsonschema calls deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:jsonschema.RefResolver")

# CLs at the strength 1 as pyhf finds them, with codes 4 and 4p.
POINTS = {
    ("RegionA", "1300_205_60"): 0.24443627759085326,
    ("RegionA", "1400_950_60"): 0.021373283911064852,
    ("RegionA", "1500_850_60"): 0.045367205665400624,
    ("RegionB", "1400_550_60"): 0.9744675266677597,
    ("RegionC", "1600_850_60"): 0.711023707425625,
}
_test = eqx.filter_jit(hypothesis_test)
_fit = eqx.filter_jit(fit_measurement)


def _measurement(workspace):
    model = histfactory.build_model(workspace)
    data = histfactory.observed_data(workspace, model)
    return model, histfactory.measure(model, data)


@pytest.mark.parametrize(("region", "point"), POINTS, ids=lambda x: x)
def test_published_cls(sbottom, region, point):
    _, measurement = _measurement(sbottom(region, point))
    found = _test(measurement, jnp.asarray(1.0))
    assert found.status == FitStatus.converged
    np.testing.assert_allclose(found.cls, POINTS[region, point], rtol=1e-5)


@pytest.mark.parametrize(("region", "point"), POINTS, ids=lambda x: x)
def test_likelihood_and_minimum_against_pyhf(sbottom, region, point):
    workspace = sbottom(region, point)
    model, measurement = _measurement(workspace)
    peer = pyhf.Workspace(workspace.content)
    peer_model = peer.model()
    data = np.asarray(peer.data(peer_model))
    assert list(model.names) == peer_model.config.par_names
    value = eqx.filter_jit(lambda m, x: m.likelihood.value(x))
    random = np.random.default_rng(7)
    low, high = np.asarray(model.lower), np.asarray(model.upper)
    start = np.asarray(model.start)
    for _ in range(20):
        width = np.where(start > 0, 0.1, 1.0)
        drawn = start + 0.7 * width * random.normal(size=start.shape)
        drawn = np.clip(drawn, low + 1e-3, high)
        wanted = -np.asarray(peer_model.logpdf(drawn, data))[0]
        found = value(measurement, jnp.asarray(drawn))
        np.testing.assert_allclose(found, wanted, rtol=1e-12)
    best = _fit(measurement)
    assert best.status == FitStatus.converged
    # Not above the minimum that pyhf finds; and pyhf agrees on ours.
    _, theirs = pyhf.infer.mle.fit(data, peer_model, return_fitted_val=True)
    ours = 2 * value(measurement, best.parameters)
    assert ours <= theirs + 1e-6
    assert jnp.all((best.parameters >= low) & (best.parameters <= high))
    at_ours = -2 * np.asarray(peer_model.logpdf(np.asarray(best.parameters), data))[0]
    np.testing.assert_allclose(ours, at_ours, rtol=1e-12)


def test_signal_points_share_their_compiled_code(sbottom):
    points = [p for r, p in POINTS if r == "RegionA"]
    first, *others = (_measurement(sbottom("RegionA", p))[1] for p in points)
    for other in others:
        assert jax.tree.structure(other) == jax.tree.structure(first)
