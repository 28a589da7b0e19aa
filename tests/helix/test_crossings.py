"""Crossings with layers against the position along the helix, and their Jacobians."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffhep.geometry import Cylinders, Discs, Planes
from diffhep.helix import (
    cross_layers,
    curvature,
    kick_response,
    perigee_from_point,
    position_at,
    scattering_angle,
    to_cylinder,
    to_plane,
)


_FIELD = jnp.asarray(2.0)
_LAYERS = {
    "cylinders": Cylinders(
        jnp.array([32.0, 120.0, 900.0]), jnp.array([400.0, 50.0, 1200.0])
    ),
    "discs": Discs(
        jnp.array([300.0, 900.0, -500.0]), jnp.full(3, 30.0), jnp.full(3, 300.0)
    ),
    "planes": Planes(jnp.array([30.0, 150.0, 270.0]), jnp.array([0.0, 0.3, -0.2])),
}
# Soft, almost straight, large impact parameter, backwards.
_TRACKS = [
    [1.0, -3.0, 0.2, 1.2, -0.8],
    [-7.0, 3.0, 0.1, 0.7, 1e-10],
    [20.0, 0.1, 0.05, 1.0, 0.5],
    [0.2, 5.0, -0.1, 2.2, 0.9],
]
_cross = jax.jit(cross_layers)
_at = jax.jit(jax.vmap(position_at, in_axes=(None, 0, None)))


@pytest.mark.parametrize("kind", list(_LAYERS))
@pytest.mark.parametrize("track", _TRACKS)
def test_the_crossing_lies_on_helix_and_layer(kind, track):
    layers, track = _LAYERS[kind], jnp.array(track)
    found = _cross(track, layers, _FIELD)
    forwards = jnp.sign(jnp.cos(track[3]))
    ahead = layers.z * forwards > 0 if kind == "discs" else jnp.ones(3, bool)
    np.testing.assert_array_equal(found.reached, ahead)
    point = _at(track, found.arc, _FIELD)
    radius = jnp.hypot(point[:, 0], point[:, 1])
    azimuth = jnp.arctan2(point[:, 1], point[:, 0])
    if kind == "planes":
        sine, cosine = jnp.sin(layers.azimuth), jnp.cos(layers.azimuth)
        on = point[:, 0] * cosine + point[:, 1] * sine - layers.distance
        expected = [point[:, 1] * cosine - point[:, 0] * sine, point[:, 2]]
    elif kind == "discs":
        on, expected = point[:, 2] - layers.z, [azimuth, radius]
        inside = jnp.minimum(radius - 30, 300 - radius)
        np.testing.assert_allclose(found.inside[ahead], inside[ahead], rtol=1e-9)
    else:
        on, expected = radius - layers.radii, [azimuth, point[:, 2]]
        inside = layers.half_length - jnp.abs(point[:, 2])
        np.testing.assert_allclose(found.inside, inside, rtol=1e-9)
    ahead = np.asarray(ahead)
    assert np.max(np.abs(np.asarray(on))[ahead]) < 1e-10
    difference = found.position - jnp.stack(expected, axis=1)
    assert np.max(np.abs(np.asarray(difference))[ahead]) < 1e-10


@pytest.mark.parametrize("kind", list(_LAYERS))
def test_jacobians_against_autodiff(kind):
    layers = _LAYERS[kind]
    slope = jax.jit(jax.jacfwd(lambda p: cross_layers(p, layers, _FIELD).position))
    for track in _TRACKS:
        expected = slope(jnp.array(track))
        found = _cross(jnp.array(track), layers, _FIELD)
        use = np.asarray(found.reached)
        np.testing.assert_allclose(
            np.asarray(found.jacobian)[use], expected[use], rtol=1e-8, atol=1e-9
        )


def test_the_same_as_the_single_surfaces():
    track = jnp.array(_TRACKS[0])
    cylinders, discs = _LAYERS["cylinders"], _LAYERS["discs"]
    found = _cross(track, cylinders, _FIELD)
    one = to_cylinder(track, cylinders.radii[1], _FIELD)
    np.testing.assert_allclose(found.position[1], jnp.stack([one.azimuth, one.z]))
    turn = one.direction - one.azimuth
    assert found.incidence[1] == pytest.approx(float(jnp.sin(track[3]) * jnp.cos(turn)))
    point = jnp.array([0.0, 0.0, 300.0])
    other = to_plane(track, point, jnp.array([0.0, 0.0, 1.0]), _FIELD)
    found = _cross(track, discs, _FIELD)
    assert found.position[0, 1] == pytest.approx(
        float(jnp.hypot(other.position[0], other.position[1])), rel=1e-9
    )
    assert found.incidence[0] == pytest.approx(float(jnp.abs(other.direction[2])))


def test_out_of_reach_is_finite_with_its_derivative():
    # 50 MeV turn back after some 0.17 m.
    track = jnp.array([0.0, 0.0, 0.1, 1.2, 20.0])
    for layers in _LAYERS.values():
        found = _cross(track, layers, _FIELD)
        assert not jnp.all(found.reached)

        def total(track, layers):
            crossings = cross_layers(track, layers, _FIELD)
            return jnp.sum(crossings.position) + jnp.sum(crossings.jacobian)

        slopes = jax.jit(jax.grad(total, argnums=(0, 1)))(track, layers)
        assert all(jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(slopes))


@pytest.mark.parametrize("arc", [30.0, 400.0])
@pytest.mark.parametrize("track", _TRACKS)
def test_kicks_against_the_helix_through_the_point(track, arc):
    track, arc = jnp.array(track), jnp.asarray(arc)
    point = position_at(track, arc, _FIELD)
    phi = track[2] - curvature(track, _FIELD) * arc

    def kicked(kick):
        return perigee_from_point(
            point, phi + kick[0], track[3] + kick[1], track[4] + kick[2], _FIELD
        )

    expected = jax.jacfwd(kicked)(jnp.zeros(3))
    found = kick_response(track, arc[None], _FIELD)[0]
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


def test_silicon_scatters_as_in_geant4():
    # 300 micrometres (93.7 mm radiation length): 0.599 mrad at 1 GeV, for a muon.
    momentum = jnp.asarray(1.0)
    beta = momentum / jnp.sqrt(momentum**2 + 0.10566**2)
    width = scattering_angle(jnp.asarray(0.3 / 93.7), momentum, beta)
    assert width == pytest.approx(0.599e-3, rel=0.02)
