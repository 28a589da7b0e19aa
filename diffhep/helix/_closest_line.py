import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ._approach import Approach, across, approach_at, slope_at
from ._closest_point import closest_to_point
from ._parameters import curvature
from ._trajectory import position_at


# From the foot of the track on the line to the point of the track closest to it and
# back: brings Newton's method into the right turn.
_ROUNDS = 2
_STEPS = 8
# The last of them are differentiated. Each doubles the order to which derivatives are
# exact: after 2 they are up to the third.
_DIFFERENTIATED = 2


def closest_to_line(
    parameters: Float[Array, " 5"],
    point: Float[Array, " 3"],
    along: Float[Array, " 3"],
    field: Float[Array, ""],
) -> Approach:
    """The closest approach to a line of any direction.

    A wire, a flight path, or with the line along z a perigee. Newton's method for the
    squared distance, with its curvature by Gauss where the true one is not positive, by
    at most a radian at a time; exact derivatives up to the third order.

    Args:
        parameters: Track parameters about the z axis.
        point: A point of the line (x, y, z), in mm. If the track comes close to the
            line more than once, the approach is one near this point.
        along: A vector along the line, of any length but zero.
        field: Magnetic field along z, in T.

    Returns:
        The approach: a minimum of the distance. It is not reached where the track runs
        parallel to the line, or where Newton's method ends more than half a turn from
        the perigee.
    """
    along = along / jnp.sqrt(jnp.sum(along**2))
    inputs = (parameters, point, along, field)
    # The solution does not depend on the way to it: no gradient is dropped.
    stopped = jax.lax.stop_gradient(inputs)
    arc = jax.lax.fori_loop(
        0,
        _STEPS - _DIFFERENTIATED,
        lambda _, arc: _improve(arc, *stopped),
        _start(*stopped),
    )
    for _ in range(_DIFFERENTIATED):
        arc = _improve(arc, *inputs)
    gradient, true, gauss = _slopes(parameters, arc, point, along, field)
    # One part in 1e5 of the way, or of a millimetre: float32 gets there.
    close = jnp.abs(gradient) < 1e-5 * gauss * (1 + jnp.abs(arc))
    crossing = (true > 0) & (gauss > jnp.finfo(gauss.dtype).eps)
    turn = curvature(parameters, field) * arc
    reached = close & crossing & (jnp.abs(turn) < jnp.pi)
    return approach_at(parameters, arc, point, along, field, reached=reached)


def _improve(
    arc: Float[Array, ""],
    parameters: Float[Array, " 5"],
    point: Float[Array, " 3"],
    along: Float[Array, " 3"],
    field: Float[Array, ""],
) -> Float[Array, ""]:
    gradient, true, gauss = _slopes(parameters, arc, point, along, field)
    curved = jnp.where(true > 0.1 * gauss, true, gauss)
    usable = gauss > jnp.finfo(gauss.dtype).eps
    move = jnp.where(usable, gradient / jnp.where(usable, curved, 1.0), 0.0)
    # How far a step may go is no part of the solution either.
    omega = jnp.abs(jax.lax.stop_gradient(curvature(parameters, field)))
    limit = 1 / jnp.maximum(omega, jnp.finfo(omega.dtype).tiny)
    return arc - jnp.clip(move, -limit, limit)


def _slopes(
    parameters: Float[Array, " 5"],
    arc: Float[Array, ""],
    point: Float[Array, " 3"],
    along: Float[Array, " 3"],
    field: Float[Array, ""],
) -> tuple[Float[Array, ""], Float[Array, ""], Float[Array, ""]]:
    # Half the slope of the squared distance, and half its curvature with and without
    # the bend of the track.
    offset = across(position_at(parameters, arc, field) - point, along)
    slope = slope_at(parameters, arc, field)
    moving = across(slope, along)
    bend = curvature(parameters, field) * (offset[0] * slope[1] - offset[1] * slope[0])
    gauss = jnp.sum(moving**2)
    return jnp.sum(offset * moving), gauss + bend, gauss


def _start(
    parameters: Float[Array, " 5"],
    point: Float[Array, " 3"],
    along: Float[Array, " 3"],
    field: Float[Array, ""],
) -> Float[Array, ""]:
    # Beyond half a turn from a point the helix' perigee is as good a start as any.
    foot = point
    arc = jnp.zeros_like(field)
    for _ in range(_ROUNDS):
        arc = closest_to_point(parameters, foot, field).arc
        offset = position_at(parameters, arc, field) - point
        foot = point + along * jnp.sum(offset * along)
    return arc
