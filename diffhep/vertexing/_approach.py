"""Where tracks come closest to a point, seen along the field, with derivatives by hand.

They are those that the fit needs anyway. The compiled gradient of a fit is a sixth
smaller than with what automatic differentiation makes of the formulas.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..numerics import absent_if_zero, dot_present, zero_if_absent


_Tracks = Float[Array, " tracks"]
# Taylor coefficients, lowest order first: arctan(y)/y in y^2; (x - sin x)/x^3 in x^2.
# Good to rounding for helices that turn by up to half a radian between the perigee and
# the point, and to one part in 1e7 for any.
_ARCTAN = tuple((-1.0) ** k / (2 * k + 1) for k in range(8))
_CUBIC = (1 / 6, -1 / 120, 1 / 5040, -1 / 362880, 1 / 39916800)


class Perigee(NamedTuple):
    """What of each track its path in the transverse plane depends on."""

    d0: _Tracks
    """Transverse impact parameter about the origin, in mm."""
    sine: _Tracks
    """Sine of the azimuth of the direction there. Derivatives in sine and cosine are
    those along the unit circle."""
    cosine: _Tracks
    omega: _Tracks
    """Curvature, in 1/mm."""


class Approach(NamedTuple):
    """The closest approach of each track."""

    d0: _Tracks
    """Transverse impact parameter about the point, in mm."""
    arc: _Tracks
    """Transverse arc from the perigee about the origin, in mm."""
    sine: _Tracks
    """Sine of the azimuth of the direction there."""
    cosine: _Tracks
    kappa: _Tracks
    """One minus the product of curvature and `d0`."""


@jax.custom_jvp
def approach_point(
    perigee: Perigee, x: Float[Array, " #tracks"], y: Float[Array, " #tracks"]
) -> Approach:
    """The closest approach to a point in the transverse plane.

    Args:
        perigee: The tracks.
        x: Points, one for each track or one for all, in mm.
        y: Their other coordinate.

    Returns:
        The approach. The helix must turn by less than half from the perigee.
    """
    d0, sine, cosine, omega = perigee
    offset_x, offset_y = -d0 * sine - x, d0 * cosine - y
    # The normal at the closest approach, times kappa; from which no angle is needed.
    scaled_sine, scaled_cosine = sine + omega * offset_x, cosine - omega * offset_y
    # Zero only at the axis of the helix, metres away: a fit that strays there fails.
    square = jnp.maximum(scaled_sine**2 + scaled_cosine**2, 1e-6)
    kappa = jnp.sqrt(square)
    across = offset_y * cosine - offset_x * sine
    along = offset_x * cosine + offset_y * sine
    # tan(turn / 2) = -omega * half.
    half = along / (kappa + jnp.maximum(1 - omega * across, 1e-3 - kappa))
    return Approach(
        d0=(2 * across - omega * (offset_x**2 + offset_y**2)) / (1 + kappa),
        arc=-2 * half * _arctan_ratio(omega * half),
        sine=scaled_sine / kappa,
        cosine=scaled_cosine / kappa,
        kappa=kappa,
    )


def slopes_in_curvature(
    approach: Approach,
    perigee: Perigee,
    x: Float[Array, " #tracks"],
    y: Float[Array, " #tracks"],
) -> tuple[_Tracks, _Tracks]:
    """The derivatives of the impact parameter and of the arc in the curvature.

    Args:
        approach: The closest approach.
        perigee: The tracks.
        x: Points, in mm.
        y: Their other coordinate.

    Returns:
        The derivatives, in mm^2: minus half the square of the chord; and a series.
    """
    d0, sine, cosine, omega = perigee
    chord_x = x - approach.d0 * approach.sine + d0 * sine
    chord_y = y + approach.d0 * approach.cosine - d0 * cosine
    arc = approach.arc
    bend = omega * arc**3 * _horner(_CUBIC, (omega * arc) ** 2)
    return -(chord_x**2 + chord_y**2) / 2, (arc * approach.d0 - bend) / approach.kappa


def _approach_point_jvp(
    primals: tuple[Any, ...], tangents: tuple[Any, ...]
) -> tuple[Approach, Approach]:
    # With n the normal and t the direction at the approach, dd0'/dv = -n and
    # ds/dv = t / kappa; a change of azimuth is a rotation about the origin.
    (_, sine, cosine, omega), x, y = primals
    approach = approach_point(*primals)
    d0, arc, sine_new, cosine_new, kappa = approach
    d0_omega, arc_omega = slopes_in_curvature(approach, *primals)
    shift, sine_dot, cosine_dot, omega_dot = absent_if_zero(tangents[0])
    x_dot, y_dot = absent_if_zero(tangents[1:])
    turned = dot_present((cosine, -sine), (sine_dot, cosine_dot))
    changes = (shift, turned, omega_dot, x_dot, y_dot)
    across = (
        cosine * cosine_new + sine * sine_new,
        cosine_new * x + sine_new * y,
        d0_omega,
        sine_new,
        -cosine_new,
    )
    along = (
        (sine * cosine_new - cosine * sine_new) / kappa,
        (cosine_new * y - sine_new * x) / kappa,
        arc_omega,
        cosine_new / kappa,
        sine_new / kappa,
    )
    d0_dot, arc_dot = dot_present(across, changes), dot_present(along, changes)
    turn = dot_present((1.0, -omega, -arc), (turned, arc_dot, omega_dot))
    tangent = Approach(
        d0=d0_dot,
        arc=arc_dot,
        sine=dot_present((cosine_new,), (turn,)),
        cosine=dot_present((-sine_new,), (turn,)),
        kappa=dot_present((-omega, -d0), (d0_dot, omega_dot)),
    )
    return approach, Approach(*map(zero_if_absent, tangent, approach))


approach_point.defjvp(_approach_point_jvp, symbolic_zeros=True)


def _arctan_ratio(x: _Tracks) -> _Tracks:
    # arctan(x) / x, smooth at zero, without a branch or a library call: after halving
    # the angle twice the argument is below 0.42 for any x, and mostly below 0.07.
    factor = jnp.ones_like(x)
    for _ in range(2):
        divisor = 1 + jnp.sqrt(1 + x**2)
        x = x / divisor
        factor = factor * divisor
    return 4 * _horner(_ARCTAN, x**2) / factor


def _horner(coefficients: tuple[float, ...], x: _Tracks) -> _Tracks:
    value = jnp.full_like(x, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        value = value * x + coefficient
    return value
