"""The Kalman filter and smoother against one dense least-squares problem.

The oracle has every kick as an unknown of its own: no filter, no information form.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
import pytest

from diffhep.geometry import default_barrel
from diffhep.numerics import wrap_angle
from diffhep.tracking import (
    fit_track,
    hit_covariance,
    predict,
    resolution,
    scattering_kicks,
    seed_track,
    smooth_track,
)


_BARREL = default_barrel()
_MASK = jnp.array([True, True, False, True, True, True])
_smooth = jax.jit(smooth_track, static_argnames="num_steps")


def _hits(key, momentum=1.0):
    """The hits of a track that scatters, and its parameters."""
    truth = jnp.array([0.3, -12.0, 0.7, 1.2, jnp.sin(1.2) / momentum])
    crossings = predict(truth, _BARREL)
    covariance = hit_covariance(truth, crossings, jnp.ones(6, bool), _BARREL)
    noise = jnp.linalg.cholesky(covariance) @ jax.random.normal(key, (12,))
    return truth, crossings.position + jnp.reshape(noise, (2, 6)).T


def _dense(position, mask, parameters):
    """Least squares for the track and all kicks: unknowns, covariance, rows."""
    seed = seed_track(position, mask, _BARREL)
    there = predict(seed, _BARREL)
    kicks = np.asarray(scattering_kicks(seed, there, _BARREL))
    crossings = predict(parameters, _BARREL)
    jacobian = np.asarray(crossings.jacobian)
    residual = position - crossings.position
    residual = residual.at[:, 0].set(wrap_angle(residual[:, 0]))
    width = np.asarray(resolution(there, _BARREL))
    layers = kicks.shape[0]
    arrivals = np.zeros((layers, 5, 5 + 2 * layers))
    for layer in range(layers):
        arrivals[layer, :, :5] = np.eye(5)
        for before in range(layer):
            arrivals[layer, :, 5 + 2 * before : 7 + 2 * before] = kicks[before]
    rows, values = [], []
    for layer in np.flatnonzero(mask):
        for k in range(2):
            rows.append(jacobian[layer, k] @ arrivals[layer] / width[layer, k])
            values.append(residual[layer, k] / width[layer, k])
    for kick in range(2 * layers):
        rows.append(np.eye(5 + 2 * layers)[5 + kick])
        values.append(0.0)
    rows, values = np.array(rows), np.array(values)
    # Parameters in mm and in 1/GeV: scaled columns.
    scale = np.linalg.norm(rows, axis=0)
    covariance = np.linalg.inv((rows / scale).T @ (rows / scale))
    covariance = covariance / scale[:, None] / scale[None, :]
    unknowns = covariance @ rows.T @ values
    chi2 = np.sum((values - rows @ unknowns) ** 2)
    return unknowns, covariance, arrivals, chi2, jacobian, np.asarray(residual), width


@pytest.mark.parametrize("momentum", [0.5, 1.0, 20.0])
def test_smoothed_states_are_those_of_the_dense_problem(momentum):
    _, position = _hits(jax.random.key(1), momentum)
    track = _smooth(position, _MASK, _BARREL, num_steps=8)
    assert track.fit.converged
    base = np.asarray(track.fit.parameters)
    unknowns, covariance, arrivals, chi2, jacobian, residual, width = _dense(
        position, _MASK, track.fit.parameters
    )
    # At the perigee: nothing left to correct, to 1e-6 standard deviations.
    sigma = np.sqrt(np.diagonal(covariance)[:5])
    assert np.max(np.abs(unknowns[:5]) / sigma) < 1e-6
    assert track.fit.chi2 == pytest.approx(chi2, rel=1e-8)
    for layer in range(6):
        expected = base + arrivals[layer] @ unknowns
        spread = arrivals[layer] @ covariance @ arrivals[layer].T
        sigma = np.sqrt(np.diagonal(spread))
        assert np.max(np.abs(track.parameters[layer] - expected) / sigma) < 1e-6
        scale = sigma[:, None] * sigma[None, :]
        np.testing.assert_allclose(
            track.covariance[layer] / scale, spread / scale, atol=1e-7
        )
        rows = jacobian[layer] @ arrivals[layer]
        if not _MASK[layer]:
            assert jnp.all(track.residual[layer] == 0)
            assert track.chi2[layer] == 0
            continue
        left = residual[layer] - rows @ unknowns
        np.testing.assert_allclose(
            track.residual[layer] / width[layer], left / width[layer], atol=1e-7
        )
        expected = np.diag(width[layer] ** 2) - rows @ covariance @ rows.T
        np.testing.assert_allclose(
            track.residual_covariance[layer] / np.outer(width[layer], width[layer]),
            expected / np.outer(width[layer], width[layer]),
            atol=1e-7,
        )


def test_chi_squared_of_a_hit_is_what_its_removal_saves():
    # The fit without a hit, about the same seed: the difference is of second order.
    _, position = _hits(jax.random.key(2), 5.0)
    full = jnp.ones(6, bool)
    track = _smooth(position, full, _BARREL, num_steps=3)
    for layer in range(6):
        without = fit_track(position, full.at[layer].set(False), _BARREL)
        saved = track.fit.chi2 - without.chi2
        assert track.chi2[layer] == pytest.approx(float(saved), rel=2e-2, abs=2e-3)


def test_three_hits_test_nothing():
    _, position = _hits(jax.random.key(3))
    mask = jnp.array([True, False, True, False, True, False])
    track = _smooth(position, mask, _BARREL, num_steps=3)
    assert track.fit.found
    assert all(jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(track))
    assert jnp.all(jnp.isfinite(track.pull))


def test_pulls_of_the_hits():
    keys = jax.random.split(jax.random.key(4), 4000)
    position = jax.jit(jax.vmap(lambda key: _hits(key, 2.0)[1]))(keys)
    tracks = jax.jit(jax.vmap(lambda p: smooth_track(p, _MASK, _BARREL)))(position)
    pulls = np.asarray(tracks.pull)[:, np.asarray(_MASK)]
    error = 1 / np.sqrt(len(keys))
    assert np.all(np.abs(np.mean(pulls, axis=0)) < 4 * error)
    assert np.all(np.abs(np.std(pulls, axis=0) - 1) < 4 * error / np.sqrt(2))
    chi2 = np.asarray(tracks.chi2)[:, np.asarray(_MASK)]
    assert np.all(np.abs(np.mean(chi2, axis=0) - 2) < 4 * 2 * error)


def _summary(position, barrel, adjoint=None):
    track = smooth_track(position, _MASK, barrel, num_steps=8, adjoint=adjoint)
    scale = jnp.array([1.0, 0.1, 100.0, 100.0, 100.0])
    spread = jnp.log(jnp.diagonal(track.covariance, axis1=1, axis2=2))
    return (
        jnp.sum(jnp.sin(track.parameters * scale[None, :]))
        + jnp.sum(spread)
        + jnp.sum(track.chi2)
        + jnp.sum(track.pull)
    )


_slopes = jax.jit(jax.grad(_summary, argnums=(0, 1)), static_argnames="adjoint")


def test_gradients_of_states_and_covariances():
    _, position = _hits(jax.random.key(5), 2.0)
    implicit = _slopes(position, _BARREL)
    unrolled = _slopes(position, _BARREL, adjoint=optx.RecursiveCheckpointAdjoint())
    evaluate = jax.jit(_summary)
    for found, other in zip(
        jax.tree.leaves(implicit), jax.tree.leaves(unrolled), strict=True
    ):
        scale = float(jnp.max(jnp.abs(other)))
        np.testing.assert_allclose(found, other, rtol=1e-8, atol=1e-8 * scale)
    values, structure = jax.tree.flatten((position, _BARREL))
    for place, slope in enumerate(jax.tree.leaves(implicit)):
        value = values[place]
        size = jnp.array([[1e-6, 1e-4]]) if place == 0 else 3e-6 * value
        step = size * jax.random.normal(jax.random.key(place), value.shape)
        ends = []
        for sign in (1, -1):
            moved = [*values]
            moved[place] = value + sign * step
            ends.append(evaluate(*jax.tree.unflatten(structure, moved)))
        exact = float(jnp.sum(slope * step))
        # The sum is some hundreds: 3e-9 is what rounding leaves of its digits.
        assert exact == pytest.approx(float(ends[0] - ends[1]) / 2, rel=1e-5, abs=3e-9)
