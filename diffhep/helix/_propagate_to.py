from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import optimistix as optx
from jaxtyping import Array, Float

from ..geometry import AbstractField, AbstractSurface
from ._integrate import (
    ADJOINT,
    SOLVER,
    LocalArc,
    Scheme,
    Waypoint,
    default_steps,
    integrate,
    local_arc,
    start_motion,
)


# Steps of Newton's method from the end of the integration. All are differentiated, and
# each doubles the order to which derivatives are exact: beyond that of the arc.
_STEPS = 2


def propagate_to(
    position: Float[Array, " 3"],
    direction: Float[Array, " 3"],
    charge_over_momentum: Float[Array, ""],
    field: AbstractField,
    surface: AbstractSurface,
    *,
    furthest: float = 1e4,
    solver: diffrax.AbstractSolver = SOLVER,
    stepsize_controller: diffrax.AbstractStepSizeController | None = None,
    adjoint: diffrax.AbstractAdjoint = ADJOINT,
    first_step: float | None = None,
    max_steps: int = 4096,
) -> Waypoint:
    """The first crossing of a surface in any field.

    The track is integrated twice: until the condition of the surface changes sign from
    one step to the next, which finds the path length, and for that length, which is
    differentiated. Newton's method on a short arc does the rest. A surface that is
    crossed twice within one step is missed: the controller's longest step limits that.

    Args:
        position: Where it starts (x, y, z), in mm. A start on the surface may itself
            count as the crossing.
        direction: Unit vector along the momentum there.
        charge_over_momentum: Charge over momentum, in 1/GeV.
        field: The magnetic field.
        surface: The surface.
        furthest: The longest path that is tried, in mm; negative looks backwards.
        solver: The method of Runge and Kutta.
        stepsize_controller: How long the steps are; by default `default_steps`. With
            `diffrax.ConstantStepSize()` give `first_step`.
        adjoint: How the gradient crosses the integration, as in `propagate`.
        first_step: Length of the first step, in mm; of all of them, if they are fixed.
        max_steps: The most steps that are taken.

    Returns:
        The crossing. Differentiable in all arrays, those of the surface and the field
        included.
    """
    scheme = Scheme(
        solver,
        stepsize_controller or default_steps(position.dtype),
        adjoint,
        first_step,
        max_steps,
    )
    sign = jnp.where(furthest < 0, -1.0, 1.0).astype(position.dtype)
    motion, alive = start_motion(
        position, direction, charge_over_momentum, field, sign=sign
    )
    limit = jnp.where(alive, sign * furthest, 0.0).astype(position.dtype)
    # The crossing does not depend on the way to it: no gradient is dropped.
    stopped = _widened(jax.lax.stop_gradient((motion, surface)))
    solution = integrate(
        stopped[0],
        _widened(limit),
        _without_gradient(scheme),
        event=_event(surface),
        args=stopped[1],
    )
    found = alive & (solution.result == diffrax.RESULTS.event_occurred)
    # Beyond reach nothing is integrated again.
    (end,) = jax.tree.leaves(solution.ts)
    path = jax.lax.stop_gradient(jnp.where(found, end[-1], 0.0)).astype(limit.dtype)
    again = integrate(motion, path, scheme)
    arc = local_arc(motion, again)
    length = jnp.zeros_like(path)
    for _ in range(_STEPS):
        length = _improve(length, arc, surface)
    there, along = arc(jnp.where(found, length, 0.0))
    # One part in 1e6 of the path, or of a millimetre: float32 gets there.
    allowed = 1e-6 * (1 + path)
    close = jnp.abs(surface(there, along)) < allowed
    # The interpolation ends this near; the arc is good to its third power.
    near = jnp.abs(length) < 1e3 * allowed
    reached = found & close & near & (again.result == diffrax.RESULTS.successful)
    return Waypoint(
        position=jnp.where(reached, there, motion.position),
        direction=sign * jnp.where(reached, along, motion.direction),
        path=sign * jnp.where(reached, path + length, 0.0),
        reached=reached,
    )


def _widened(tree: Any) -> Any:
    # Diffrax' events mix a track's precision with the default one, and fail if they
    # differ: float32 where float64 is switched on.
    default = jnp.asarray(0.0).dtype
    return jax.tree.map(
        lambda x: x.astype(default) if eqx.is_inexact_array(x) else x, tree
    )


def _without_gradient(scheme: Scheme) -> Scheme:
    # Not every adjoint allows for events.
    return Scheme(
        scheme.solver,
        scheme.stepsize_controller,
        diffrax.ForwardMode(),
        scheme.first_step,
        scheme.max_steps,
    )


def _event(surface: AbstractSurface) -> diffrax.Event:
    # On the interpolation within a step; the rest is done with steps of their own.
    finder = optx.Newton(rtol=1e-5, atol=1e-5)
    return diffrax.Event(_condition, finder, direction=surface.upwards)


def _condition(t: Any, y: Any, args: Any, **kwargs: Any) -> Float[Array, ""]:
    # Diffrax passes these by name.
    del t, kwargs
    way, direction = y
    motion, surface = args
    return surface(motion.position + way, direction)


def _improve(
    length: Float[Array, ""], arc: LocalArc, surface: AbstractSurface
) -> Float[Array, ""]:
    value, slope = jax.jvp(
        lambda length: surface(*arc(length)), (length,), (jnp.ones_like(length),)
    )
    # Parallel to the surface there is no crossing: stay.
    usable = jnp.abs(slope) > jnp.finfo(slope.dtype).eps
    return length - jnp.where(usable, value / jnp.where(usable, slope, 1.0), 0.0)
