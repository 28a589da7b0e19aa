"""Resolutions of layouts, and layouts that are best: Gluckstern's formulas.

R. L. Gluckstern, NIM 24 (1963) 381.
"""

import jax
import jax.numpy as jnp
import numpy as np
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


def _gluckstern(number, layout):
    """The formula for a number of hits, with the factor of its layout."""
    return PITCH / np.sqrt(12) / (KAPPA * FIELD * (OUTER - INNER) ** 2) * layout


@pytest.mark.parametrize("number", range(4, 21))
def test_equidistant_layers_have_the_error_of_the_formula(number):
    n = number
    layout = np.sqrt(720 * (n - 1) ** 3 / ((n - 2) * n * (n + 1) * (n + 2)))
    error = jax.jit(_error)(jnp.linspace(INNER, OUTER, n))
    np.testing.assert_allclose(error, _gluckstern(n, layout), rtol=1e-3)


def test_the_fit_has_the_expected_covariance():
    barrel = default_barrel()
    parameters = jnp.asarray([0.3, 20.0, 0.4, 1.1, -0.3])
    mask = jnp.asarray([True, True, False, True, True, True])
    crossing = jax.vmap(to_cylinder, in_axes=(None, 0, None))(
        parameters, barrel.radii, barrel.field
    )
    fit = fit_track(crossing.azimuth, crossing.z, mask, barrel)
    expected = expected_covariance(parameters, mask, barrel)
    scale = jnp.sqrt(jnp.diagonal(expected))
    scale = scale[:, None] * scale[None, :]
    np.testing.assert_allclose(fit.covariance / scale, expected / scale, atol=1e-9)
