import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffhep.plotting import binned_quantiles, flight_resolution, jet_display
from diffhep.tagging import JetVertex


def _vertex(jet, truth):
    return JetVertex(
        flight=truth.flight + 0.1,
        covariance=0.01 * jnp.eye(3),
        weight=jnp.where(jet.mask, 0.9, 0.0),
        chi2=jnp.asarray(3.0),
        ndf=jnp.asarray(3.0),
        converged=jnp.asarray(True),
    )


def test_jet_display_shows_tracks_vertices_and_the_true_decay(toy_jets):
    pytest.importorskip("matplotlib")
    jets, truths = toy_jets(jax.random.key(0), 8)
    best = int(jnp.argmax(jnp.sum(truths.flight**2, axis=1)))
    jet, truth = jax.tree.map(lambda x: x[best], (jets, truths))
    figure = jet_display(jet, _vertex(jet, truth), truth=truth, title="a toy")
    above = figure.axes[0]
    labels = {line.get_label() for line in above.lines}
    assert {"primary vertex", "true decay", "other track"} <= labels
    (decay,) = [line for line in above.lines if line.get_label() == "true decay"]
    np.testing.assert_allclose(decay.get_xydata()[0], truth.flight[:2], rtol=1e-12)
    # Two pieces of each track.
    tracks = [line for line in above.lines if len(line.get_xdata()) > 10]
    assert len(tracks) == 2 * int(jet.mask.sum())
    low, high = above.get_xlim()
    assert low < min(0, float(truth.flight[0])) < high


def test_jet_display_refuses_a_batch(toy_jets):
    jets, truths = toy_jets(jax.random.key(0), 8)
    jet, truth = jax.tree.map(lambda x: x[0], (jets, truths))
    with pytest.raises(ValueError, match="one jet"):
        jet_display(jets, _vertex(jet, truth))


def test_binned_quantiles_of_a_known_distribution():
    generator = np.random.default_rng(1)
    position = generator.uniform(0, 2, 40_000)
    size = generator.uniform(0, 1, 40_000)
    rows = binned_quantiles(position, size, np.array([0.0, 1.0, 2.0, 3.0]))
    # The median of n uniform numbers has a standard deviation of 1 / sqrt(4 n).
    error = 0.5 / np.sqrt(20_000)
    np.testing.assert_allclose(rows[:2, 3], error, rtol=0.1)
    np.testing.assert_allclose(rows[:2, :3], [[0.16, 0.5, 0.84]] * 2, atol=4 * error)
    assert np.all(np.isnan(rows[2]))


def test_flight_resolution_draws_each_fit():
    pytest.importorskip("matplotlib")
    generator = np.random.default_rng(2)
    true = generator.exponential(4.0, (2000, 3))
    fits = {f"fit {k}": true + generator.normal(0, k, (2000, 3)) for k in (1, 2)}
    figure = flight_resolution(true, fits, edges=np.geomspace(0.5, 32, 7))
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == list(fits)
    with pytest.raises(ValueError, match="fits to draw"):
        flight_resolution(true, {}, edges=np.geomspace(0.5, 32, 7))
