"""Fits that assign the hits: against `fit_track`, truth and finite differences."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
import pytest

from diffhep.geometry import default_barrel
from diffhep.helix import Ionisation
from diffhep.tracking import (
    HitPicksTrack,
    TrackPicksHits,
    TrackStatus,
    fit_arms,
    fit_track,
    nearest_clusters,
    predict,
    resolution,
    seed_track,
)


_BARREL = default_barrel()
_LAYERS = 6
_NOISE = 3


def _among_noise(key, position, *, width):
    # Noise hits so many standard deviations of the pixels about each true hit, which
    # stands in a random slot.
    keys = jax.random.split(key, 2)
    number = position.shape[0]
    sigma = (
        _BARREL.pitch
        / np.sqrt(12)
        * jnp.stack([1 / _BARREL.radii, jnp.ones(_LAYERS)], axis=1)
    )
    apart = jax.random.uniform(
        keys[0], (number, _LAYERS, _NOISE, 2), minval=-width, maxval=width
    )
    noise = position[:, :, None] + apart * sigma[None, :, None, :]
    everything = jnp.concatenate([position[:, :, None], noise], axis=2)
    order = jax.random.uniform(keys[1], everything.shape[:3])
    order = jnp.argsort(order, axis=2)
    mixed = jnp.take_along_axis(everything, order[..., None], axis=2)
    return mixed, order == 0


@functools.partial(jax.jit, static_argnames=("competition", "unrolled", "ion"))
def _arms(
    position, mask, seeds, barrel, knobs, *, competition, unrolled=False, ion=None
):
    log_odds, cutoff, temperature = knobs
    return fit_arms(
        position,
        mask,
        seeds,
        barrel,
        log_odds=log_odds,
        cutoff=cutoff,
        temperature=temperature,
        competition=competition,
        ionisation=ion,
        num_steps=4,
        adjoint=optx.RecursiveCheckpointAdjoint() if unrolled else None,
    )


def _knobs(tracks, hits, cutoff=4.0):
    odds = jnp.zeros((tracks, _LAYERS, hits))
    return odds, jnp.asarray(cutoff), jnp.asarray(1.0)


_ALL_HITS = jnp.ones((_LAYERS, _NOISE + 1), bool)


@pytest.mark.parametrize("ion", [None, Ionisation()])
def test_with_one_hit_per_layer_it_is_the_plain_fit(pions, ion):
    position, _ = pions(jax.random.key(1), 32, 0.5, 20.0)
    mask = jnp.ones((_LAYERS, 1), bool)
    knobs = _knobs(1, 1, cutoff=1e3)
    for hits in position[:8]:
        found = jnp.arange(_LAYERS) != 2
        seed = seed_track(hits, found, _BARREL)
        arms = _arms(
            hits[:, None],
            mask & found[:, None],
            seed[None],
            _BARREL,
            knobs,
            competition=TrackPicksHits(),
            ion=ion,
        )
        fit = fit_track(hits, found, _BARREL, ionisation=ion, num_steps=8)
        sigma = jnp.sqrt(jnp.diagonal(fit.covariance))
        # Both at the same root of the same equations.
        np.testing.assert_array_less(
            jnp.abs(arms.parameters[0] - fit.parameters) / sigma, 1e-8
        )
        np.testing.assert_allclose(arms.covariance[0], fit.covariance, rtol=1e-7)
        np.testing.assert_allclose(arms.chi2[0], fit.chi2, rtol=1e-7)
        assert arms.ndf[0] == pytest.approx(5)
        assert bool(jnp.all(arms.status == TrackStatus.good))


def test_the_filter_finds_the_hits_of_a_track_among_noise(pions):
    # Three noise hits within 100 standard deviations on each layer.
    number = 400
    position, truth = pions(jax.random.key(2), number, 2.0, 20.0)
    mixed, is_true = _among_noise(jax.random.key(3), position, width=100.0)
    # Starts a standard deviation away in a random direction.
    plain = jax.jit(jax.vmap(lambda p: fit_track(p, jnp.ones(_LAYERS, bool), _BARREL)))(
        position
    )
    root = jnp.linalg.cholesky(plain.covariance)
    shift = jax.random.normal(jax.random.key(4), (number, 5))
    shift = shift / jnp.linalg.norm(shift, axis=1, keepdims=True)
    seeds = plain.parameters + jnp.einsum("nij,nj->ni", root, shift)
    knobs = _knobs(1, _NOISE + 1)
    run = jax.vmap(
        lambda p, s: _arms(
            p, _ALL_HITS, s[None], _BARREL, knobs, competition=TrackPicksHits()
        )
    )
    arms = jax.jit(run)(mixed, seeds)
    good = np.asarray((arms.status == TrackStatus.good)[:, 0])
    assert good.mean() > 0.98
    weight = np.asarray(arms.weight[:, 0])
    # Measured: 0.977 and 0.003.
    assert weight[np.asarray(is_true)].mean() > 0.96
    assert weight[~np.asarray(is_true)].mean() < 0.006
    # Nearly as good as with the true hits alone: the quantile of the pulls that is one
    # for a normal distribution, to 4 standard errors, and no tails.
    sigma = np.sqrt(np.diagonal(np.asarray(arms.covariance[:, 0]), axis1=1, axis2=2))
    pulls = np.abs(np.asarray(arms.parameters[:, 0] - truth) / sigma)[good]
    np.testing.assert_allclose(np.quantile(pulls, 0.6827, axis=0), 1, atol=4 * 0.05)
    assert (np.max(pulls, axis=1) < 5).mean() > 0.99


def _two_tracks():
    # Two tracks that are close together on the inner layers, and noise.
    truth = jnp.array([[0.05, 1.0, 0.3, 1.4, 0.3], [0.04, 1.05, 0.3006, 1.4003, 0.295]])
    crossings = jax.vmap(predict, in_axes=(0, None))(truth, _BARREL)
    sigma = resolution(jax.tree.map(lambda x: x[0], crossings), _BARREL)
    noise = jax.random.normal(jax.random.key(8), (4, _LAYERS, 2))
    tracks = crossings.position + noise[:2] * sigma[None]
    far = crossings.position[:1] + 30 * noise[2:] * sigma[None]
    position = jnp.swapaxes(jnp.concatenate([tracks, far]), 0, 1)
    return position, truth, sigma


@pytest.fixture(scope="module")
def competing():
    position, truth, _ = _two_tracks()
    mask = jnp.ones(position.shape[:2], bool)
    off = jnp.array([[0.01, 0.1, -1e-4, 1e-4, 1e-3], [-0.01, 0.05, 1e-4, 1e-4, -1e-3]])
    return position, mask, truth + off, truth


@functools.partial(jax.jit, static_argnames="unrolled")
def _end(position, seeds, barrel, knobs, mask, *, unrolled=False):
    # Parameters, variances, weights and chi-squared in one vector.
    fit = _arms(
        position,
        mask,
        seeds,
        barrel,
        knobs,
        competition=HitPicksTrack(),
        unrolled=unrolled,
    )
    scale = jnp.asarray([[0.02, 0.1, 1e-3, 1e-3, 5e-3]])
    variance = jnp.diagonal(fit.covariance, axis1=1, axis2=2)
    parts = [fit.parameters / scale, jnp.log(variance), fit.weight, fit.chi2 / 10]
    return jnp.concatenate([jnp.ravel(part) for part in parts])


@functools.partial(jax.jit, static_argnames="unrolled")
def _push(inputs, tangents, seeds, mask, *, unrolled=False):
    def end(position, barrel, knobs):
        return _end(position, seeds, barrel, knobs, mask, unrolled=unrolled)

    return jax.jvp(end, inputs, tangents)[1]


def test_elastic_arms_share_the_hits(competing):
    position, mask, seeds, truth = competing
    knobs = _knobs(2, position.shape[1])
    fit = _arms(position, mask, seeds, _BARREL, knobs, competition=HitPicksTrack())
    assert bool(jnp.all(fit.status == TrackStatus.good))
    sigma = jnp.sqrt(jnp.diagonal(fit.covariance, axis1=1, axis2=2))
    assert jnp.all(jnp.abs(fit.parameters - truth) < 4 * sigma)
    # Nobody takes more of a hit than there is, and noise belongs to nobody.
    shared = jnp.sum(fit.weight, axis=0)
    assert jnp.all(shared < 1 + 1e-12)
    assert jnp.mean(shared[:, :2]) > 0.9
    assert jnp.mean(shared[:, 2:]) < 0.1
    # Each for itself would take the other's hits where both are near.
    alone = _arms(position, mask, seeds, _BARREL, knobs, competition=TrackPicksHits())
    assert jnp.max(jnp.sum(alone.weight, axis=0)) > 1.05


def _direction(name, inputs, sigma):
    # A tangent for one of the inputs, of about a standard deviation of it.
    position, barrel, (log_odds, cutoff, temperature) = jax.tree.map(
        jnp.zeros_like, inputs
    )
    key = jax.random.key(20)
    layers = jax.random.normal(key, (_LAYERS,))
    if name == "position":
        position = jax.random.normal(key, position.shape) * sigma[:, None, :]
    elif name == "log_odds":
        log_odds = jax.random.normal(key, log_odds.shape)
    elif name == "cutoff":
        cutoff = jnp.ones_like(cutoff)
    elif name == "temperature":
        temperature = jnp.ones_like(temperature)
    elif name == "radii":
        barrel = dataclasses.replace(barrel, radii=0.01 * layers)
    elif name == "pitch":
        pitch = inputs[1].pitch_azimuth * layers
        barrel = dataclasses.replace(barrel, pitch_azimuth=pitch)
    else:
        barrel = dataclasses.replace(barrel, field=jnp.asarray(0.01))
    return position, barrel, (log_odds, cutoff, temperature)


@pytest.mark.parametrize(
    "name", ["position", "log_odds", "cutoff", "temperature", "radii", "pitch", "field"]
)
def test_gradients_are_those_of_finite_differences(competing, name):
    position, mask, seeds, _ = competing
    inputs = position, _BARREL, _knobs(2, position.shape[1])
    tangents = _direction(name, inputs, _two_tracks()[2])

    def end(by):
        moved = jax.tree.map(lambda x, t: x + by * t, inputs, tangents)
        return _end(moved[0], seeds, *moved[1:], mask)

    exact = _push(inputs, tangents, seeds, mask)
    step = 1e-3
    up, down, up2, down2 = (end(k * step) for k in (1, -1, 2, -2))
    rough = (8 * (up - down) - (up2 - down2)) / (12 * step)
    size = jnp.max(jnp.abs(exact))
    assert size > 1e-3
    # A five-point formula: errors of step^4.
    np.testing.assert_allclose(exact, rough, atol=1e-6 * size, rtol=1e-6)
    unrolled = _push(inputs, tangents, seeds, mask, unrolled=True)
    np.testing.assert_allclose(exact, unrolled, atol=1e-8 * size, rtol=1e-8)


def test_dead_slots_are_inert_and_lost_tracks_are_said(competing):
    position, mask, seeds, _ = competing
    knobs = _knobs(2, position.shape[1])
    dead = mask.at[:, 3].set(False)
    poisoned = position.at[:, 3].set(jnp.nan)

    def total(position, seeds):
        return jnp.sum(_end(position, seeds, _BARREL, knobs, dead))

    graded = jax.jit(jax.value_and_grad(total))
    value, gradient = graded(position, seeds)
    other, other_gradient = graded(poisoned, seeds)
    assert value == other
    np.testing.assert_array_equal(gradient[:, :3], other_gradient[:, :3])
    np.testing.assert_array_equal(other_gradient[:, 3], 0.0)
    # A seed where nothing is: typed, finite, with a finite gradient.
    lost = seeds.at[1, 2].set(2.5)
    fit = _arms(position, mask, lost, _BARREL, knobs, competition=HitPicksTrack())
    np.testing.assert_array_equal(fit.status == TrackStatus.good, [True, False])
    assert bool((fit.status == TrackStatus.too_few_hits)[1])
    assert all(jnp.all(jnp.isfinite(x)) for x in (fit.parameters, fit.covariance))
    _, gradient = graded(position, lost)
    assert jnp.all(jnp.isfinite(gradient))
    with pytest.raises(ValueError, match="at least one step"):
        fit_arms(position, mask, seeds, _BARREL, num_steps=0)


def test_the_nearest_clusters_lie_in_the_road(pions):
    _, truth = pions(jax.random.key(11), 1, 2.0, 3.0)
    offsets = jnp.array([[5.0, 0.0], [0.1, 0.1], [0.0, 9.0], [0.2, 0.2], [0.0, 0.0]])
    expected = predict(truth[0], _BARREL)
    apart = offsets[None] / jnp.stack([expected.scale, jnp.ones(_LAYERS)], 1)[:, None]
    clusters = expected.position[:, None] + apart
    mask = jnp.ones((_LAYERS, 5), bool).at[:, 4].set(False)
    clusters = clusters.at[:, 4].set(jnp.nan)
    slots, found = nearest_clusters(
        truth[0], clusters, mask, _BARREL, road=(1.0, 2.0), num=3
    )
    np.testing.assert_array_equal(slots[:, :2], [[1, 3]] * _LAYERS)
    np.testing.assert_array_equal(found, [[True, True, False]] * _LAYERS)
    with pytest.raises(ValueError, match="positive widths"):
        nearest_clusters(truth[0], clusters, mask, _BARREL, road=(0.0, 1.0), num=3)
