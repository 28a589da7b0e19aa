import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ..numerics import arcsine_ratio
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
    """The first crossing of a cylinder about the z axis, after the perigee.

    Args:
        parameters: Track parameters about the z axis.
        radius: Radius of the cylinder, in mm.
        field: Magnetic field along z, in T.

    Returns:
        The crossing.
    """
    d0, z0, phi, theta = parameters[0], parameters[1], parameters[2], parameters[3]
    omega = curvature(parameters, field)
    reached = within_reach(d0, omega, radius)
    # Beyond reach a straight track through the axis takes over, before any arithmetic
    # that could fail.
    d0, omega = jnp.where(reached, d0, 0.0), jnp.where(reached, omega, 0.0)
    opening, arc = transverse_crossing(d0, omega, radius)
    return Crossing(
        azimuth=phi + opening,
        z=z0 + arc * jnp.cos(theta) / jnp.sin(theta),
        arc=arc,
        direction=phi - omega * arc,
        reached=reached,
    )


def within_reach(
    d0: Float[Array, "*shape"],
    omega: Float[Array, "*shape"],
    radius: Float[Array, "*shape"],
) -> Bool[Array, "*shape"]:
    """Whether a helix crosses a cylinder about the z axis.

    Args:
        d0: Transverse impact parameter, in mm.
        omega: Curvature, in 1/mm.
        radius: Radius of the cylinder, in mm.

    Returns:
        Whether it starts inside and does not turn back before.
    """
    size = jnp.abs(d0)
    return (size < radius) & (jnp.abs(omega) * (radius + size) < 2)


def transverse_crossing(
    d0: Float[Array, "*shape"],
    omega: Float[Array, "*shape"],
    radius: Float[Array, "*shape"],
) -> tuple[Float[Array, "*shape"], Float[Array, "*shape"]]:
    r"""The azimuth and the arc at which a helix crosses a cylinder.

    The perigee is at $d_0 n$ with $n = (-\sin\phi, \cos\phi)$, the centre of the circle
    at $(d_0 - 1/\omega) n$. The condition $|x| = r$ gives the azimuth $\alpha$ from

    $$r\sin(\alpha-\phi) = x\cdot n = \frac{d_0-\omega(r^2+d_0^2)/2}{1-\omega d_0}$$

    and the chord from the perigee from $L^2 = (r^2-d_0^2) / (1-\omega d_0)$. The arc is
    $(2/\omega)\arcsin(\omega L/2)$: nothing is singular at $\omega = 0$.

    Args:
        d0: Transverse impact parameter, in mm.
        omega: Curvature, in 1/mm.
        radius: Radius of the cylinder, in mm; `within_reach`.

    Returns:
        The azimuth minus the track's `phi`, in rad, and the transverse arc length from
        the perigee, in mm.
    """
    shrink = 1 - omega * d0
    normal = (d0 - omega * (radius**2 + d0**2) / 2) / shrink
    opening = jnp.arcsin(normal / radius)
    chord = jnp.sqrt((radius**2 - d0**2) / shrink)
    return opening, chord * arcsine_ratio(omega * chord / 2)


def transverse_slopes(
    d0: Float[Array, "*shape"],
    omega: Float[Array, "*shape"],
    radius: Float[Array, "*shape"],
) -> tuple[
    Float[Array, "*shape"],
    Float[Array, "*shape"],
    Float[Array, "*shape"],
    Float[Array, "*shape"],
]:
    r"""The derivatives of `transverse_crossing`, in closed form.

    They are a fraction of what automatic differentiation makes, and may be
    differentiated again.

    Args:
        d0: Transverse impact parameter, in mm.
        omega: Curvature, in 1/mm.
        radius: Radius of the cylinder, in mm; `within_reach`.

    Returns:
        Those of the azimuth to `d0` and `omega`, then those of the arc.
    """
    shrink = 1 - omega * d0
    square = radius**2 + d0**2
    normal = (d0 - omega * square / 2) / shrink
    chord2 = (radius**2 - d0**2) / shrink
    chord = jnp.sqrt(chord2)
    per_normal = 1 / jnp.sqrt(radius**2 - normal**2)
    half = omega * chord / 2
    # At a given curvature the arc grows by this when the chord does.
    per_chord = 1 / jnp.sqrt(1 - half**2)
    return (
        per_normal * (1 + omega * normal / shrink),
        per_normal * (d0 * normal - square / 2) / shrink,
        per_chord * (omega * chord2 - 2 * d0) / (2 * chord * shrink),
        per_chord * d0 * chord / (2 * shrink)
        + chord2 / 2 * _arcsine_ratio_slope(half, per_chord),
    )


def _arcsine_ratio_slope(
    x: Float[Array, "*shape"], arcsine_slope: Float[Array, "*shape"]
) -> Float[Array, "*shape"]:
    # The derivative of arcsin(x) / x, given that of arcsin(x).
    small = jnp.abs(x) < 3e-2
    safe = jnp.where(small, 0.5, x)
    y = jnp.where(small, x, 0.0) ** 2
    series = 1 / 3 + y * (3 / 10 + y * (15 / 56 + y * (35 / 144 + y * 315 / 1408)))
    exact = (arcsine_slope - jnp.arcsin(safe) / safe) / safe
    return jnp.where(small, x * series, exact)
