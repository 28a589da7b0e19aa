"""Simulation and fit in a barrel between two endcaps."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffhep.detector import simulate_hits
from diffhep.geometry import SERVICES_PER_DENSITY, default_tracker
from diffhep.helix import perigee_from_momentum
from diffhep.numerics import wrap_angle
from diffhep.tracking import fit_track, smooth_track


_TRACKER = default_tracker()


def _pions(key, number, low, high):
    keys = jax.random.split(key, 4)
    logarithm = jax.random.uniform(
        keys[0], (number,), minval=np.log(low), maxval=np.log(high)
    )
    transverse = jnp.exp(logarithm)
    eta = jax.random.uniform(keys[1], (number,), minval=-2.6, maxval=2.6)
    phi = jax.random.uniform(keys[2], (number,), minval=-np.pi, maxval=np.pi)
    momentum = jnp.stack(
        [
            transverse * jnp.cos(phi),
            transverse * jnp.sin(phi),
            transverse * jnp.sinh(eta),
        ],
        axis=1,
    )
    energy = jnp.sqrt(jnp.sum(momentum**2, axis=1) + 0.13957039**2)
    spread = jnp.array([[0.02, 0.02, 40.0]])
    vertex = spread * jax.random.normal(keys[3], (number, 3))
    charge = jnp.where(jnp.arange(number) % 2 == 0, 1.0, -1.0)
    return vertex, jnp.concatenate([momentum, energy[:, None]], axis=1), charge


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def _events(key, number, low, high, tracker):
    # Found hits, true parameters and fits.
    keys = jax.random.split(key, 3)
    vertex, momentum, charge = _pions(keys[0], number, low, high)
    noise = jax.random.normal(keys[1], (number, tracker.pitch.shape[0], 4))
    hits = jax.vmap(simulate_hits, in_axes=(0, 0, 0, None, 0))(
        vertex, momentum, charge, tracker, noise
    )
    draw = jax.random.uniform(keys[2], hits.logit.shape)
    found = hits.reached & (draw < jax.nn.sigmoid(hits.logit))
    truth = jax.vmap(perigee_from_momentum, in_axes=(0, 0, 0, None))(
        vertex, momentum[:, :3], charge, tracker.field
    )
    fits = jax.vmap(fit_track, in_axes=(0, 0, None))(hits.position, found, tracker)
    return hits, found, truth, fits


def _without_material():
    # Services are material too: what is left is 1e-5 radiation lengths.
    def thin(part):
        pixel = part.pitch_azimuth * (
            part.pitch_z if hasattr(part, "pitch_z") else part.pitch_radius
        )
        return dataclasses.replace(part, thickness=-SERVICES_PER_DENSITY / pixel)

    return dataclasses.replace(
        _TRACKER, barrel=thin(_TRACKER.barrel), endcap=thin(_TRACKER.endcap)
    )


@pytest.mark.parametrize("tracker", [_TRACKER, _without_material()])
def test_pulls_and_chi_squared(tracker):
    number = 20_000
    _, found, truth, fits = _events(jax.random.key(7), number, 0.5, 100.0, tracker)
    assert jnp.mean(jnp.sum(found, axis=1)) > 6
    np.testing.assert_array_equal(fits.found, jnp.sum(found, axis=1) >= 3)
    good = np.asarray(fits.found & fits.converged)
    # A few soft forward tracks need more steps.
    assert np.sum(good) > 0.9995 * np.sum(np.asarray(fits.found))
    residual = fits.parameters - truth
    residual = residual.at[:, 2].set(wrap_angle(residual[:, 2]))
    width = jnp.sqrt(jnp.diagonal(fits.covariance, axis1=1, axis2=2))
    pulls, total = np.asarray(residual / width)[good], np.sum(good)
    assert np.all(np.abs(np.mean(pulls, axis=0)) * np.sqrt(total) < 3)
    assert np.all(np.abs(np.std(pulls, axis=0) - 1) * np.sqrt(2 * total) < 3)
    chi2, ndf = np.asarray(fits.chi2)[good], np.asarray(fits.ndf)[good]
    assert abs(np.mean(chi2 - ndf)) < 3 * np.sqrt(np.sum(2 * ndf)) / total


@pytest.mark.parametrize(
    ("low", "high", "most"), [(0.5, 1.0, 1e-4), (1.0, 100.0, 1e-7)]
)
def test_the_default_steps_reach_the_minimum(low, high, most):
    events = _events(jax.random.key(8), 20_000, low, high, _TRACKER)
    hits, found, _, fits = events
    far = jax.jit(jax.vmap(functools.partial(fit_track, num_steps=12), (0, 0, None)))
    far = far(hits.position, found, _TRACKER)
    width = jnp.sqrt(jnp.diagonal(far.covariance, axis1=1, axis2=2))
    left = fits.parameters - far.parameters
    left = jnp.abs(left.at[:, 2].set(wrap_angle(left[:, 2])) / width)
    left = np.max(np.asarray(left)[np.asarray(fits.found)], axis=1)
    assert np.max(left) < most
    assert np.quantile(left, 0.999) < 1e-6


def _one(transverse, eta):
    momentum = np.array([transverse, 0.3, transverse * np.sinh(eta)])
    energy = np.sqrt(np.sum(momentum**2) + 0.0195)
    noise = jax.random.normal(jax.random.key(3), (_TRACKER.pitch.shape[0], 4))
    return jnp.array([0.1, 0.2, 5.0]), jnp.asarray([*momentum, energy]), noise


@pytest.mark.parametrize(("eta", "discs"), [(1.3, True), (2.1, True), (0.3, False)])
def test_gradient_through_simulation_and_fit(eta, discs):
    position, momentum, noise = _one(3.0, eta)
    charge = jnp.asarray(1.0)
    start = simulate_hits(position, momentum, charge, _TRACKER, noise)
    # Hits well inside of their layers.
    mask = start.reached & (start.logit > 1.0)
    assert bool(jnp.any(mask[6:])) == discs

    @jax.jit
    def summary(tracker):
        hits = simulate_hits(position, momentum, charge, tracker, noise)
        fit = smooth_track(hits.position, mask, tracker, num_steps=6)
        scale = jnp.array([1.0, 0.1, 100.0, 100.0, 100.0])
        spread = jnp.log(jnp.diagonal(fit.fit.covariance))
        return jnp.sum(jnp.sin(fit.fit.parameters * scale)) + jnp.sum(spread)

    slopes = jax.jit(jax.grad(summary))(_TRACKER)
    values, structure = jax.tree.flatten(_TRACKER)
    checked = 0
    for place, slope in enumerate(jax.tree.leaves(slopes)):
        step = 1e-6 * values[place]
        step = step * jax.random.normal(jax.random.key(place), step.shape)
        ends = []
        for sign in (1, -1):
            moved = [*values]
            moved[place] = values[place] + sign * step
            ends.append(summary(jax.tree.unflatten(structure, moved)))
        exact, numeric = float(jnp.sum(slope * step)), float(ends[0] - ends[1]) / 2
        assert exact == pytest.approx(numeric, rel=1e-5, abs=1e-10)
        checked += exact != 0
    # Radii, pitches, thickness, field; and those of the discs but their efficiency.
    assert checked >= (9 if discs else 5)


def test_order_of_the_layers_does_not_matter_for_states():
    # A forward track crosses discs between barrel layers: states in layer order.
    position, momentum, noise = _one(3.0, 1.3)
    hits = simulate_hits(position, momentum, jnp.asarray(1.0), _TRACKER, noise)
    mask = hits.reached & (hits.logit > 1.0)
    track = jax.jit(smooth_track)(hits.position, mask, _TRACKER)
    assert jnp.all(jnp.abs(track.pull) < 5)
    np.testing.assert_array_equal(track.residual[:, 0] != 0, mask)
    # What is not reached is found nowhere.
    assert not jnp.any(hits.logit[~hits.reached] > -jnp.inf)
