import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffhep.geometry import (
    SERVICES_PER_DENSITY,
    build_barrel,
    channels,
    default_barrel,
    detector_of,
    detector_price,
    effective_thickness,
    price_items,
)


_GOOD = {
    "radii": (30.0, 60.0, 90.0),
    "pitch_azimuth": (0.05, 0.05, 0.05),
    "pitch_z": (0.4, 0.4, 0.4),
    "thickness": (0.01, 0.01, 0.01),
    "efficiency": (0.9, 0.9, 0.9),
    "field": 2.0,
}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"radii": (30.0, 60.0)}, "at least 3 layers"),
        ({"radii": (30.0, 90.0, 60.0)}, "from the inside out"),
        ({"radii": (-30.0, 60.0, 90.0)}, "positive radii"),
        ({"pitch_z": (0.4, 0.4)}, "one number for each of the layers"),
        ({"pitch_azimuth": (0.05, 0.0, 0.05)}, "strictly between"),
        ({"thickness": (0.01, float("nan"), 0.01)}, "strictly between"),
        ({"efficiency": (0.9, 1.0, 0.9)}, "strictly between"),
        ({"field": 0.0}, "other than zero"),
    ],
)
def test_bad_numbers_are_refused(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        build_barrel(**{**_GOOD, **change})


def test_good_numbers_are_taken(precision):
    barrel = build_barrel(**_GOOD)
    assert barrel.radii.dtype == barrel.field.dtype == jnp.dtype(precision)
    np.testing.assert_allclose(barrel.pitch_z, _GOOD["pitch_z"])


def test_no_barrel_in_the_event():
    with pytest.raises(ValueError, match="PlaceDetector"):
        detector_of(None)


def test_channels_by_hand():
    barrel = build_barrel(**_GOOD)
    length = 2 * 30.0 * math.sinh(1.5)
    expected = 2 * math.pi * 30.0 * length / (0.05 * 0.4)
    assert channels(barrel, eta_coverage=1.5)[0] == pytest.approx(expected)
    # An ATLAS-like first layer has some millions of channels.
    assert 1e6 < channels(default_barrel())[0] < 1e7


def test_finer_pixels_bring_material():
    barrel = default_barrel()
    finer = dataclasses.replace(barrel, pitch_z=barrel.pitch_z / 2)
    extra = effective_thickness(finer) - effective_thickness(barrel)
    density = 1 / (barrel.pitch_azimuth * barrel.pitch_z)
    np.testing.assert_allclose(extra, SERVICES_PER_DENSITY * density)


def test_price_adds_up_and_pulls_in_the_right_directions():
    barrel = default_barrel()
    items = price_items(barrel)
    assert sum(items.values()) == pytest.approx(float(detector_price(barrel)))
    assert all(value > 0 for value in items.values())
    slope = jax.jit(jax.grad(detector_price))(barrel)
    # Larger, finer, thinner, more efficient and stronger cost more, on every layer.
    assert jnp.all(slope.radii > 0)
    assert jnp.all(slope.pitch_azimuth < 0)
    assert jnp.all(slope.pitch_z < 0)
    assert jnp.all(slope.thickness < 0)
    assert jnp.all(slope.efficiency > 0)
    assert slope.field > 0


def test_price_gradient_against_differences():
    barrel = default_barrel()
    slope = jax.grad(detector_price)(barrel)
    leaves, structure = jax.tree.flatten(barrel)
    for position, leaf in enumerate(leaves):
        step = 1e-5 * leaf
        moved = [
            [*leaves[:position], leaf + sign * step, *leaves[position + 1 :]]
            for sign in (1, -1)
        ]
        up, down = (
            detector_price(jax.tree.unflatten(structure, leaves)) for leaves in moved
        )
        exact = jnp.sum(jax.tree.leaves(slope)[position] * step)
        assert exact == pytest.approx(float(up - down) / 2, rel=1e-7)
