import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffhep.geometry import (
    Tracker,
    build_endcap,
    build_telescope,
    default_barrel,
    default_tracker,
    effective_thickness,
)


_GOOD = {
    "z": (300.0, 500.0),
    "inner": (40.0, 50.0),
    "outer": (200.0, 250.0),
    "pitch_azimuth": (0.05, 0.05),
    "pitch_radius": (0.2, 0.2),
    "thickness": (0.01, 0.02),
    "efficiency": (0.9, 0.95),
}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"z": (500.0, 300.0)}, "from the middle out"),
        ({"z": (-300.0, 500.0)}, "mirror image"),
        ({"outer": (200.0,)}, "one number for each of the discs"),
        ({"inner": (210.0, 50.0)}, "begin before it ends"),
        ({"pitch_radius": (0.2, -0.2)}, "strictly between"),
        ({"efficiency": (0.9, float("nan"))}, "strictly between"),
    ],
)
def test_bad_numbers_are_refused(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        build_endcap(**{**_GOOD, **change})


def test_both_sides(precision):
    endcap = build_endcap(**_GOOD)
    assert endcap.z.dtype == jnp.dtype(precision)
    np.testing.assert_array_equal(endcap.z, [300.0, 500.0, -300.0, -500.0])
    np.testing.assert_allclose(endcap.thickness, [0.01, 0.02, 0.01, 0.02])


def test_layers_of_a_tracker():
    tracker = default_tracker()
    layers = sum(group.number for group in tracker.groups)
    assert layers == 6 + 14
    for values in (tracker.thickness, tracker.efficiency, effective_thickness(tracker)):
        assert values.shape == (layers,)
    assert tracker.pitch.shape == (layers, 2)
    np.testing.assert_array_equal(tracker.pitch[:6], default_barrel().pitch)
    assert tracker.field == default_barrel().field


def test_a_length_for_each_layer():
    tracker = default_tracker()
    with pytest.raises(ValueError, match="one length per layer"):
        dataclasses.replace(tracker, half_length=jnp.ones(3))


def test_the_tracker_is_a_tree_of_its_parameters():
    tracker = default_tracker()
    assert isinstance(tracker, Tracker)
    slopes = jax.grad(lambda t: jnp.sum(t.pitch) + jnp.sum(t.groups[1].z))(tracker)
    np.testing.assert_array_equal(slopes.endcap.z, jnp.ones(14))
    np.testing.assert_array_equal(slopes.barrel.pitch_z, jnp.ones(6))


_PLANES = {
    "distance": (30.0, 60.0, 90.0, 120.0),
    "pitch_across": (0.05,) * 4,
    "pitch_z": (0.2,) * 4,
    "thickness": (0.005,) * 4,
    "efficiency": (0.99,) * 4,
    "field": 2.0,
    "azimuth": 0.3,
}


def test_planes_of_a_telescope(precision):
    telescope = build_telescope(**_PLANES)
    assert telescope.distance.dtype == jnp.dtype(precision)
    (planes,) = telescope.groups
    np.testing.assert_allclose(planes.azimuth, np.full(4, 0.3), rtol=1e-6)
    assert telescope.example[2] == planes.azimuth[0]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"distance": (30.0, 90.0, 60.0, 120.0)}, "from the front to the back"),
        ({"distance": (30.0, 60.0)}, "at least 3"),
        ({"pitch_z": (0.2,)}, "one number for each of the planes"),
        ({"field": 0.0}, "other than zero"),
    ],
)
def test_bad_planes_are_refused(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        build_telescope(**{**_PLANES, **change})
