"""Resolutions of layouts, and layouts that are best: Gluckstern's formulas.

R. L. Gluckstern, NIM 24 (1963) 381.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from diffhep.geometry import Barrel, default_barrel
from diffhep.helix import KAPPA, to_cylinder
from diffhep.tracking import expected_covariance, fit_track


INNER, OUTER, FIELD, PITCH = 30.0, 1030.0, 2.0, 0.1
# So straight that nothing scatters, and that the sagitta is nothing to the radius.
STRAIGHT = 1e-5


def _barrel(radii, thickness=0.01):
    one = jnp.ones_like(radii)
    return Barrel(
        radii=radii,
        pitch_azimuth=PITCH * one,
        pitch_z=one,
        thickness=thickness * one,
        efficiency=0.97 * one,
        field=jnp.asarray(FIELD),
    )


def _error(radii, charge_over_momentum=STRAIGHT):
    """Standard deviation of q/p, in 1/GeV, at right angles to the beam."""
    parameters = jnp.asarray([0.0, 0.0, 0.3, jnp.pi / 2, charge_over_momentum])
    mask = jnp.ones(radii.shape, bool)
    return jnp.sqrt(expected_covariance(parameters, mask, _barrel(radii))[4, 4])


def _gluckstern(layout):
    """The formula, in 1/GeV, with the factor of a layout."""
    return PITCH / np.sqrt(12) / (KAPPA * FIELD * (OUTER - INNER) ** 2) * layout


@pytest.mark.parametrize("number", range(4, 21))
def test_equidistant_layers_have_the_error_of_the_formula(number):
    n = number
    layout = np.sqrt(720 * (n - 1) ** 3 / ((n - 2) * n * (n + 1) * (n + 2)))
    error = jax.jit(_error)(jnp.linspace(INNER, OUTER, n))
    np.testing.assert_allclose(error, _gluckstern(layout), rtol=1e-3)


def test_the_fit_has_the_expected_covariance():
    barrel = default_barrel()
    parameters = jnp.asarray([0.3, 20.0, 0.4, 1.1, -0.3])
    mask = jnp.asarray([True, True, False, True, True, True])
    crossing = jax.vmap(to_cylinder, in_axes=(None, 0, None))(
        parameters, barrel.radii, barrel.field
    )
    position = jnp.stack([crossing.azimuth, crossing.z], axis=1)
    fit = fit_track(position, mask, barrel)
    expected = expected_covariance(parameters, mask, barrel)
    scale = jnp.sqrt(jnp.diagonal(expected))
    scale = scale[:, None] * scale[None, :]
    np.testing.assert_allclose(fit.covariance / scale, expected / scale, atol=1e-9)


_STEPS = 600


def _place(angle):
    # Between the bounds, which are reached and left with no slope.
    return INNER + (OUTER - INNER) * (1 + jnp.sin(angle)) / 2


@functools.partial(jax.jit, static_argnums=1)
def _descend(key, number, charge_over_momentum):
    """Gradient descent on the radii from a random start: radii, and error of q/p.

    With noise on the radii that fades: whole layers have to move from one place to
    another, and without noise each start ends in the nearest of many minima.
    """

    def objective(angle):
        return jnp.log(_error(_place(angle), charge_over_momentum))

    optimiser = optax.adam(optax.cosine_decay_schedule(0.05, _STEPS))

    def step(carry, number):
        angle, state, key = carry
        key, now = jax.random.split(key)
        width = jnp.maximum(0.0, 1 - number / (0.6 * _STEPS))
        noise = width * jax.random.normal(now, angle.shape)
        slope = jax.grad(objective)(angle + noise)
        move, state = optimiser.update(slope, state)
        return (angle + move, state, key), None

    angle = jax.random.uniform(key, (number,), minval=-1.4, maxval=1.4)
    numbers = jnp.arange(_STEPS).astype(angle.dtype)
    (angle, _, _), _ = jax.lax.scan(step, (angle, optimiser.init(angle), key), numbers)
    radii = jnp.sort(_place(angle))
    return radii, _error(radii, charge_over_momentum)


def _from_random_starts(number, starts, charge_over_momentum):
    keys = jax.random.split(jax.random.key(0), starts)
    descend = jax.vmap(lambda key: _descend(key, number, charge_over_momentum))
    # Optax raises a number to the power of its step count.
    with jax.numpy_dtype_promotion("standard"):
        return descend(keys)


@pytest.mark.parametrize(("number", "gain"), [(12, 1.434), (16, 1.489)])
def test_descent_finds_the_best_layout(number, gain):
    radii, errors = _from_random_starts(number, 12, jnp.asarray(STRAIGHT))
    gains = _error(jnp.linspace(INNER, OUTER, number)) / errors
    np.testing.assert_allclose(jnp.max(gains), gain, rtol=1e-3)
    # A quarter at each end and half in the middle.
    quarter = number // 4
    middle = (INNER + OUTER) / 2
    places = [INNER] * quarter + [middle] * 2 * quarter + [OUTER] * quarter
    np.testing.assert_allclose(radii[jnp.argmax(gains)], places, atol=5.0)
    # No stroke of luck: a good part of the starts gets there.
    assert jnp.sum(gains > gain * 0.999) >= 4


def test_descent_with_scattering_is_as_good_as_brute_force():
    # Five layers of one per cent of a radiation length, and 2 GeV.
    charge_over_momentum = jnp.asarray(0.5)
    _, errors = _from_random_starts(5, 12, charge_over_momentum)
    grid = np.linspace(INNER, OUTER, 21)
    layouts = jnp.asarray(list(itertools.combinations_with_replacement(grid, 5)))
    error = functools.partial(_error, charge_over_momentum=charge_over_momentum)
    best = jnp.min(jax.jit(lambda r: jax.lax.map(error, r, batch_size=2048))(layouts))
    assert jnp.min(errors) < 1.005 * best
    # And the layout matters.
    assert error(jnp.linspace(INNER, OUTER, 5)) > 1.02 * best
