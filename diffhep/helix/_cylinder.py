import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ._parameters import curvature


class Crossing(eqx.Module):
    """Where and in which direction a track crosses a cylinder, outwards."""

    azimuth: Float[Array, ""]
    """Azimuth of the point, in rad, within half a turn of the track's `phi`."""
    z: Float[Array, ""]
    """Longitudinal position, in mm."""
    arc: Float[Array, ""]
    """Transverse arc length from the perigee, in mm."""
    direction: Float[Array, ""]
    """Azimuth of the momentum, in rad."""
    reached: Bool[Array, ""]
    """Whether the helix gets there: if not, the other fields are finite and mean
    nothing."""


def to_cylinder(
    parameters: Float[Array, " 5"],
    radius: Float[Array, ""],
    field: Float[Array, ""],
) -> Crossing:
    r"""The first crossing of a cylinder about the z axis, after the perigee.

    The perigee is at $d_0 n$ with $n = (-\sin\phi, \cos\phi)$, the centre of the circle
    at $(d_0 - 1/\omega) n$. The condition $|x| = r$ gives the azimuth $\alpha$ from

    $$r\sin(\alpha-\phi) = x \cdot n = \frac{d_0 - \omega(r^2+d_0^2)/2}{1-\omega d_0}$$

    and the chord from the perigee from $L^2 = (r^2-d_0^2) / (1-\omega d_0)$. The arc is
    $(2/\omega)\arcsin(\omega L/2)$: nothing is singular at $\omega = 0$.

    Args:
        parameters: Track parameters about the z axis.
        radius: Radius of the cylinder, in mm.
        field: Magnetic field along z, in T.

    Returns:
        The crossing.
    """
    d0, z0, phi, theta = parameters[0], parameters[1], parameters[2], parameters[3]
    omega = curvature(parameters, field)
    shrink = 1 - omega * d0
    outside = jnp.abs(d0) < radius
    inside = jnp.abs(omega) * (radius + jnp.abs(d0)) < 2
    reached = outside & inside & (shrink > 0)
    # Beyond reach a straight track through the axis takes over, before any arithmetic
    # that could fail.
    safe_d0 = jnp.where(reached, d0, 0.0)
    safe_omega = jnp.where(reached, omega, 0.0)
    safe_shrink = jnp.where(reached, shrink, 1.0)
    square = radius**2
    normal = (safe_d0 - safe_omega * (square + safe_d0**2) / 2) / safe_shrink
    azimuth = phi + jnp.arcsin(normal / radius)
    chord = jnp.sqrt((square - safe_d0**2) / safe_shrink)
    arc = chord * _arcsine_ratio(safe_omega * chord / 2)
    return Crossing(
        azimuth=azimuth,
        z=z0 + arc * jnp.cos(theta) / jnp.sin(theta),
        arc=arc,
        direction=phi - safe_omega * arc,
        reached=reached,
    )


def _arcsine_ratio(x: Float[Array, ""]) -> Float[Array, ""]:
    # arcsin(x) / x, smooth at zero; the next term of the series is 0.022 x^10, below
    # one part in 1e17 where it is used.
    small = jnp.abs(x) < 3e-2
    safe = jnp.where(small, 0.5, x)
    y = jnp.where(small, x, 0.0) ** 2
    series = 1 + y * (1 / 6 + y * (3 / 40 + y * (5 / 112 + y * 35 / 1152)))
    return jnp.where(small, series, jnp.arcsin(safe) / safe)
