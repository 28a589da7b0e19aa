"""Fits with weights, seeds of one's own and priors."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
import pytest

from diffhep.geometry import build_barrel, default_barrel, effective_thickness
from diffhep.tracking import (
    TrackPrior,
    TrackStatus,
    combine_hits,
    fit_track,
    seed_track,
    smooth_track,
)


_BARREL = default_barrel()
_LAYERS = 6


def test_candidates_with_weights_are_layers_with_weights(pions):
    # Two candidates on the third layer, against two layers in one place.
    position, _ = pions(jax.random.key(6), 1, 2.0, 3.0)
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


def test_gradient_of_a_weighted_fit_to_its_weights(pions):
    position, _ = pions(jax.random.key(9), 1, 2.0, 3.0)
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


def test_a_seed_of_ones_own_leads_to_the_same_track(pions):
    position, _ = pions(jax.random.key(10), 1, 2.0, 3.0)
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


def test_a_prior_is_one_more_measurement(pions):
    position, truth = pions(jax.random.key(12), 1, 2.0, 3.0)
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


def test_gradients_of_a_fit_with_a_prior(pions):
    position, truth = pions(jax.random.key(12), 1, 2.0, 3.0)
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


def test_a_fit_that_breaks_down_is_finite_and_says_so(pions):
    # A seed on the far side of the field: no layer is reached.
    position, _ = pions(jax.random.key(10), 1, 2.0, 3.0)
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
