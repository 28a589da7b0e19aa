"""The equation of motion in any static field, and its integration."""

from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ..geometry import AbstractField
from ._constants import KAPPA


SOLVER = diffrax.Dopri8()
"""The method of Runge and Kutta unless another is given."""

ADJOINT = diffrax.RecursiveCheckpointAdjoint()
"""How the gradient crosses an integration unless it is said."""


class Waypoint(eqx.Module):
    """A point on a trajectory."""

    position: Float[Array, "*points 3"]
    """The point (x, y, z), in mm."""
    direction: Float[Array, "*points 3"]
    """Unit vector along the momentum."""
    path: Float[Array, "*points"]
    """Path length from the start, in mm; negative behind it."""
    reached: Bool[Array, "*points"]
    """Whether the track gets there within the steps allowed: if not, the other fields
    are finite and mean nothing."""


class Motion(eqx.Module):
    """A track at its start, and what bends it. Always traversed forwards."""

    position: Float[Array, " 3"]
    """Where it starts (x, y, z), in mm."""
    direction: Float[Array, " 3"]
    """Unit vector along the way taken: against the momentum, if backwards."""
    bend: Float[Array, ""]
    """The turn per path length and field, in 1/(T mm)."""
    field: AbstractField
    """The magnetic field."""


class Scheme(eqx.Module):
    """How the equation of motion is integrated."""

    solver: diffrax.AbstractSolver
    """The method of Runge and Kutta."""
    stepsize_controller: diffrax.AbstractStepSizeController
    """How long the steps are."""
    adjoint: diffrax.AbstractAdjoint
    """How the gradient crosses the integration."""
    first_step: float | None
    """Length of the first step, in mm; of all of them, if they are fixed."""
    max_steps: int = eqx.field(static=True)
    """The most steps that are taken."""


def default_steps(dtype: Any, *, longest: float = 500.0) -> diffrax.PIDController:
    """Adaptive steps, to the accuracy that a precision allows.

    Args:
        dtype: The floating-point type of the track.
        longest: The longest step, in mm. Set it below the size of what a track might
            step over: a magnet, or a surface that is crossed twice.

    Returns:
        The controller. In float64 the tolerance is 1e-11 of the path and of the
        direction; in float32 it is 1e-6.
    """
    tolerance = 1e-11 if jnp.finfo(dtype).bits > 32 else 1e-6
    return diffrax.PIDController(rtol=tolerance, atol=tolerance, dtmax=longest)


def start_motion(
    position: Float[Array, " 3"],
    direction: Float[Array, " 3"],
    charge_over_momentum: Float[Array, ""],
    field: AbstractField,
    *,
    sign: Float[Array, ""],
) -> tuple[Motion, Bool[Array, ""]]:
    """A track at its start, safe to integrate.

    Args:
        position: Where it starts (x, y, z), in mm.
        direction: Unit vector along the momentum.
        charge_over_momentum: Charge over momentum, in 1/GeV.
        field: The magnetic field.
        sign: +1 forwards, -1 backwards. Backwards is forwards with the opposite
            direction and charge.

    Returns:
        The track, and whether all of it is finite. A track that is not (in a dead slot,
        say) would halve its steps to the last: a straight one at the origin stands for
        it.
    """
    numbers = jnp.concatenate([position, direction, charge_over_momentum[None]])
    alive = jnp.all(jnp.isfinite(numbers))
    ahead = jnp.eye(3, dtype=direction.dtype)[2]
    motion = Motion(
        jnp.where(alive, position, 0.0),
        sign * jnp.where(alive, direction, ahead),
        sign * KAPPA * jnp.where(alive, charge_over_momentum, 0.0),
        field,
    )
    return motion, alive


def integrate(
    motion: Motion,
    path: Float[Array, ""],
    scheme: Scheme,
    *,
    event: diffrax.Event | None = None,
    args: Any = None,
) -> diffrax.Solution:
    """The solution of the equation of motion.

    Args:
        motion: The track at its start.
        path: Path length, in mm, not negative.
        scheme: How to integrate.
        event: Where to end before.
        args: What the event's condition depends on.

    Returns:
        The solution at its end; its state is the way from the start and the direction.
    """
    return diffrax.diffeqsolve(
        diffrax.ODETerm(_slope),
        scheme.solver,
        t0=jnp.zeros_like(path),
        t1=path,
        dt0=scheme.first_step,
        # Relative to the start, where float32 has more digits.
        y0=(jnp.zeros_like(motion.position), motion.direction),
        args=(motion, args),
        stepsize_controller=scheme.stepsize_controller,
        adjoint=scheme.adjoint,
        event=event,
        max_steps=scheme.max_steps,
        throw=False,
    )


class LocalArc(eqx.Module):
    """A track around its end, to the third order in the path length.

    With a length of zero and a derivative it makes the end a function of the path
    length, whatever the solver did: exact up to the second derivative.
    """

    position: Float[Array, " 3"]
    """The end (x, y, z), in mm."""
    direction: Float[Array, " 3"]
    """Unit vector along the way."""
    bend: Float[Array, " 3"]
    """The derivative of the direction, in 1/mm."""
    change: Float[Array, " 3"]
    """The derivative of the bend, in 1/mm^2."""

    def __call__(
        self, length: Float[Array, ""]
    ) -> tuple[Float[Array, " 3"], Float[Array, " 3"]]:
        """Position and direction a little further on."""
        bend, change = self.bend * length, self.change * length**2
        position = self.position + length * (self.direction + bend / 2 + change / 6)
        return position, self.direction + bend + change / 2


def local_arc(motion: Motion, solution: diffrax.Solution) -> LocalArc:
    """The track around the end of an integration.

    Args:
        motion: The track at its start.
        solution: What `integrate` returned.

    Returns:
        The track there.
    """
    way, direction = jax.tree.map(lambda x: x[-1], solution.ys)
    position = motion.position + way
    field, change = jax.jvp(motion.field, (position,), (direction,))
    bend = motion.bend * jnp.cross(direction, field)
    turning = jnp.cross(bend, field) + jnp.cross(direction, change)
    return LocalArc(position, direction, bend, motion.bend * turning)


def _slope(
    path: Any,
    state: tuple[Float[Array, " 3"], Float[Array, " 3"]],
    args: tuple[Motion, Any],
) -> tuple[Float[Array, " 3"], Float[Array, " 3"]]:
    # dr/ds = t and dt/ds = kappa (q/p) t x B.
    del path
    way, direction = state
    motion, _ = args
    field = motion.field(motion.position + way)
    return direction, motion.bend * jnp.cross(direction, field)
