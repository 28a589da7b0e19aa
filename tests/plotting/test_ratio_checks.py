import jax.numpy as jnp
import matplotlib.text
import numpy as np
import pytest

from diffhep.inference import Calibration, Closure, ProfileScan
from diffhep.plotting import calibration_plot, closure_plot, profile_scan_plot


def _texts(figure):
    figure.canvas.draw()
    return [text.get_text() for text in figure.findobj(matplotlib.text.Text)]


def test_calibration_leaves_out_empty_bins():
    curve = Calibration(
        jnp.asarray([0.1, jnp.nan, 0.8]),
        jnp.asarray([0.2, jnp.nan, 0.7]),
        jnp.asarray([0.01, jnp.nan, 0.02]),
    )
    figure = calibration_plot({"network": curve}, label="signal")
    assert "share with signal" in _texts(figure)
    (points,) = [x for x in figure.axes[0].lines if x.get_marker() == "o"]
    np.testing.assert_allclose(points.get_xydata(), [[0.1, 0.2], [0.8, 0.7]])
    with pytest.raises(ValueError, match="`curves` is empty"):
        calibration_plot({})


def test_closure_draws_pulls_of_the_bins_that_are_not_empty():
    found = Closure(
        jnp.asarray([0.5, 0.3, 0.2, 0.0]),
        jnp.asarray([0.4, 0.4, 0.2, 0.0]),
        jnp.asarray([0.05, 0.05, 0.05, 0.0]),
        jnp.asarray(8.0),
    )
    edges = np.linspace(0.0, 4.0, 5)
    figure = closure_plot({"mass": found}, {"mass": edges})
    assert any("χ² = 8.0 / 3" in text for text in _texts(figure))
    (pulls,) = [x for x in figure.axes[1].lines if x.get_marker() == "o"]
    np.testing.assert_allclose(pulls.get_ydata(), [2.0, -2.0, 0.0], atol=1e-6)
    with pytest.raises(ValueError, match=r"'mass' has 4 bins.*nothing"):
        closure_plot({"mass": found}, {})
    with pytest.raises(ValueError, match=r"'mass' has 4 bins.*\(4,\)"):
        closure_plot({"mass": found}, {"mass": edges[1:]})


def test_scan_has_its_minimum_and_the_truth():
    strength = jnp.linspace(0.0, 2.0, 5)
    scan = ProfileScan(strength, 4 * (strength - 1) ** 2, jnp.asarray(1.0))
    figure = profile_scan_plot({"exact": scan}, truth=1.2)
    assert {"exact", "truth"} <= set(_texts(figure))
    curve = figure.axes[0].lines[0].get_xydata()
    np.testing.assert_allclose(curve[:, 1], [4, 1, 0, 1, 4])
