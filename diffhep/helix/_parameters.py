"""Functions of (d0 [mm], z0 [mm], phi [rad], theta [rad], q/p [1/GeV])."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from ._constants import KAPPA


def curvature(
    parameters: Float[Array, " 5"], field: Float[Array, ""]
) -> Float[Array, ""]:
    r"""The signed transverse curvature $\omega$, with $d\phi/ds = -\omega$.

    Args:
        parameters: Track parameters.
        field: Magnetic field along z, in T.

    Returns:
        The curvature, in 1/mm; positive for a positive charge in a positive field.
    """
    return KAPPA * parameters[4] * field / jnp.sin(parameters[3])


def momentum(parameters: Float[Array, " 5"]) -> Float[Array, " 3"]:
    """The momentum at the perigee of a track of unit charge.

    Args:
        parameters: Track parameters; q/p must not be zero.

    Returns:
        The momentum (px, py, pz), in GeV.
    """
    phi, theta, charge_over_momentum = parameters[2], parameters[3], parameters[4]
    transverse = jnp.sin(theta)
    direction = jnp.stack(
        [transverse * jnp.cos(phi), transverse * jnp.sin(phi), jnp.cos(theta)]
    )
    return direction / jnp.abs(charge_over_momentum)
