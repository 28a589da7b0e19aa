"""Fits that assign the hits: against `fit_track`, truth and finite differences."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
import pytest

from diffhep.detector import simulate_hits
from diffhep.geometry import build_barrel, default_barrel, effective_thickness
from diffhep.helix import Ionisation, perigee_from_momentum
from diffhep.tracking import (
    HitPicksTrack,
    TrackPicksHits,
    TrackPrior,
    TrackStatus,
    combine_hits,
    fit_arms,
    fit_track,
    nearest_clusters,
    predict,
    resolution,
    seed_track,
    smooth_track,
)


_BARREL = default_barrel()
_LAYERS = 6
_NOISE = 3


def _pions(key, number, low, high):
    keys = jax.random.split(key, 4)
    span = jnp.log(jnp.asarray([low, high]))
    transverse = jnp.exp(
        jax.random.uniform(keys[0], (number,), minval=span[0], maxval=span[1])
    )
    phi = jax.random.uniform(keys[1], (number,), minval=-np.pi, maxval=np.pi)
    eta = jax.random.uniform(keys[2], (number,), minval=-1.0, maxval=1.0)
    momentum = transverse[:, None] * jnp.stack(
        [jnp.cos(phi), jnp.sin(phi), jnp.sinh(eta)], axis=1
    )
    energy = jnp.sqrt(jnp.sum(momentum**2, axis=1) + 0.13957039**2)
    charge = jnp.where(jnp.arange(number) % 2 == 0, 1.0, -1.0)
    noise = jax.random.normal(keys[3], (number, _LAYERS, 4))
    hits = jax.vmap(simulate_hits, in_axes=(None, 0, 0, None, 0))(
        jnp.zeros(3),
        jnp.concatenate([momentum, energy[:, None]], axis=1),
        charge,
        _BARREL,
        noise,
    )
    truth = jax.vmap(perigee_from_momentum, in_axes=(None, 0, 0, None))(
        jnp.zeros(3), momentum, charge, _BARREL.field
    )
    return hits.position, truth


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
def test_with_one_hit_per_layer_it_is_the_plain_fit(ion):
    position, _ = _pions(jax.random.key(1), 32, 0.5, 20.0)
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


def test_the_filter_finds_the_hits_of_a_track_among_noise():
    # Three noise hits within 100 standard deviations on each layer.
    number = 400
    position, truth = _pions(jax.random.key(2), number, 2.0, 20.0)
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


def test_candidates_with_weights_are_layers_with_weights():
    # Two candidates on the third layer, against two layers in one place.
    position, _ = _pions(jax.random.key(6), 1, 2.0, 3.0)
    hits = position[0]
    other = hits[2] + jnp.array([2e-4, 0.1])
    weight = jnp.array([[0.3, 0.6]] + [[1.0, 0.0]] * 3)
    doubled = jnp.stack([hits[2:], jnp.concatenate([other[None], hits[3:]])], axis=1)
    mask = jnp.ones((4, 2), bool).at[1:, 1].set(False)

    def barrel(radii, thickness):
        layers = len(radii)
        return build_barrel(
            radii=radii,
            pitch_azimuth=[0.05] * layers,
            pitch_z=[0.25] * layers,
            thickness=thickness,
            efficiency=[0.9] * layers,
            field=2.0,
        )

    radii = [120.0, 250.0, 500.0, 900.0]
    one = barrel(radii, [0.02] * 4)
    mean, total, found = combine_hits(doubled, weight, mask, one)
    np.testing.assert_allclose(total, [0.9, 1, 1, 1])
    fit = fit_track(mean, found, one, weight=total, num_steps=8)
    # Services scatter too: next to nothing is left on the second of the twins.
    services = 1e-9
    extra = float((effective_thickness(one) - one.thickness)[0])
    two = barrel([120.0, 120.0 + 1e-9, *radii[1:]], [0.02] * 5)
    thin = two.thickness.at[0].set(services - extra)
    two = dataclasses.replace(two, thickness=thin)
    both = jnp.concatenate([hits[2:3], other[None], hits[3:]])
    apart = fit_track(
        both,
        jnp.ones(5, bool),
        two,
        weight=jnp.array([0.3, 0.6, 1, 1, 1]),
        num_steps=8,
    )
    sigma = jnp.sqrt(jnp.diagonal(apart.covariance))
    np.testing.assert_array_less(
        jnp.abs(fit.parameters - apart.parameters) / sigma, 1e-3
    )
    np.testing.assert_allclose(
        jnp.diagonal(fit.covariance), jnp.diagonal(apart.covariance), rtol=1e-3
    )
    assert fit.ndf == pytest.approx(2 * 3.9 - 5)
    # Next to no weight is no division by zero, nor is its derivative, in float32 too.
    small = jnp.full((4, 2), 1e-25, jnp.float32)
    light = jax.tree.map(lambda x: x.astype(jnp.float32), (doubled, one))
    slope = jax.grad(lambda w: jnp.sum(combine_hits(light[0], w, mask, light[1])[0]))
    assert jnp.all(jnp.isfinite(slope(small)))
    # Azimuths on either side of pi are neighbours.
    near_pi = jnp.array([[[np.pi - 1e-3, 0.0], [-np.pi + 1e-3, 2.0]]] * 6)
    mean, _, _ = combine_hits(
        near_pi, jnp.ones((6, 2)) / 2, jnp.ones((6, 2), bool), _BARREL
    )
    np.testing.assert_allclose(jnp.abs(mean[:, 0]), np.pi, rtol=1e-12)
    np.testing.assert_allclose(mean[:, 1], 1.0)


def test_gradient_of_a_weighted_fit_to_its_weights():
    position, _ = _pions(jax.random.key(9), 1, 2.0, 3.0)
    hits, mask = position[0].at[3, 0].add(1e-3), jnp.ones(_LAYERS, bool)
    weight = jnp.linspace(0.3, 1.0, _LAYERS)

    @jax.jit
    def end(weight):
        fit = fit_track(hits, mask, _BARREL, weight=weight, num_steps=8)
        scale = jnp.asarray([0.02, 0.1, 1e-3, 1e-3, 5e-3])
        variance = jnp.log(jnp.diagonal(fit.covariance))
        return jnp.concatenate([fit.parameters / scale, variance, fit.chi2[None]])

    exact = jax.jacfwd(end)(weight)
    step = 1e-3 * jnp.eye(_LAYERS)
    columns = [
        (
            8 * (end(weight + s) - end(weight - s))
            - end(weight + 2 * s)
            + end(weight - 2 * s)
        )
        / 12e-3
        for s in step
    ]
    size = jnp.max(jnp.abs(exact), axis=1, keepdims=True)
    np.testing.assert_allclose(
        exact / size, jnp.stack(columns, axis=1) / size, atol=1e-6
    )
    # A hit that counts for nothing is one that is not there.
    nothing = weight.at[2].set(0.0)
    without = fit_track(
        hits.at[2].set(jnp.nan), mask.at[2].set(False), _BARREL, weight=weight
    )
    np.testing.assert_allclose(
        fit_track(hits, mask, _BARREL, weight=nothing).parameters,
        without.parameters,
        rtol=1e-9,
    )


def test_a_seed_of_ones_own_leads_to_the_same_track():
    position, _ = _pions(jax.random.key(10), 1, 2.0, 3.0)
    hits, mask = position[0], jnp.ones(_LAYERS, bool)
    first = fit_track(hits, mask, _BARREL, num_steps=8)
    seed = seed_track(hits, mask, _BARREL)
    again = fit_track(hits, mask, _BARREL, seed=seed, num_steps=8)
    np.testing.assert_allclose(first.parameters, again.parameters, rtol=1e-12)
    # From elsewhere: other errors, taken there, but hardly another track.
    sigma = jnp.sqrt(jnp.diagonal(first.covariance))
    other = fit_track(hits, mask, _BARREL, seed=seed + 5 * sigma, num_steps=8)
    assert jnp.all(jnp.abs(other.parameters - first.parameters) < 0.2 * sigma)
    assert not jnp.array_equal(other.parameters, first.parameters)


def test_a_prior_is_one_more_measurement():
    position, truth = _pions(jax.random.key(12), 1, 2.0, 3.0)
    hits, mask = position[0], jnp.ones(_LAYERS, bool)
    plain = fit_track(hits, mask, _BARREL, num_steps=8)
    # Two fits with errors of one seed, of which one knows the other: for a linear
    # problem the sum of the information is that of both.
    half = 0.5 * jnp.ones(_LAYERS)
    seed = seed_track(hits, mask, _BARREL)
    prior = TrackPrior(truth[0], 4 * plain.covariance)
    both = fit_track(hits, mask, _BARREL, seed=seed, prior=prior, num_steps=8)
    known = jnp.linalg.inv(prior.covariance)
    said = jnp.linalg.inv(plain.covariance)
    covariance = jnp.linalg.inv(known + said)
    mean = covariance @ (known @ truth[0] + said @ plain.parameters)
    sigma = jnp.sqrt(jnp.diagonal(covariance))
    # What is not linear is a thousandth of an error.
    np.testing.assert_array_less(jnp.abs(both.parameters - mean) / sigma, 2e-3)
    apart = jnp.abs(both.covariance - covariance) / sigma[:, None] / sigma[None, :]
    np.testing.assert_array_less(apart, 2e-3)
    assert both.ndf == 12
    # Where nobody knows anything, it is the plain fit; without hits, the prior.
    vague = TrackPrior(truth[0], 1e12 * plain.covariance)
    same = fit_track(hits, mask, _BARREL, seed=seed, prior=vague, num_steps=8)
    np.testing.assert_allclose(same.parameters, plain.parameters, rtol=1e-6)
    nothing = jnp.zeros(_LAYERS, bool)
    alone = fit_track(hits * jnp.nan, nothing, _BARREL, prior=prior)
    assert alone.found
    assert alone.converged
    np.testing.assert_allclose(alone.parameters, prior.parameters, rtol=1e-12)
    np.testing.assert_allclose(alone.covariance, prior.covariance, rtol=1e-9)
    # At its perigee a smoothed track with a prior is the same fit.
    smooth = smooth_track(
        hits, mask, _BARREL, weight=half, seed=seed, prior=prior, num_steps=8
    )
    fit = fit_track(
        hits, mask, _BARREL, weight=half, seed=seed, prior=prior, num_steps=8
    )
    np.testing.assert_allclose(smooth.fit.parameters, fit.parameters, rtol=1e-12)
    # Before the first layer nothing has deflected it.
    np.testing.assert_allclose(smooth.parameters[0], fit.parameters, rtol=1e-7)
    np.testing.assert_allclose(smooth.covariance[0], fit.covariance, rtol=1e-7)


def test_gradients_of_a_fit_with_a_prior():
    position, truth = _pions(jax.random.key(12), 1, 2.0, 3.0)
    hits, mask = position[0], jnp.ones(_LAYERS, bool).at[1:5].set(False)
    seed = seed_track(hits, jnp.ones(_LAYERS, bool), _BARREL)
    scale = jnp.array([0.05, 0.2, 1e-3, 1e-3, 5e-3])

    def end(moves, unrolled=False):
        shift, stretch, pixels = moves
        prior = TrackPrior(truth[0] + shift * scale, jnp.diag(scale**2) * stretch)
        moved = hits + pixels * jnp.array([[1e-4, 0.1]])
        adjoint = optx.RecursiveCheckpointAdjoint() if unrolled else None
        fit = fit_track(
            moved, mask, _BARREL, seed=seed, prior=prior, num_steps=10, adjoint=adjoint
        )
        variance = jnp.log(jnp.diagonal(fit.covariance))
        return jnp.concatenate([fit.parameters / scale, variance, fit.chi2[None]])

    zero = jnp.zeros(5), jnp.asarray(1.0), jnp.zeros((_LAYERS, 2))
    keys = jax.random.split(jax.random.key(0), 3)
    tangents = (
        jax.random.normal(keys[0], (5,)),
        jnp.asarray(0.7),
        jax.random.normal(keys[1], (_LAYERS, 2)),
    )

    @jax.jit
    def at(by):
        return end(jax.tree.map(lambda x, t: x + by * t, zero, tangents))

    exact = jax.jit(lambda: jax.jvp(end, (zero,), (tangents,))[1])()
    step = 1e-3
    up, down, up2, down2 = (at(k * step) for k in (1.0, -1.0, 2.0, -2.0))
    rough = (8 * (up - down) - (up2 - down2)) / (12 * step)
    size = jnp.max(jnp.abs(exact))
    np.testing.assert_allclose(exact, rough, atol=1e-7 * size, rtol=1e-6)
    unrolled = jax.jit(lambda: jax.jvp(lambda m: end(m, True), (zero,), (tangents,))[1])
    np.testing.assert_allclose(exact, unrolled(), atol=1e-8 * size, rtol=1e-8)


def test_a_fit_that_breaks_down_is_finite_and_says_so():
    # A seed on the far side of the field: no layer is reached.
    position, _ = _pions(jax.random.key(10), 1, 2.0, 3.0)
    hits, mask = position[0], jnp.ones(_LAYERS, bool)
    seed = jnp.array([1e5, 0.0, 1.0, 1.5, 0.3])

    def total(hits):
        fit = fit_track(hits, mask, _BARREL, seed=seed)
        return jnp.sum(fit.parameters) + jnp.sum(fit.covariance) + fit.chi2, fit

    (value, fit), gradient = jax.value_and_grad(total, has_aux=True)(hits)
    assert fit.found
    assert not fit.converged
    assert fit.status == TrackStatus.not_converged
    assert jnp.isfinite(value)
    assert jnp.all(jnp.isfinite(gradient))


def test_the_nearest_clusters_lie_in_the_road():
    _, truth = _pions(jax.random.key(11), 1, 2.0, 3.0)
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
