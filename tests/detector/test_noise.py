"""Noise hits: their number, their place, and the gradient of the choice."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffhep.detector import (
    AddNoise,
    DetectHits,
    PlaceDetector,
    SimulateHits,
    expected_noise,
    place_noise,
)
from diffhep.estimators import Recorded, Score
from diffhep.event import Status, explain_status
from diffhep.generator import toy_events
from diffhep.geometry import build_telescope, default_barrel, default_tracker
from diffhep.pipeline import Pipeline


_TRACKER = default_tracker()
_KEY = jax.random.key(5)


def _run(occupancy, capacity, *, number=3, estimator=None, key=_KEY):
    stages = [
        PlaceDetector(_TRACKER),
        SimulateHits(),
        DetectHits(),
        AddNoise(
            jnp.asarray(occupancy), capacity=capacity, estimator=estimator or Score()
        ),
    ]
    events = toy_events(number, capacity=8, key=_KEY)
    return jax.jit(jax.vmap(lambda e, k: Pipeline(stages)(e, key=k)))(
        events, jax.random.split(key, number)
    )


def test_the_mean_is_occupancy_times_pixels():
    barrel = default_barrel()
    mean = expected_noise(jnp.asarray(1e-7), barrel, max_eta=1.5)
    # Circumference times length over the size of a pixel.
    length = 2 * barrel.radii * np.sinh(1.5)
    pixels = 2 * np.pi * barrel.radii * length / barrel.pitch_azimuth / barrel.pitch_z
    np.testing.assert_allclose(mean, 1e-7 * pixels, rtol=1e-12)
    first = expected_noise(jnp.asarray(1e-7), _TRACKER, max_eta=1.5)
    # A finite layer has its own length: 2 x 400 mm; a disc the area of a ring.
    np.testing.assert_allclose(
        first[0], 1e-7 * 2 * np.pi * 32 * 800 / (0.05 * 0.25), rtol=1e-12
    )
    ring = np.pi * (150.0**2 - 50.0**2) / (0.05 * 0.25)
    np.testing.assert_allclose(first[6:9], 1e-7 * ring, rtol=1e-12)


def test_noise_is_spread_evenly_over_the_area():
    uniform = jax.random.uniform(_KEY, (_TRACKER.pitch.shape[0], 20_000, 2))
    position = place_noise(uniform, _TRACKER, max_eta=2.5)
    layers = position.shape[0]
    angle, along = np.asarray(position[:, :, 0]), np.asarray(position[:, :, 1])
    assert np.all(np.abs(angle) <= np.pi)
    # Moments of uniform distributions, 4 standard errors of 20,000.
    np.testing.assert_allclose(angle.mean(1), 0, atol=4 * np.pi / np.sqrt(3 * 20_000))
    half = np.asarray(_TRACKER.half_length)
    barrel = along[:6] / half[:, None]
    assert np.all(np.abs(barrel) <= 1)
    np.testing.assert_allclose(
        np.mean(barrel**2, 1), 1 / 3, atol=4 * 0.298 / 20_000**0.5
    )
    inner, outer = np.asarray(_TRACKER.endcap.inner), np.asarray(_TRACKER.endcap.outer)
    share = (along[6:] ** 2 - inner[:, None] ** 2) / (outer**2 - inner**2)[:, None]
    assert np.all((share >= 0) & (share <= 1))
    np.testing.assert_allclose(
        share.mean(1), 0.5, atol=4 / np.sqrt(12 * 20_000), err_msg=f"{layers} layers"
    )


def test_clusters_hold_the_found_hits_and_the_noise():
    events = _run(2e-8, capacity=96)
    clusters, hits = events.clusters, events.hits
    particles = hits.mask.shape[1]
    of_particle = np.asarray(clusters.particle)
    mask = np.asarray(clusters.mask)
    np.testing.assert_array_equal(
        mask[:, :, :particles], np.swapaxes(np.asarray(hits.mask), 1, 2)
    )
    np.testing.assert_array_equal(
        clusters.position[:, :, :particles], jnp.swapaxes(hits.position, 1, 2)
    )
    np.testing.assert_array_equal(
        (mask & (of_particle == -1)).sum(2), np.asarray(events.num_noise)
    )
    assert np.asarray(events.num_noise).sum() > 50
    assert np.all(np.asarray(events.status) & Status.NOISE_OVERFLOW == 0)


def test_too_much_noise_is_said():
    events = _run(1e-6, capacity=4)
    assert np.all(np.asarray(events.status) & Status.NOISE_OVERFLOW)
    assert any(
        "raise `capacity` of `AddNoise`" in s for s in explain_status(events.status)
    )


def test_the_score_is_the_derivative_of_the_mean_number():
    # d<n>/d(occupancy) is the number of pixels, exactly.
    number, occupancy = 4000, 1e-8
    hits = _run(occupancy, 64, number=1)
    event = jax.tree.map(lambda x: x[0], hits).replace(clusters=None, num_noise=None)

    def one(occupancy, key):
        out = AddNoise(occupancy, capacity=64)(event, key=key)
        return jnp.sum(out.num_noise).astype(occupancy.dtype), out.log_weight

    keys = jax.random.split(_KEY, number)
    count, score = jax.jit(
        jax.vmap(
            lambda k: (
                one(jnp.asarray(occupancy), k)[0],
                jax.grad(lambda o: one(o, k)[1])(jnp.asarray(occupancy)),
            )
        )
    )(keys)
    mean = jnp.sum(expected_noise(jnp.asarray(occupancy), _TRACKER, max_eta=2.5))
    for values, exact in (
        (count, mean),
        (score, 0.0),
        ((count - mean) * score, mean / occupancy),
    ):
        error = jnp.std(values) / np.sqrt(number)
        assert abs(jnp.mean(values) - exact) < 4 * error
    # The error is small enough for that to mean something.
    assert error < 0.05 * mean / occupancy


def test_a_recorded_number_is_kept_and_has_no_score():
    first = _run(1e-8, 64, number=1)
    event = jax.tree.map(lambda x: x[0], first)
    stage = AddNoise(jnp.asarray(3e-8), capacity=64, estimator=Recorded())
    again = stage(event, key=jax.random.key(99))
    np.testing.assert_array_equal(again.num_noise, event.num_noise)
    assert again.log_weight == event.log_weight


def test_planes_have_no_area():
    telescope = build_telescope(
        distance=[30.0, 60.0, 90.0],
        pitch_across=[0.05] * 3,
        pitch_z=[0.05] * 3,
        thickness=[0.01] * 3,
        efficiency=[0.9] * 3,
        field=2.0,
    )
    with pytest.raises(ValueError, match="Planes have no end"):
        expected_noise(jnp.asarray(1e-7), telescope, max_eta=2.5)
    with pytest.raises(ValueError, match="room for at least one"):
        AddNoise(jnp.asarray(1e-7), capacity=0)
