"""What a helix predicts for the hits of a barrel, and how that depends on it."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..helix import KAPPA, transverse_crossing, transverse_slopes, within_reach


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


@jax.jit
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
    rows = _crossings(d0, omegas, radii)
    opening, arc, opening_d0, opening_omega, arc_d0, arc_omega = rows
    one, zero = jnp.ones_like(radii), jnp.zeros_like(radii)
    # Azimuth and z depend on d0 and the curvature alone, beside what is added.
    azimuth_row = [
        opening_d0,
        zero,
        one,
        -omega * cotangent * opening_omega,
        bend * opening_omega,
    ]
    z_row = [
        cotangent * arc_d0,
        one,
        zero,
        -arc / sine**2 - omega * cotangent**2 * arc_omega,
        bend * cotangent * arc_omega,
    ]
    jacobian = jnp.concatenate(
        [jnp.stack(azimuth_row, axis=1), jnp.stack(z_row, axis=1)]
    )
    return Prediction(
        azimuth=phi + opening, z=z0 + arc * cotangent, arc=arc, jacobian=jacobian
    )


def _crossings_plain(
    d0: Float[Array, " layers"],
    omega: Float[Array, " layers"],
    radii: Float[Array, " layers"],
) -> Float[Array, "6 layers"]:
    # Opening angle and arc, and their derivatives to d0 and the curvature.
    value = transverse_crossing(d0, omega, radii)
    return jnp.stack([*value, *transverse_slopes(d0, omega, radii)])


# The derivative as an explicit matrix: the implicit derivative of the fit takes five
# tangents and a transpose of this, which would each repeat the whole chain.
@jax.custom_jvp
def _crossings(
    d0: Float[Array, " layers"],
    omega: Float[Array, " layers"],
    radii: Float[Array, " layers"],
) -> Float[Array, "6 layers"]:
    return _crossings_plain(d0, omega, radii)


@_crossings.defjvp
def _crossings_jvp(
    primals: tuple[Array, Array, Array], tangents: tuple[Array, Array, Array]
) -> tuple[Float[Array, "6 layers"], Float[Array, "6 layers"]]:
    columns = _columns(*primals)
    terms = [c * t[None, :] for c, t in zip(columns, tangents, strict=True)]
    return _crossings(*primals), terms[0] + terms[1] + terms[2]


# Jitted, as it appears several times: it is traced once.
@jax.jit
def _columns(
    d0: Float[Array, " layers"],
    omega: Float[Array, " layers"],
    radii: Float[Array, " layers"],
) -> tuple[
    Float[Array, "6 layers"], Float[Array, "6 layers"], Float[Array, "6 layers"]
]:
    _, along = jax.linearize(_crossings_plain, d0, omega, radii)
    one, zero = jnp.ones_like(radii), jnp.zeros_like(radii)
    return along(one, zero, zero), along(zero, one, zero), along(zero, zero, one)
