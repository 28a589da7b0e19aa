import jax.numpy as jnp
from jaxtyping import Array, Float


THINNEST = 1e-5
"""Least material to which the formula is applied, in radiation lengths: 1 micrometre of
silicon. Highland's formula turns negative below 4e-12 and its derivative diverges at
zero; it was fitted between 1e-3 and 1e2."""


def scattering_angle(
    thickness: Float[Array, "*shape"],
    momentum: Float[Array, ""],
    beta: Float[Array, ""],
) -> Float[Array, "*shape"]:
    r"""The width of the projected multiple-scattering angle.

    Highland's formula as in Lynch and Dahl, NIM B58 (1991) 6, and Review of Particle
    Physics: $\theta_0 = (13.6\,\mathrm{MeV}/\beta p)\sqrt{x}(1 + 0.038\ln(x/\beta^2))$
    for unit charge.

    Args:
        thickness: Material along the path, in radiation lengths. Below 1e-5 that value
            is used, and the derivative is zero.
        momentum: Momentum, in GeV.
        beta: Velocity, in units of c.

    Returns:
        The standard deviation of the angle in a plane, in rad.
    """
    material = jnp.maximum(thickness, THINNEST)
    logarithm = 1 + 0.038 * jnp.log(material / beta**2)
    return 13.6e-3 / (beta * momentum) * jnp.sqrt(material) * logarithm
