import diffrax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..geometry import AbstractField
from ._integrate import (
    ADJOINT,
    SOLVER,
    Scheme,
    Waypoint,
    default_steps,
    integrate,
    local_arc,
    start_motion,
)


def propagate(
    position: Float[Array, " 3"],
    direction: Float[Array, " 3"],
    charge_over_momentum: Float[Array, ""],
    field: AbstractField,
    path: Float[Array, ""],
    *,
    solver: diffrax.AbstractSolver = SOLVER,
    stepsize_controller: diffrax.AbstractStepSizeController | None = None,
    adjoint: diffrax.AbstractAdjoint = ADJOINT,
    first_step: float | None = None,
    max_steps: int = 4096,
) -> Waypoint:
    r"""Position and direction in any field after a path length.

    $dr/ds = t$, $dt/ds = \kappa_0 (q/p)\,t\times B(r)$: without energy loss. In a
    uniform field it is `helix_step`, to 1e-9 of the path from 0.1 GeV to 1 TeV in
    float64, and to 2e-6 in float32. Under `vmap` all tracks take as many steps as the
    slowest.

    Args:
        position: Where it starts (x, y, z), in mm.
        direction: Unit vector along the momentum there.
        charge_over_momentum: Charge over momentum, in 1/GeV.
        field: The magnetic field.
        path: Path length, in mm; negative is backwards.
        solver: The method of Runge and Kutta.
        stepsize_controller: How long the steps are; by default `default_steps`. With
            `diffrax.ConstantStepSize()` give `first_step`.
        adjoint: How the gradient crosses the integration. The default is for reverse
            mode; take `diffrax.ForwardMode()` for `jax.jvp` and `jax.jacfwd`. With
            adaptive steps across the cells of a gridded map do not rely on
            `diffrax.DirectAdjoint()`: it is tested in smooth fields only.
        first_step: Length of the first step, in mm; of all of them, if they are fixed.
        max_steps: The most steps that are taken.

    Returns:
        The end of the way. Differentiable in all arrays, those of the field included.
    """
    scheme = Scheme(
        solver,
        stepsize_controller or default_steps(position.dtype),
        adjoint,
        first_step,
        max_steps,
    )
    return _move(position, direction, charge_over_momentum, field, path, scheme)


def propagate_through(
    position: Float[Array, " 3"],
    direction: Float[Array, " 3"],
    charge_over_momentum: Float[Array, ""],
    field: AbstractField,
    paths: Float[Array, " points"],
    *,
    solver: diffrax.AbstractSolver = SOLVER,
    stepsize_controller: diffrax.AbstractStepSizeController | None = None,
    adjoint: diffrax.AbstractAdjoint = ADJOINT,
    first_step: float | None = None,
    max_steps: int = 4096,
) -> Waypoint:
    """Positions and directions in any field at several path lengths.

    From each to the next: every point is the end of a step and none is interpolated.

    Args:
        position: Where it starts (x, y, z), in mm.
        direction: Unit vector along the momentum there.
        charge_over_momentum: Charge over momentum, in 1/GeV.
        field: The magnetic field.
        paths: Path lengths from the start, in mm, in any order; best one that does not
            turn back.
        solver: The method of Runge and Kutta.
        stepsize_controller: How long the steps are; by default `default_steps`.
        adjoint: How the gradient crosses the integration, as in `propagate`.
        first_step: Length of the first step to each point, in mm; of all of them, if
            they are fixed.
        max_steps: The most steps that are taken to each point.

    Returns:
        The points, with a leading axis. After one that is not reached none is.
    """
    scheme = Scheme(
        solver,
        stepsize_controller or default_steps(position.dtype),
        adjoint,
        first_step,
        max_steps,
    )
    start = Waypoint(position, direction, jnp.zeros_like(paths[0]), jnp.asarray(True))

    def move(last: Waypoint, path: Float[Array, ""]) -> tuple[Waypoint, Waypoint]:
        end = _move(
            last.position,
            last.direction,
            charge_over_momentum,
            field,
            path - last.path,
            scheme,
        )
        here = Waypoint(end.position, end.direction, path, end.reached & last.reached)
        return here, here

    return jax.lax.scan(move, start, paths)[1]


def _move(  # noqa: PLR0917 - the arguments of `propagate`, in its order
    position: Float[Array, " 3"],
    direction: Float[Array, " 3"],
    charge_over_momentum: Float[Array, ""],
    field: AbstractField,
    path: Float[Array, ""],
    scheme: Scheme,
) -> Waypoint:
    alive = jnp.isfinite(path)
    path = jnp.where(alive, path, 0.0)
    sign = jnp.where(path < 0, -1.0, 1.0).astype(path.dtype)
    motion, finite = start_motion(
        position, direction, charge_over_momentum, field, sign=sign
    )
    alive = alive & finite
    length = jnp.where(alive, sign * path, 0.0)
    # The derivative to the path length is that of the arc at its end: no gradient is
    # dropped.
    stopped = jax.lax.stop_gradient(length)
    solution = integrate(motion, stopped, scheme)
    reached = alive & (solution.result == diffrax.RESULTS.successful)
    there, along = local_arc(motion, solution)(length - stopped)
    return Waypoint(
        position=jnp.where(reached, there, motion.position),
        direction=sign * jnp.where(reached, along, motion.direction),
        path=path,
        reached=reached,
    )
