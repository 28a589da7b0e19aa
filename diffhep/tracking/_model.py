"""What a helix predicts for the hits of a barrel, and how that depends on it."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..helix import KAPPA, transverse_crossing, within_reach


class Prediction(eqx.Module):
    """Where a track crosses the layers, with the derivatives."""

    azimuth: Float[Array, " layers"]
    """Azimuth, in rad."""
    z: Float[Array, " layers"]
    """Longitudinal position, in mm."""
    arc: Float[Array, " layers"]
    """Transverse arc length from the perigee, in mm."""
    jacobian: Float[Array, "hits 5"]
    """Derivative of azimuths, then z, to the track parameters."""


def predict(
    parameters: Float[Array, " 5"],
    radii: Float[Array, " layers"],
    field: Float[Array, ""],
) -> Prediction:
    """The hits of a track.

    Args:
        parameters: Track parameters.
        radii: Radii of the layers, in mm.
        field: Magnetic field along z, in T.

    Returns:
        The crossings. Where a layer is out of reach those of a straight track through
        the axis stand, and their derivatives.
    """
    d0, z0, phi, theta = parameters[0], parameters[1], parameters[2], parameters[3]
    sine = jnp.sin(theta)
    cotangent = jnp.cos(theta) / sine
    # Curvature per q/p.
    bend = KAPPA * field / sine
    omega = bend * parameters[4]
    d0 = jnp.broadcast_to(d0, radii.shape)
    omegas = jnp.broadcast_to(omega, radii.shape)
    reached = within_reach(d0, omegas, radii)
    d0, omegas = jnp.where(reached, d0, 0.0), jnp.where(reached, omegas, 0.0)
    one, zero = jnp.ones_like(radii), jnp.zeros_like(radii)

    def crossing(d0, omega):
        return transverse_crossing(d0, omega, radii)

    # Azimuth and z depend on d0 and the curvature alone, beside what is added: two
    # tangents instead of five.
    (opening, arc), to_d0 = jax.jvp(crossing, (d0, omegas), (one, zero))
    _, to_omega = jax.jvp(crossing, (d0, omegas), (zero, one))
    azimuth_row = [
        to_d0[0],
        zero,
        one,
        -omega * cotangent * to_omega[0],
        bend * to_omega[0],
    ]
    z_row = [
        cotangent * to_d0[1],
        one,
        zero,
        -arc / sine**2 - omega * cotangent**2 * to_omega[1],
        bend * cotangent * to_omega[1],
    ]
    jacobian = jnp.concatenate(
        [jnp.stack(azimuth_row, axis=1), jnp.stack(z_row, axis=1)]
    )
    return Prediction(
        azimuth=phi + opening, z=z0 + arc * cotangent, arc=arc, jacobian=jacobian
    )
