import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ..numerics import safe_sqrt
from ._parameters import curvature
from ._trajectory import position_at


# Steps of Newton's method, from the crossing of the parabola.
_STEPS = 6
# The last of them are differentiated. Each doubles the order to which derivatives are
# exact: after 2 they are up to the third.
_DIFFERENTIATED = 2


class PlaneCrossing(eqx.Module):
    """Where a track crosses a plane."""

    position: Float[Array, " 3"]
    """The point (x, y, z), in mm."""
    direction: Float[Array, " 3"]
    """Unit vector along the momentum."""
    arc: Float[Array, ""]
    """Transverse arc length from the perigee, in mm; negative behind it."""
    reached: Bool[Array, ""]
    """Whether there is a crossing within half a turn of the perigee: if not, the other
    fields are finite and mean nothing."""


def to_plane(
    parameters: Float[Array, " 5"],
    point: Float[Array, " 3"],
    normal: Float[Array, " 3"],
    field: Float[Array, ""],
) -> PlaneCrossing:
    """The crossing of a plane, the one closest to the perigee along the track.

    Discs of an endcap and flat modules of a barrel alike. Newton's method from the
    nearer crossing of the parabola; exact derivatives up to the third order. A track
    that crosses twice and is bent so far that the parabola is no picture of it may be
    given its other crossing.

    Args:
        parameters: Track parameters about the z axis.
        point: A point of the plane (x, y, z), in mm.
        normal: A vector normal to the plane, of any length but zero.
        field: Magnetic field along z, in T.

    Returns:
        The crossing.
    """
    omega = curvature(parameters, field)
    normal = normal / jnp.sqrt(jnp.sum(normal**2))

    def improve(arc: Float[Array, ""]) -> Float[Array, ""]:
        distance = jnp.dot(position_at(parameters, arc, field) - point, normal)
        slope = jnp.dot(_direction(parameters, arc, field), normal)
        # Parallel to the plane there is no crossing: stay.
        usable = jnp.abs(slope) > jnp.finfo(slope.dtype).eps
        move = distance / jnp.where(usable, slope, 1.0)
        return arc - jnp.where(usable, move, 0.0)

    arc = _parabola(parameters, point, normal, field)
    for _ in range(_STEPS - _DIFFERENTIATED):
        arc = improve(arc)
    # The solution does not depend on the way to it: no gradient is dropped.
    arc = jax.lax.stop_gradient(arc)
    for _ in range(_DIFFERENTIATED):
        arc = improve(arc)
    position = position_at(parameters, arc, field)
    distance = jnp.abs(jnp.dot(position - point, normal))
    # One part in 1e6 of the path, or of a millimetre: float32 gets there.
    close = distance < 1e-6 * (1 + jnp.abs(arc))
    reached = close & (jnp.abs(omega * arc) < jnp.pi)
    # Beyond reach the perigee stands, before anything could be infinite.
    arc = jnp.where(reached, arc, 0.0)
    along = _direction(parameters, arc, field)
    return PlaneCrossing(
        position=position_at(parameters, arc, field),
        direction=along * jnp.sin(parameters[3]),
        arc=arc,
        reached=reached,
    )


def _direction(
    parameters: Float[Array, " 5"], arc: Float[Array, ""], field: Float[Array, ""]
) -> Float[Array, " 3"]:
    # The derivative of the position to the transverse arc length.
    phi, theta = parameters[2] - curvature(parameters, field) * arc, parameters[3]
    return jnp.stack([jnp.cos(phi), jnp.sin(phi), jnp.cos(theta) / jnp.sin(theta)])


def _parabola(
    parameters: Float[Array, " 5"],
    point: Float[Array, " 3"],
    normal: Float[Array, " 3"],
    field: Float[Array, ""],
) -> Float[Array, ""]:
    # The nearer root of the distance to second order in the arc, or where that is
    # least.
    start = jnp.zeros_like(field)
    distance = jnp.dot(position_at(parameters, start, field) - point, normal)
    along = _direction(parameters, start, field)
    slope = jnp.dot(along, normal)
    bend = (along[1] * normal[0] - along[0] * normal[1]) * curvature(parameters, field)
    root = safe_sqrt(slope**2 - 2 * distance * bend)
    divisor = jnp.abs(slope) + root
    usable = divisor > jnp.finfo(divisor.dtype).eps
    sign = jnp.where(slope < 0, -1.0, 1.0)
    return jnp.where(
        usable, -2 * sign * distance / jnp.where(usable, divisor, 1.0), 0.0
    )
