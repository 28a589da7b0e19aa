import numpy as np
import pytest

from diffhep.plotting import clustering_display


def _particles():
    pt, y, phi = np.array([40.0, 30.0, 5.0]), np.array([0.1, 0.2, -1.0]), [1.0, 1.1, 4]
    columns = [pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(y), pt * np.cosh(y)]
    return np.stack(columns, axis=1)


def test_particles_stand_where_they_fly_with_the_colour_of_their_jet():
    momentum = _particles()
    inside = np.array([[True, True, False]])
    ghost_inside = np.array([[True, False, False]])
    figure = clustering_display(
        momentum, inside, ghosts=momentum, ghost_membership=ghost_inside, title="One"
    )
    figure.canvas.draw()
    (axes,) = figure.axes
    area, alone, jet = axes.collections
    np.testing.assert_allclose(area.get_offsets(), [[0.1, 1.0]], atol=1e-12)
    np.testing.assert_allclose(alone.get_offsets(), [[-1.0, 4.0]], atol=1e-12)
    np.testing.assert_allclose(jet.get_offsets(), [[0.1, 1.0], [0.2, 1.1]], atol=1e-12)
    sizes = jet.get_sizes()
    np.testing.assert_allclose((sizes[0] - 6) / (sizes[1] - 6), 4 / 3)
    (label,) = axes.get_legend().get_texts()
    assert label.get_text() == "jet 1: 70 GeV"


def test_shapes_that_do_not_fit_are_said():
    with pytest.raises(ValueError, match="four components"):
        clustering_display(np.zeros((3, 3)), np.zeros((1, 3), bool))
    with pytest.raises(ValueError, match=r"give \(jets, 3\)"):
        clustering_display(_particles(), np.zeros((1, 4), bool))
