import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..numerics import sinc
from ._approach import Approach, approach_at
from ._parameters import curvature
from ._perigee import perigee_at
from ._transport import way_between


# Steps of Newton's method, from below: it never overshoots.
_STEPS = 8
# The last of them are differentiated. Each doubles the order to which derivatives are
# exact: after 2 they are up to the third.
_DIFFERENTIATED = 2


def closest_to_point(
    parameters: Float[Array, " 5"],
    point: Float[Array, " 3"],
    field: Float[Array, ""],
    *,
    most_turns: int = 0,
) -> Approach:
    r"""The closest approach to a point in space.

    With $u$ the arc from the perigee about the point, $d$ and $\zeta$ the impact
    parameters there, it is where

    $$\sin^2\theta\,(1-\omega d)\,\frac{\sin\omega u}{\omega} + \cos^2\theta\,u
      + \sin\theta\cos\theta\,\zeta = 0:$$

    Kepler's equation, with an eccentricity that may exceed one, and nothing singular
    at $\omega = 0$. Newton's method from a lower bound; exact derivatives up to the
    third order.

    Args:
        parameters: Track parameters about the z axis.
        point: The point (x, y, z), in mm, not on the axis of the helix.
        field: Magnetic field along z, in T.
        most_turns: How many whole turns from the perigee about the point to look at. By
            default the approach is the one within half a turn of it. With more it is
            the closest of all those, and jumps where two turns are equally far.

    Returns:
        The approach. It is not reached where the track comes closest beyond those
        turns.
    """
    about = perigee_at(parameters, point, field)
    omega = curvature(parameters, field)
    sine, cosine = jnp.sin(parameters[3]), jnp.cos(parameters[3])
    way, height = _whole_turns(omega, about[1], cosine / sine, most_turns)
    transverse = (1 - omega * about[0]) * sine**2
    constant = sine * cosine * (about[1] + height)
    local = _kepler(omega, transverse, cosine**2, constant)
    slope = transverse * jnp.cos(omega * local) + cosine**2
    rest = (transverse * sinc(omega * local) + cosine**2) * local + constant
    # One part in 1e6 of the way, or of a millimetre: float32 gets there.
    close = jnp.abs(rest) < 1e-6 * (1 + jnp.abs(local))
    reached = close & (slope > 0) & (jnp.abs(omega * local) < jnp.pi)
    _, before = way_between(parameters, about, point)
    arc = before + way + local
    return approach_at(
        parameters, arc, point, jnp.zeros_like(point), field, reached=reached
    )


def _whole_turns(
    omega: Float[Array, ""],
    height: Float[Array, ""],
    cotangent: Float[Array, ""],
    most: int,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    # The arc and the way along z of the whole turns that bring a track nearest to the
    # height of the point.
    if most == 0:
        return jnp.zeros_like(omega), jnp.zeros_like(omega)
    curved = jnp.abs(omega) > jnp.finfo(omega.dtype).eps
    turn = jnp.where(curved, 2 * jnp.pi / jnp.where(curved, omega, 1.0), 0.0)
    advance = turn * cotangent
    moving = jnp.abs(advance) > jnp.finfo(omega.dtype).eps
    number = jnp.round(-height / jnp.where(moving, advance, 1.0))
    number = jnp.where(moving, jnp.clip(number, -most, most), 0.0)
    return number * turn, number * advance


def _kepler(
    omega: Float[Array, ""],
    transverse: Float[Array, ""],
    along: Float[Array, ""],
    constant: Float[Array, ""],
) -> Float[Array, ""]:
    # The root u of transverse * sin(omega * u) / omega + along * u + constant, with
    # both factors positive, within half a turn.
    sign = jnp.where(constant < 0, 1.0, -1.0)
    inputs = (omega, transverse, along, jnp.abs(constant))
    # The solution does not depend on the way to it: no gradient is dropped.
    stopped = jax.lax.stop_gradient(inputs)
    u = jax.lax.fori_loop(
        0,
        _STEPS - _DIFFERENTIATED,
        lambda _, u: _improve(u, *stopped),
        _lower_bound(*stopped),
    )
    for _ in range(_DIFFERENTIATED):
        u = _improve(u, *inputs)
    return sign * u


def _improve(
    u: Float[Array, ""],
    omega: Float[Array, ""],
    transverse: Float[Array, ""],
    along: Float[Array, ""],
    goal: Float[Array, ""],
) -> Float[Array, ""]:
    missing = goal - (transverse * sinc(omega * u) + along) * u
    slope = transverse * jnp.cos(omega * u) + along
    usable = slope > jnp.finfo(slope.dtype).eps
    move = jnp.where(usable, missing / jnp.where(usable, slope, 1.0), 0.0)
    # Without a root Newton's method would run away: a bit beyond half a turn it ends.
    bend = jnp.maximum(jnp.abs(omega), jnp.finfo(omega.dtype).tiny)
    return jnp.minimum(u + move, jax.lax.stop_gradient(3.2 / bend))


def _lower_bound(
    omega: Float[Array, ""],
    transverse: Float[Array, ""],
    along: Float[Array, ""],
    goal: Float[Array, ""],
) -> Float[Array, ""]:
    # Within half a turn the function is concave, hence below its tangents: those at the
    # start, at a quarter and at half a turn reach the goal too early.
    curved = jnp.abs(omega) > jnp.finfo(omega.dtype).eps
    radius = 1 / jnp.where(curved, jnp.abs(omega), 1.0)
    tangents = (
        (goal, transverse + along),
        (goal - transverse * radius, along),
        (goal - transverse * jnp.pi * radius, along - transverse),
    )
    bound = jnp.zeros_like(goal)
    for height, slope in tangents:
        usable = (slope > jnp.finfo(slope.dtype).eps) & (curved | (height == goal))
        bound = jnp.maximum(
            bound, jnp.where(usable, height / jnp.where(usable, slope, 1.0), 0.0)
        )
    return bound
