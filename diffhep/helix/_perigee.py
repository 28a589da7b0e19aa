"""Where a helix comes closest to a line along z, smooth through zero curvature."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from ..numerics import sinc, wrap_angle
from ._constants import KAPPA


def perigee_from_point(
    position: Float[Array, " 3"],
    phi: Float[Array, ""],
    theta: Float[Array, ""],
    charge_over_momentum: Float[Array, ""],
    field: Float[Array, ""],
) -> Float[Array, " 5"]:
    r"""The track parameters of the helix through a point.

    With $\Delta = -x\sin\phi + y\cos\phi$, $A = 2\Delta - \omega(x^2+y^2)$ and
    $U = \sqrt{1-\omega A}$ the impact parameter is $A / (1 + U)$, which neither loses
    digits nor has a singularity at $\omega = 0$. (The naive distance to the circle's
    centre minus its radius is wrong by 49 micrometres in float32.) Equal to ACTS to
    1e-7.

    Args:
        position: A point on the helix (x, y, z), relative to the reference, in mm. The
            axis of the helix must not pass through the reference.
        phi: Azimuth of the direction at that point, in rad.
        theta: Polar angle of the direction, in rad.
        charge_over_momentum: Charge over momentum, in 1/GeV.
        field: Magnetic field along z, in T.

    Returns:
        Track parameters at the closest approach to the line along z through the
        reference. The turn between the point and there must be less than half.
    """
    x, y, z = position[0], position[1], position[2]
    sine, cosine = jnp.sin(phi), jnp.cos(phi)
    sine_theta = jnp.sin(theta)
    omega = KAPPA * charge_over_momentum * field / sine_theta
    offset = 2 * (y * cosine - x * sine) - omega * (x**2 + y**2)
    d0 = offset / (1 + jnp.sqrt(1 - omega * offset))
    phi0 = jnp.arctan2(sine + omega * x, cosine - omega * y)
    # The chord from the perigee to the point lies along the mean direction. It has the
    # length arc * sinc(turn / 2), and the turn is the difference in direction.
    turn = wrap_angle(phi0 - phi)
    mean = phi0 - turn / 2
    # The perigee lies at d0 * (-sin(phi0), cos(phi0)): its projection is a sine.
    along = x * jnp.cos(mean) + y * jnp.sin(mean) + d0 * jnp.sin(turn / 2)
    arc = along / sinc(turn / 2)
    z0 = z - arc * jnp.cos(theta) / sine_theta
    return jnp.stack([d0, z0, phi0, theta, charge_over_momentum])


def perigee_from_momentum(
    position: Float[Array, " 3"],
    momentum: Float[Array, " 3"],
    charge: Float[Array, ""],
    field: Float[Array, ""],
) -> Float[Array, " 5"]:
    """The track parameters of a particle.

    Args:
        position: A point of its trajectory (x, y, z), in mm.
        momentum: Its momentum (px, py, pz) there, in GeV, not along z.
        charge: Its charge, in units of e.
        field: Magnetic field along z, in T.

    Returns:
        Track parameters at the closest approach to the z axis.
    """
    transverse = jnp.sqrt(momentum[0] ** 2 + momentum[1] ** 2)
    total = jnp.sqrt(transverse**2 + momentum[2] ** 2)
    phi = jnp.arctan2(momentum[1], momentum[0])
    theta = jnp.arctan2(transverse, momentum[2])
    return perigee_from_point(position, phi, theta, charge / total, field)


def perigee_at(
    parameters: Float[Array, " 5"],
    point: Float[Array, " 3"],
    field: Float[Array, ""],
) -> Float[Array, " 5"]:
    """The same helix, described at its closest approach to another point.

    Args:
        parameters: Track parameters about the origin.
        point: The new reference (x, y, z), in mm.
        field: Magnetic field along z, in T.

    Returns:
        Track parameters about the point: d0 and z0 count from there. A vertex lies on
        the track if both are zero. Smooth in all arguments.
    """
    d0, z0, phi = parameters[0], parameters[1], parameters[2]
    perigee = jnp.stack([-d0 * jnp.sin(phi), d0 * jnp.cos(phi), z0])
    return perigee_from_point(perigee - point, phi, parameters[3], parameters[4], field)
