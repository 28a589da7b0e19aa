import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffhep.detector import (
    DetectHits,
    MeasureTowers,
    PlaceDetector,
    SimulateHits,
    simulate_hits,
    smear_energy,
)
from diffhep.estimators import Detached, Gradient, Recorded, Score
from diffhep.event import Event, Hits, Particles
from diffhep.geometry import STAGGER, default_barrel
from diffhep.helix import perigee_from_momentum, to_cylinder
from diffhep.pipeline import Pipeline
from diffhep.tracking import FitTracks


_BARREL = default_barrel()
_QUIET = jnp.zeros((6, 4))
_simulate = jax.jit(simulate_hits)
_simulate_many = jax.jit(jax.vmap(simulate_hits, in_axes=(0, 0, 0, None, 0)))


def _pion(transverse=5.0, eta=0.7, phi=0.4):
    momentum = np.array(
        [transverse * np.cos(phi), transverse * np.sin(phi), transverse * np.sinh(eta)]
    )
    energy = np.sqrt(np.sum(momentum**2) + 0.1396**2)
    return jnp.asarray([*momentum, energy])


def test_without_noise_the_hits_lie_on_the_helix():
    position, momentum = jnp.array([0.3, -0.2, 12.0]), _pion()
    hits = _simulate(position, momentum, jnp.asarray(-1.0), _BARREL, _QUIET)
    helix = perigee_from_momentum(
        position, momentum[:3], jnp.asarray(-1.0), _BARREL.field
    )
    for layer, radius in enumerate(_BARREL.radii):
        crossing = to_cylinder(helix, radius, _BARREL.field)
        np.testing.assert_allclose(
            hits.position[layer, 0], crossing.azimuth, rtol=1e-10
        )
        np.testing.assert_allclose(hits.position[layer, 1], crossing.z, rtol=1e-9)
    assert jnp.all(hits.reached)
    # Far inside a layer nothing but the efficiency decides.
    expected = jnp.log(_BARREL.efficiency) - jnp.log1p(-_BARREL.efficiency)
    np.testing.assert_allclose(hits.logit, expected, rtol=1e-9)


def test_noise_has_the_stated_size():
    position, momentum = jnp.zeros(3), _pion(eta=0.0)
    charge = jnp.asarray(1.0)
    base = _simulate(position, momentum, charge, _BARREL, _QUIET)
    pixels = _QUIET.at[:, :2].set(1.0)
    moved = _simulate(position, momentum, charge, _BARREL, pixels)
    moves = moved.position - base.position
    sideways = moves[:, 0] * _BARREL.radii
    np.testing.assert_allclose(sideways, _BARREL.pitch_azimuth / np.sqrt(12), rtol=1e-8)
    np.testing.assert_allclose(moves[:, 1], _BARREL.pitch_z / 12**0.5, rtol=1e-8)
    # A kick in theta at the first layer leaves its own hit alone; the next one moves by
    # the angle times the distance: 1.6 % of X0 at 5 GeV scatter by some 0.29 mrad.
    kicked = _simulate(position, momentum, charge, _BARREL, _QUIET.at[0, 3].set(-1.0))
    moves = kicked.position - base.position
    assert moves[0, 1] == 0
    assert moves[1, 1] == pytest.approx(0.29e-3 * 38, rel=0.05)


def test_a_particle_born_outside_leaves_no_hit():
    # Born at 100 mm: layers at 32 and 70 mm cannot see it, and do not scatter it.
    position = jnp.array([100.0, 0.0, 5.0])
    momentum, charge = _pion(phi=0.0), jnp.asarray(1.0)
    hits = _simulate(position, momentum, charge, _BARREL, _QUIET)
    np.testing.assert_array_equal(hits.reached, jnp.arange(6) >= 2)
    assert jnp.all(hits.logit[:2] == -jnp.inf)
    kicked = _simulate(position, momentum, charge, _BARREL, _QUIET.at[:2, 2:].set(3.0))
    np.testing.assert_allclose(kicked.position, hits.position, atol=1e-9)


def test_the_edge_of_a_layer_is_a_logistic_step():
    def logit(radius, distance):
        barrel = dataclasses.replace(_BARREL, radii=_BARREL.radii.at[1].set(radius))
        position = jnp.stack([radius + distance, jnp.zeros(()), jnp.zeros(())])
        hits = simulate_hits(position, _pion(phi=0.0), jnp.asarray(1.0), barrel, _QUIET)
        return hits.logit[1]

    evaluate = jax.jit(logit)
    for widths in (-3.0, 0.0, 3.0):
        found = jax.nn.sigmoid(
            evaluate(jnp.asarray(70.0), jnp.asarray(widths * STAGGER))
        )
        expected = 0.97 / (1 + np.exp(widths))
        assert found == pytest.approx(expected, rel=1e-3)
    # The probability, and not only the pathwise part, depends on the radius.
    slope = jax.jit(jax.grad(lambda r: logit(r, 70.0 - r)))(jnp.asarray(70.0))
    assert slope > 1.0


def _inputs():
    position = jnp.array([0.5, 0.2, -8.0])
    noise = jax.random.normal(jax.random.key(3), (6, 4))
    return position, _pion(2.0), jnp.asarray(1.0), _BARREL, noise


def test_gradient_against_differences():
    position, momentum, charge, barrel, noise = _inputs()

    @jax.jit
    def outputs(values):
        position, momentum, barrel = values
        hits = simulate_hits(position, momentum, charge, barrel, noise)
        return jnp.concatenate(
            [hits.position[:, 0] * 100, hits.position[:, 1], hits.logit]
        )

    values = (position, momentum, barrel)
    exact = jax.jit(jax.jacrev(outputs))(values)
    leaves, structure = jax.tree.flatten(values)
    rows = jax.tree.leaves(exact)
    for place, (leaf, row) in enumerate(zip(leaves, rows, strict=True)):
        direction = jax.random.normal(jax.random.key(place), leaf.shape)
        step = 1e-5 * jnp.where(leaf == 0, 1.0, leaf) * direction
        ends = []
        for sign in (1, -1):
            moved = [*leaves]
            moved[place] = leaf + sign * step
            ends.append(outputs(jax.tree.unflatten(structure, moved)))
        numeric = (ends[0] - ends[1]) / 2
        step = jnp.broadcast_to(step[None], row.shape)
        found = jnp.sum(jnp.reshape(row * step, (18, -1)), axis=1)
        scale = float(jnp.max(jnp.abs(numeric)))
        np.testing.assert_allclose(found, numeric, atol=1e-7 * scale, rtol=1e-6)


def test_curling_particles_are_masked_and_finite():
    # 0.1 GeV in 2 T turns back at 0.33 m: the last two layers are out of reach.
    arguments = (jnp.zeros(3), _pion(0.1), jnp.asarray(1.0))

    def total(momentum, barrel):
        hits = simulate_hits(arguments[0], momentum, arguments[2], barrel, _QUIET)
        logit = jnp.where(hits.reached, hits.logit, 0.0)
        return jnp.sum(hits.position) + jnp.sum(logit), hits.reached

    (value, reached), slopes = jax.jit(
        jax.value_and_grad(total, argnums=(0, 1), has_aux=True)
    )(arguments[1], _BARREL)
    np.testing.assert_array_equal(reached, jnp.arange(6) < 4)
    assert jnp.isfinite(value)
    assert all(jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(slopes))


def _hits(logit, mask):
    return Hits(jnp.zeros((*logit.shape, 2)), logit, mask)


def test_hits_are_found_with_their_probability_and_score():
    logit = jnp.array([[-1.0, 2.0, -jnp.inf], [0.5, 3.0, jnp.nan]])
    mask = jnp.array([[True, True, False], [True, True, False]])

    def found(shift, key):
        event = Event(hits=_hits(logit + shift, mask))
        event = DetectHits()(event, key=key)
        assert event.detected is not None
        return event.detected, event.log_weight, event.hits.mask

    keys = jax.random.split(jax.random.key(0), 20_000)
    many = jax.jit(jax.vmap(jax.jacrev(lambda s, k: found(s, k)[1]), in_axes=(None, 0)))
    detected, weight, living = jax.jit(jax.vmap(found, in_axes=(None, 0)))(
        jnp.asarray(0.0), keys
    )
    np.testing.assert_array_equal(detected, living)
    assert jnp.all(weight == 0)
    assert not jnp.any(detected[:, :, 2])
    probability = np.array(jax.nn.sigmoid(logit[:, :2]))
    error = np.sqrt(probability * (1 - probability) / len(keys))
    frequency = np.mean(np.array(detected[:, :, :2], float), axis=0)
    assert np.all(np.abs(frequency - probability) < 4 * error)
    # E[score] = 0, and E[f score] is the derivative of the mean number of hits.
    score = np.array(many(jnp.asarray(0.0), keys))
    assert abs(np.mean(score)) < 4 * np.std(score) / np.sqrt(len(keys))
    number = np.sum(np.array(detected, float), axis=(1, 2))
    product = (number - np.mean(number)) * score
    expected = np.sum(probability * (1 - probability))
    error = np.std(product) / np.sqrt(len(keys))
    assert abs(np.mean(product) - expected) < 4 * error


def test_recorded_hits_are_kept():
    logit, mask = jnp.full((1, 3), 2.0), jnp.array([[True, True, False]])
    detected = jnp.array([[True, False, False]])
    event = Event(hits=_hits(logit, mask), detected=detected)
    event = DetectHits(estimator=Recorded())(event, key=jax.random.key(0))
    assert event.hits is not None
    np.testing.assert_array_equal(event.hits.mask, detected)
    assert DetectHits(estimator=Score()).gradient is Gradient.UNBIASED
    assert DetectHits(estimator=Detached()).gradient is Gradient.BIASED


@pytest.mark.parametrize("energy", [0.5, 5.0, 200.0])
def test_calorimeter_resolution(energy):
    noise = jax.random.normal(jax.random.key(1), (50_000,))
    smear = jax.jit(jax.vmap(smear_energy, in_axes=(None, None, None, 0)))
    measured = smear(jnp.asarray(energy), jnp.asarray(0.5), jnp.asarray(0.03), noise)
    width = energy * np.sqrt(0.25 / energy + 0.03**2)
    assert jnp.all(measured > 0)
    assert abs(jnp.mean(measured) - energy) < 4 * width / np.sqrt(len(noise))
    # The tail of the log-normal makes the width of the width a few times the Gaussian.
    assert jnp.std(measured) == pytest.approx(width, rel=0.05)


def test_towers_are_massless_and_neutral_only():
    momentum = jnp.stack([_pion(), _pion(2.0, -1.0), jnp.full(4, jnp.nan)])
    particles = Particles(
        momentum=momentum,
        vertex=jnp.zeros((3, 3)),
        charge=jnp.array([1.0, 0.0, jnp.nan]),
        pdg_id=jnp.array([211, 130, 0]),
        origin=jnp.zeros(3, int),
        mask=jnp.array([True, True, False]),
    )
    event = MeasureTowers()(Event(particles=particles), key=jax.random.key(0))
    assert event.towers is not None
    np.testing.assert_array_equal(event.towers.mask, [False, True, False])
    tower = event.towers.momentum[1]
    assert tower[3] == pytest.approx(float(jnp.linalg.norm(tower[:3])))
    direction = momentum[1, :3] / jnp.linalg.norm(momentum[1, :3])
    np.testing.assert_allclose(tower[:3] / tower[3], direction, rtol=1e-12)


def test_stages_say_what_they_lack():
    key = jax.random.key(0)
    for stage, name in [
        (SimulateHits(), "PlaceDetector"),
        (DetectHits(), "hits"),
        (MeasureTowers(), "particles"),
        (FitTracks(), "PlaceDetector"),
    ]:
        with pytest.raises(ValueError, match=name):
            stage(Event(), key=key)


@functools.partial(jax.jit, static_argnames="number")
def _pulls(key, number):
    """Pulls and chi-squared of pions of 1 to 100 GeV, through simulation and fit."""
    keys = jax.random.split(key, 8)
    flat = jax.random.uniform(keys[0], (number, 3))
    transverse = 100.0 ** flat[:, 0]
    eta, phi = 4 * flat[:, 1] - 2, 2 * jnp.pi * flat[:, 2] - jnp.pi
    momentum = jnp.stack(
        [
            transverse * jnp.cos(phi),
            transverse * jnp.sin(phi),
            transverse * jnp.sinh(eta),
        ],
        axis=1,
    )
    energy = jnp.sqrt(jnp.sum(momentum**2, axis=1) + 0.13957039**2)
    spread = jnp.array([[0.5, 0.5, 40.0]])
    vertex = spread * jax.random.normal(keys[1], (number, 3))
    charge = jnp.where(jax.random.bernoulli(keys[2], shape=(number,)), 1.0, -1.0)
    particles = Particles(
        momentum=jnp.concatenate([momentum, energy[:, None]], axis=1),
        vertex=vertex,
        charge=charge,
        pdg_id=jnp.full(number, 211),
        origin=jnp.zeros(number, int),
        mask=jnp.ones(number, bool),
    )
    stages = [PlaceDetector(_BARREL), SimulateHits(), DetectHits(), FitTracks()]
    event = Pipeline(stages)(Event(particles=particles), key=keys[3])
    truth = jax.vmap(perigee_from_momentum, in_axes=(0, 0, 0, None))(
        vertex, momentum, charge, _BARREL.field
    )
    tracks = event.tracks
    residual = tracks.parameters - truth
    residual = residual.at[:, 2].set(jnp.sin(residual[:, 2]))
    width = jnp.sqrt(jnp.diagonal(tracks.covariance, axis1=1, axis2=2))
    return residual / width, tracks, event.status, jnp.sum(event.hits.mask, axis=1)


def test_pulls_and_chi_squared():
    number = 24_000
    pulls, tracks, status, found = _pulls(jax.random.key(2024), number)
    # Every track with 3 hits is fitted.
    np.testing.assert_array_equal(tracks.mask, found >= 3)
    assert status == 0
    use = np.array(tracks.mask)
    total = np.sum(use)
    assert total > number - 10
    pulls = np.array(pulls)[use]
    mean, width = np.mean(pulls, axis=0), np.std(pulls, axis=0)
    assert np.all(np.abs(mean) * np.sqrt(total) < 3)
    assert np.all(np.abs(width - 1) * np.sqrt(2 * total) < 3)
    chi2, ndf = np.array(tracks.chi2)[use], np.array(tracks.ndf)[use]
    error = np.sqrt(np.sum(2 * ndf)) / total
    assert abs(np.mean(chi2 - ndf)) < 3 * error
