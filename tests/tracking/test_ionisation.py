"""Energy loss: the formula against published values, and the fit that knows of it."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffhep.detector import simulate_hits
from diffhep.geometry import default_barrel, default_tracker
from diffhep.helix import (
    MUON_MASS,
    PION_MASS,
    Ionisation,
    lose_energy,
    perigee_from_momentum,
)
from diffhep.numerics import wrap_angle
from diffhep.tracking import fit_track, smooth_track


_SILICON = Ionisation()


def test_muons_in_silicon():
    # 1.664 MeV cm^2/g at the minimum, at 0.3635 GeV: Groom, Mokhov and Striganov, At.
    # Data Nucl. Data Tables 78 (2001) 183, table of silicon.
    thickness = jnp.asarray(1 / _SILICON.radiation_length)
    momenta = jnp.linspace(0.2, 0.6, 4001)
    losses = jax.vmap(lambda p: _SILICON.mean(thickness, p, MUON_MASS))(momenta)
    assert jnp.min(losses) == pytest.approx(1.664e-3, rel=1e-3)
    assert momenta[jnp.argmin(losses)] == pytest.approx(0.3635, rel=5e-3)


def test_width_of_the_loss():
    # Landau's parameter of 300 micrometres: 0.5 * 0.307075 * 0.49848 * 0.0699 g/cm^2.
    thickness = jnp.asarray(0.0699 / _SILICON.radiation_length)
    width = _SILICON.width(thickness, jnp.asarray(100.0), MUON_MASS)
    assert width == pytest.approx(4 * 0.42466 * 5.350e-6, rel=1e-3)


def test_lost_energy_is_lost():
    charge = jnp.array([0.5, -2.0, 1e-3])
    loss = jnp.array([0.01, 0.02, 5.0])
    after = lose_energy(charge, loss, PION_MASS)
    energy = lambda q: jnp.sqrt(1 / q**2 + PION_MASS**2)  # noqa: E731
    np.testing.assert_allclose(energy(charge) - energy(after), loss, rtol=1e-9)
    assert jnp.all(jnp.sign(after) == jnp.sign(charge))
    # Nobody loses all.
    slow = lose_energy(jnp.asarray(10.0), jnp.asarray(1.0), PION_MASS)
    assert slow == pytest.approx(100.0, rel=1e-12)


@functools.partial(jax.jit, static_argnames="number")
def _pulls(key, number, tracker):
    """Pulls of soft tracks that lose energy: fits that know of it, and that do not."""
    keys = jax.random.split(key, 5)
    transverse = jax.random.uniform(keys[0], (number,), minval=0.5, maxval=1.0)
    eta = jax.random.uniform(keys[1], (number,), minval=-2.0, maxval=2.0)
    phi = jax.random.uniform(keys[2], (number,), minval=-3.1, maxval=3.1)
    momentum = jnp.stack(
        [
            transverse * jnp.cos(phi),
            transverse * jnp.sin(phi),
            transverse * jnp.sinh(eta),
        ],
        axis=1,
    )
    energy = jnp.sqrt(jnp.sum(momentum**2, axis=1) + PION_MASS**2)
    noise = jax.random.normal(keys[3], (number, tracker.pitch.shape[0], 5))
    charge = jnp.where(jnp.arange(number) % 2 == 0, 1.0, -1.0)
    vertex = (
        jnp.zeros((number, 3)).at[:, 2].set(30 * jax.random.normal(keys[4], (number,)))
    )
    simulate = functools.partial(simulate_hits, ionisation=_SILICON)
    hits = jax.vmap(simulate, in_axes=(0, 0, 0, None, 0))(
        vertex,
        jnp.concatenate([momentum, energy[:, None]], axis=1),
        charge,
        tracker,
        noise,
    )
    mask = hits.reached & (hits.logit > 0)
    truth = jax.vmap(perigee_from_momentum, in_axes=(0, 0, 0, None))(
        vertex, momentum, charge, tracker.field
    )

    def pulls(ionisation):
        fit = functools.partial(fit_track, ionisation=ionisation)
        fits = jax.vmap(fit, in_axes=(0, 0, None))(hits.position, mask, tracker)
        residual = fits.parameters - truth
        residual = residual.at[:, 2].set(wrap_angle(residual[:, 2]))
        # The sign of the bias in q/p and phi follows the charge.
        residual = residual * charge[:, None]
        width = jnp.sqrt(jnp.diagonal(fits.covariance, axis1=1, axis2=2))
        return residual / width, fits.found & fits.converged

    return pulls(_SILICON), pulls(None)


def test_the_fit_corrects_for_the_loss():
    number = 8000
    (pulls, good), (ignorant, also) = _pulls(
        jax.random.key(11), number, default_tracker()
    )
    pulls, ignorant = np.asarray(pulls)[good], np.asarray(ignorant)[also]
    error = 1 / np.sqrt(len(pulls))
    # Without the correction q/p is too large by many standard errors.
    assert np.mean(ignorant[:, 4]) > 20 / np.sqrt(len(ignorant))
    assert np.all(np.abs(np.mean(pulls, axis=0)) < 4 * error)
    assert np.all(np.abs(np.std(pulls, axis=0) - 1) < 4 * error / np.sqrt(2))


def test_smoothed_momenta_fall_from_layer_to_layer():
    barrel = default_barrel()
    momentum = jnp.array([0.6, 0.2, 0.3])
    energy = jnp.sqrt(jnp.sum(momentum**2) + PION_MASS**2)
    hits = simulate_hits(
        jnp.zeros(3),
        jnp.append(momentum, energy),
        jnp.asarray(1.0),
        barrel,
        jnp.zeros((6, 5)),
        ionisation=_SILICON,
    )
    track = smooth_track(hits.position, hits.reached, barrel, ionisation=_SILICON)
    assert jnp.all(jnp.diff(track.parameters[:, 4]) > 0)
    truth = perigee_from_momentum(
        jnp.zeros(3), momentum, jnp.asarray(1.0), barrel.field
    )
    width = jnp.sqrt(jnp.diagonal(track.fit.covariance))
    # Hits without noise: what is left is the second order of the losses.
    assert jnp.max(jnp.abs(track.fit.parameters - truth) / width) < 0.02


def test_gradient_with_energy_loss():
    barrel = default_barrel()
    noise = jax.random.normal(jax.random.key(1), (6, 5))
    momentum = jnp.array([0.6, 0.2, 0.3])
    energy = jnp.sqrt(jnp.sum(momentum**2) + PION_MASS**2)

    @jax.jit
    def summary(thickness):
        design = dataclasses.replace(barrel, thickness=thickness)
        hits = simulate_hits(
            jnp.zeros(3),
            jnp.append(momentum, energy),
            jnp.asarray(1.0),
            design,
            noise,
            ionisation=_SILICON,
        )
        track = smooth_track(
            hits.position, hits.reached, design, ionisation=_SILICON, num_steps=6
        )
        spread = jnp.log(jnp.diagonal(track.covariance, axis1=1, axis2=2))
        return jnp.sum(spread) + 100 * jnp.sum(track.parameters[:, 4])

    step = 1e-6 * jnp.ones(6)
    exact = jnp.sum(jax.jit(jax.grad(summary))(barrel.thickness) * step)
    ends = [summary(barrel.thickness + sign * step) for sign in (1, -1)]
    assert exact == pytest.approx(float(ends[0] - ends[1]) / 2, rel=1e-5)


def test_noise_must_be_enough():
    with pytest.raises(ValueError, match="5 are needed with energy loss"):
        simulate_hits(
            jnp.zeros(3),
            jnp.array([1.0, 0.0, 0.0, 1.1]),
            jnp.asarray(1.0),
            default_barrel(),
            jnp.zeros((6, 4)),
            ionisation=_SILICON,
        )
