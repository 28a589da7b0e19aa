"""What the crossings with cylinders, planes and discs have in common."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ._constants import KAPPA


class Crossings(eqx.Module):
    """Where a track crosses some layers, with the derivatives."""

    position: Float[Array, "layers 2"]
    """The two coordinates that the surface measures; see there."""
    jacobian: Float[Array, "layers 2 5"]
    """Derivative of `position` to the track parameters."""
    arc: Float[Array, " layers"]
    """Transverse arc length from the perigee, in mm."""
    incidence: Float[Array, " layers"]
    """Cosine of the angle between the track and the surface's normal, positive."""
    scale: Float[Array, " layers"]
    """Length of one unit of the first coordinate, in mm."""
    inside: Float[Array, " layers"]
    """Distance from the nearest edge of the layer, in mm: negative outside of it, and
    infinite where there is no edge."""
    reached: Bool[Array, " layers"]
    """Whether the surface is crossed at all: if not, the other fields are finite and
    mean nothing."""


def broadcast_track(
    parameters: Float[Array, " 5"],
    field: Float[Array, ""],
    like: Float[Array, " layers"],
) -> tuple[Float[Array, " layers"], ...]:
    """The track for each layer: in reverse mode each broadcast is a sum, so once.

    Args:
        parameters: Track parameters.
        field: Magnetic field along z, in T.
        like: An array with one entry per layer.

    Returns:
        d0, z0, phi, curvature, sin(theta), cot(theta) and curvature per q/p.
    """
    d0, z0, phi, theta, charge_over_momentum = (parameters[i] for i in range(5))
    sine = jnp.sin(theta)
    bend = KAPPA * field / sine
    scalars = [
        d0,
        z0,
        phi,
        bend * charge_over_momentum,
        sine,
        jnp.cos(theta) / sine,
        bend,
    ]
    return tuple(jnp.broadcast_to(scalar, like.shape) for scalar in scalars)


def assemble_jacobian(
    first: tuple[Float[Array, " layers"], ...],
    way: tuple[Float[Array, " layers"], ...],
    arc: Float[Array, " layers"],
    slopes: tuple[Float[Array, " layers"], ...],
) -> Float[Array, "layers 2 5"]:
    """The derivatives of the first coordinate and of z to the track parameters.

    Args:
        first: Derivatives of the first coordinate to d0, phi and the curvature.
        way: Those of the arc.
        arc: The arc, in mm.
        slopes: Curvature, sin(theta), cot(theta) and curvature per q/p.

    Returns:
        The Jacobian.
    """
    omega, sine, cotangent, bend = slopes
    to_theta = -omega * cotangent
    zero, one = jnp.zeros_like(arc), jnp.ones_like(arc)
    rows = [
        first[0],
        zero,
        first[1],
        to_theta * first[2],
        bend * first[2],
        cotangent * way[0],
        one,
        cotangent * way[1],
        cotangent * to_theta * way[2] - arc / sine**2,
        cotangent * bend * way[2],
    ]
    return layers_first(rows)


def layers_first(rows: list[Float[Array, " layers"]]) -> Float[Array, "layers 2 5"]:
    """The Jacobian from its entries: faster on a CPU than stacking them in place.

    Args:
        rows: The entries of the first coordinate, then those of the second.

    Returns:
        The Jacobian.
    """
    return jnp.transpose(jnp.reshape(jnp.stack(rows), (2, 5, -1)), (2, 0, 1))


def displacement(
    d0: Float[Array, " layers"],
    omega: Float[Array, " layers"],
    across: Float[Array, " layers"],
    bulge: Float[Array, " layers"],
    excess: Float[Array, " layers"],
) -> tuple[tuple[Float[Array, " layers"], ...], tuple[Float[Array, " layers"], ...]]:
    r"""How a point at a given arc length moves with the helix.

    Args:
        d0: Transverse impact parameter, in mm.
        omega: Curvature, in 1/mm.
        across: $\sin\Delta/\omega$ with the turn $\Delta$, in mm.
        bulge: $(1-\cos\Delta)/\omega^2$, in mm^2.
        excess: $(\Delta-\sin\Delta)/\omega^2$, in mm^2.

    Returns:
        Derivatives to $d_0$, $\phi$ and $\omega$: to the left of the track, then along.
    """
    cosine = 1 - omega**2 * bulge
    # The distance of the tangent there from the reference.
    lever = d0 * cosine + omega * bulge
    left = (cosine, across * (1 - omega * d0), -bulge)
    return left, (-omega * across, -lever, excess)
