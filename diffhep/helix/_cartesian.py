import jax.numpy as jnp
from jaxtyping import Array, Float

from ._perigee import perigee_from_point


def perigee_from_cartesian(
    position: Float[Array, " 3"],
    direction: Float[Array, " 3"],
    charge_over_momentum: Float[Array, ""],
    reference: Float[Array, " 3"],
    field: Float[Array, ""],
) -> Float[Array, " 5"]:
    """The track parameters about any reference, from a point and a direction.

    Args:
        position: A point of the track (x, y, z), in mm.
        direction: A vector along the momentum there, of any length, not along z.
        charge_over_momentum: Charge over momentum, in 1/GeV; may be zero.
        reference: The line along z that the parameters refer to goes through this point
            (x, y, z), from which z0 counts, in mm.
        field: Magnetic field along z, in T.

    Returns:
        Track parameters at the closest approach to that line.
    """
    transverse = jnp.sqrt(direction[0] ** 2 + direction[1] ** 2)
    phi = jnp.arctan2(direction[1], direction[0])
    theta = jnp.arctan2(transverse, direction[2])
    offset = position - reference
    return perigee_from_point(offset, phi, theta, charge_over_momentum, field)


def cartesian_from_perigee(
    parameters: Float[Array, " 5"], reference: Float[Array, " 3"]
) -> tuple[Float[Array, " 3"], Float[Array, " 3"], Float[Array, ""]]:
    """The point of closest approach and the direction there.

    The inverse of `perigee_from_cartesian`; `position_at` moves along the track.

    Args:
        parameters: Track parameters about the reference.
        reference: The reference (x, y, z), in mm.

    Returns:
        The position, in mm, the unit vector along the momentum and the charge over the
        momentum, in 1/GeV.
    """
    d0, z0, phi, theta, charge_over_momentum = parameters
    sine, cosine = jnp.sin(phi), jnp.cos(phi)
    perigee = jnp.stack([-d0 * sine, d0 * cosine, z0])
    across = jnp.sin(theta)
    direction = jnp.stack([across * cosine, across * sine, jnp.cos(theta)])
    return reference + perigee, direction, charge_over_momentum
