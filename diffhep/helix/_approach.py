import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ..numerics import safe_norm
from ._parameters import curvature
from ._trajectory import position_at


class Approach(eqx.Module):
    """Where a track comes closest to a point or to a line."""

    position: Float[Array, " 3"]
    """The point of the track (x, y, z), in mm."""
    direction: Float[Array, " 3"]
    """Unit vector along the momentum there."""
    offset: Float[Array, " 3"]
    """From the point, or the nearest point of the line, to the track, in mm."""
    distance: Float[Array, ""]
    """The length of the offset, in mm. Where it is zero so is its derivative."""
    arc: Float[Array, ""]
    """Transverse arc length from the perigee, in mm; negative behind it."""
    reached: Bool[Array, ""]
    """Whether there is one where it was looked for: if not, the other fields are finite
    and mean nothing."""


def approach_at(
    parameters: Float[Array, " 5"],
    arc: Float[Array, ""],
    point: Float[Array, " 3"],
    along: Float[Array, " 3"],
    field: Float[Array, ""],
    *,
    reached: Bool[Array, ""],
) -> Approach:
    """The approach at a known arc length.

    Args:
        parameters: Track parameters about the z axis.
        arc: Transverse arc length from the perigee, in mm.
        point: The point (x, y, z), in mm.
        along: Unit vector along the line, or zero for the point alone.
        field: Magnetic field along z, in T.
        reached: Whether it is an approach. If not, the perigee stands.

    Returns:
        The approach.
    """
    arc = jnp.where(reached, arc, 0.0)
    position = position_at(parameters, arc, field)
    offset = across(position - point, along)
    direction = slope_at(parameters, arc, field) * jnp.sin(parameters[3])
    return Approach(position, direction, offset, safe_norm(offset), arc, reached)


def across(vector: Float[Array, " 3"], along: Float[Array, " 3"]) -> Float[Array, " 3"]:
    """The part of a vector that is normal to a unit vector.

    Args:
        vector: Any vector.
        along: A unit vector, or zero, which takes nothing away.

    Returns:
        The normal part.
    """
    return vector - along * jnp.sum(vector * along)


def slope_at(
    parameters: Float[Array, " 5"], arc: Float[Array, ""], field: Float[Array, ""]
) -> Float[Array, " 3"]:
    """The derivative of the position to the transverse arc length.

    Args:
        parameters: Track parameters.
        arc: Transverse arc length, in mm.
        field: Magnetic field along z, in T.

    Returns:
        The direction over the sine of the polar angle.
    """
    phi, theta = parameters[2] - curvature(parameters, field) * arc, parameters[3]
    return jnp.stack([jnp.cos(phi), jnp.sin(phi), jnp.cos(theta) / jnp.sin(theta)])
