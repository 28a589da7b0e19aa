import jax.numpy as jnp
from jaxtyping import Array, Float

from ..numerics import sinc
from ._parameters import curvature, momentum


def position_at(
    parameters: Float[Array, " 5"], arc: Float[Array, ""], field: Float[Array, ""]
) -> Float[Array, " 3"]:
    r"""The position after a transverse arc length $s$ from the perigee.

    The chord has length $s\,\mathrm{sinc}(\omega s/2)$ and points along
    $\phi - \omega s/2$, which stays regular as $\omega \to 0$.

    Args:
        parameters: Track parameters.
        arc: Transverse arc length, in mm; negative is backwards.
        field: Magnetic field along z, in T.

    Returns:
        The position (x, y, z), in mm.
    """
    d0, z0, phi, theta = parameters[0], parameters[1], parameters[2], parameters[3]
    half_turn = curvature(parameters, field) * arc / 2
    chord = arc * sinc(half_turn)
    return jnp.stack(
        [
            chord * jnp.cos(phi - half_turn) - d0 * jnp.sin(phi),
            chord * jnp.sin(phi - half_turn) + d0 * jnp.cos(phi),
            z0 + arc * jnp.cos(theta) / jnp.sin(theta),
        ]
    )


def momentum_at(
    parameters: Float[Array, " 5"], arc: Float[Array, ""], field: Float[Array, ""]
) -> Float[Array, " 3"]:
    """The momentum after a transverse arc length from the perigee.

    Args:
        parameters: Track parameters.
        arc: Transverse arc length, in mm.
        field: Magnetic field along z, in T.

    Returns:
        The momentum (px, py, pz) of a track of unit charge, in GeV.
    """
    turned = parameters[2] - curvature(parameters, field) * arc
    direction = jnp.stack(
        [parameters[0], parameters[1], turned, parameters[3], parameters[4]]
    )
    return momentum(direction)
