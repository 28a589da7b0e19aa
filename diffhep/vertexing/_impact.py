"""Impact parameters of tracks about a point, with exact derivatives in closed form.

All arrays have the axis `tracks` last and nothing is a small matrix, so that a whole
evaluation fuses into a few elementwise loops, also under `vmap`.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ..helix import KAPPA


# Taylor coefficients, lowest order first: arctan(y)/y in y^2; (x - sin x)/x^3 in x^2.
# Good to rounding for helices that turn by up to half a radian between the perigee and
# the point, and to one part in 1e7 for any.
_ARCTAN = tuple((-1.0) ** k / (2 * k + 1) for k in range(8))
_CUBIC = (1 / 6, -1 / 120, 1 / 5040, -1 / 362880, 1 / 39916800)
_PAIRS = tuple((a, b) for a in range(5) for b in range(a, 5))


class TrackState(eqx.Module):
    """What of each track does not depend on the point."""

    d0: Float[Array, " tracks"]
    z0: Float[Array, " tracks"]
    sine: Float[Array, " tracks"]
    """Sine of the azimuth of the direction."""
    cosine: Float[Array, " tracks"]
    cotangent: Float[Array, " tracks"]
    """Cotangent of the polar angle."""
    omega: Float[Array, " tracks"]
    """Curvature, in 1/mm."""
    slope: Float[Array, " tracks"]
    """Derivative of the curvature in q/p, in GeV/mm."""
    covariance: tuple[Float[Array, " tracks"], ...]
    """Upper triangle of the covariance, row by row. In pieces: the derivative of each
    slice of one array would be a whole array."""
    one: Float[Array, " tracks"]
    """One, as far as rounding goes: see `_keep`."""


class Impact(eqx.Module):
    """Impact parameters about a point, their covariance, and how they move with it."""

    d0: Float[Array, " tracks"]
    """Transverse impact parameter, in mm."""
    z0: Float[Array, " tracks"]
    """Longitudinal distance at the transverse closest approach, in mm."""
    sine: Float[Array, " tracks"]
    """Sine of the azimuth of the direction there: the derivative of d0 in x."""
    cosine: Float[Array, " tracks"]
    """Its cosine: minus the derivative of d0 in y."""
    gradient_x: Float[Array, " tracks"]
    """Derivative of z0 in x of the point; that in z is -1."""
    gradient_y: Float[Array, " tracks"]
    variance_d0: Float[Array, " tracks"]
    """Variance of d0, in mm^2."""
    covariance: Float[Array, " tracks"]
    """Covariance of d0 and z0, in mm^2."""
    variance_z0: Float[Array, " tracks"]


def track_state(
    parameters: Float[Array, "tracks 5"],
    covariance: Float[Array, "tracks 5 5"],
    mask: Bool[Array, " tracks"],
    field: Float[Array, ""],
) -> TrackState:
    """What of each track does not depend on the point. Dead slots become safe.

    Args:
        parameters: Track parameters about the origin.
        covariance: Their covariance.
        mask: Which tracks are alive.
        field: Magnetic field along z, in T.

    Returns:
        The states; those of dead slots are of a harmless track with unit covariance.
    """
    # A polar angle of one is as good as any whose sine is not zero.
    d0, z0, phi, theta, charge_over_momentum = jnp.where(
        mask[None, :], jnp.moveaxis(parameters, 1, 0), 1.0
    )
    upper = tuple(
        jnp.where(mask, covariance[:, a, b], float(a == b)) for a, b in _PAIRS
    )
    sine_theta = jnp.sin(theta)
    slope = KAPPA * field / sine_theta
    sine, cosine = jnp.sin(phi), jnp.cos(phi)
    return TrackState(
        d0=d0,
        z0=z0,
        sine=sine,
        cosine=cosine,
        cotangent=jnp.cos(theta) / sine_theta,
        omega=slope * charge_over_momentum,
        slope=slope,
        covariance=upper,
        # A constant: no gradient is lost.
        one=jax.lax.stop_gradient(sine**2 + cosine**2),
    )


def impact_at(state: TrackState, point: Float[Array, "3 #tracks"]) -> Impact:
    r"""Impact parameters about a point, with covariance.

    The same as `helix.perigee_at` and its Jacobians by automatic differentiation (a
    test compares them), at a fraction of the cost. With $n$ the normal and $t$ the
    direction at the closest approach, $s$ the arc from the perigee to there, and
    $\kappa = 1 - \omega d_0'$:

    - $\partial d_0'/\partial v = -n$ and $\partial s/\partial v = t/\kappa$;
    - $\partial d_0'/\partial\phi = t \cdot v$ and
      $\partial s/\partial\phi = n \cdot v/\kappa$: a rotation about the origin;
    - $\partial d_0'/\partial\omega$ is minus half the square of the chord.

    Args:
        state: The tracks.
        point: Points (x, y, z), one for each track or one for all, in mm.

    Returns:
        The impact parameters. The helix must turn by less than half from the perigee.
    """
    x, y, z = point
    sine, cosine, omega = state.sine, state.cosine, state.omega
    offset_x, offset_y = -state.d0 * sine - x, state.d0 * cosine - y
    # The normal at the closest approach, times kappa; from which no angle is needed.
    scaled_sine, scaled_cosine = sine + omega * offset_x, cosine - omega * offset_y
    # Zero only at the axis of the helix, metres away: a fit that strays there fails.
    square = jnp.maximum(scaled_sine**2 + scaled_cosine**2, 1e-6)
    kappa = jnp.sqrt(square)
    sine_new, cosine_new = scaled_sine / kappa, scaled_cosine / kappa
    across = offset_y * cosine - offset_x * sine
    along = offset_x * cosine + offset_y * sine
    d0 = (2 * across - omega * (offset_x**2 + offset_y**2)) / (1 + kappa)
    # tan(turn / 2) = -omega * half.
    half = along / (kappa + jnp.maximum(1 - omega * across, 1e-3 - kappa))
    arc = -2 * half * _arctan_ratio(omega * half)
    d0, arc = _keep((d0, arc), state.one)
    z0 = state.z0 + arc * state.cotangent - z

    chord_x = x - d0 * sine_new + state.d0 * sine
    chord_y = y + d0 * cosine_new - state.d0 * cosine
    d0_omega = -(chord_x**2 + chord_y**2) / 2
    turn = omega * arc
    arc_omega = (arc * d0 - omega * arc**3 * _horner(_CUBIC, turn**2)) / kappa
    cotangent, tilt = state.cotangent, state.cotangent / kappa
    arc_theta = -omega * cotangent * arc_omega
    # Derivatives in (d0, z0, phi, theta, q/p).
    d0_row = (
        cosine * cosine_new + sine * sine_new,
        None,
        cosine_new * x + sine_new * y,
        -omega * cotangent * d0_omega,
        state.slope * d0_omega,
    )
    z0_row = (
        tilt * (sine * cosine_new - cosine * sine_new),
        1.0,
        tilt * (cosine_new * y - sine_new * x),
        cotangent * arc_theta - arc * (1 + cotangent**2),
        cotangent * state.slope * arc_omega,
    )
    d0_row, z0_row = _keep((d0_row, z0_row), state.one)
    d0_moved = _apply(state.covariance, d0_row)
    z0_moved = _apply(state.covariance, z0_row)
    spread = (_dot(d0_row, d0_moved), _dot(d0_row, z0_moved), _dot(z0_row, z0_moved))
    variance_d0, mixed, variance_z0 = _keep(spread, state.one)
    return Impact(
        d0=d0,
        z0=z0,
        sine=sine_new,
        cosine=cosine_new,
        gradient_x=tilt * cosine_new,
        gradient_y=tilt * sine_new,
        variance_d0=variance_d0,
        covariance=mixed,
        variance_z0=variance_z0,
    )


def with_vertex_covariance(impact: Impact, covariance: Float[Array, "3 3"]) -> Impact:
    """The impact parameters with the uncertainty of the point added to theirs.

    Args:
        impact: Impact parameters about a point.
        covariance: Covariance of the point, in mm^2, taken to be independent of the
            tracks.

    Returns:
        The same impact parameters, with larger covariance.
    """
    across = (impact.sine, -impact.cosine, None)
    along = (impact.gradient_x, impact.gradient_y, -1.0)
    rows = tuple(tuple(covariance[a, b] for b in range(3)) for a in range(3))
    across_moved = tuple(_dot(across, row) for row in rows)
    along_moved = tuple(_dot(along, row) for row in rows)
    return eqx.tree_at(
        lambda i: (i.variance_d0, i.covariance, i.variance_z0),
        impact,
        (
            impact.variance_d0 + _dot(across, across_moved),
            impact.covariance + _dot(across, along_moved),
            impact.variance_z0 + _dot(along, along_moved),
        ),
    )


def precision_of(
    impact: Impact,
) -> tuple[Float[Array, " tracks"], Float[Array, " tracks"], Float[Array, " tracks"]]:
    """The inverse of the covariance of (d0, z0).

    Args:
        impact: Impact parameters.

    Returns:
        Its elements (d0 d0, d0 z0, z0 z0), in 1/mm^2.
    """
    determinant = impact.variance_d0 * impact.variance_z0 - impact.covariance**2
    return (
        impact.variance_z0 / determinant,
        -impact.covariance / determinant,
        impact.variance_d0 / determinant,
    )


def chi2_of(impact: Impact) -> Float[Array, " tracks"]:
    """The squared distance from the point, in standard deviations.

    Args:
        impact: Impact parameters.

    Returns:
        Chi-squared of two degrees of freedom for each track.
    """
    p_dd, p_dz, p_zz = precision_of(impact)
    d0, z0 = impact.d0, impact.z0
    return d0 * (p_dd * d0 + 2 * p_dz * z0) + p_zz * z0**2


def _keep(values: Any, one: Float[Array, " tracks"]) -> Any:
    # The compiler computes a sum of products anew for each of its uses, unless it ends
    # in something expensive. Divided by one, backwards too, the gradient takes half
    # the time to run and to compile.
    return jax.tree.map(lambda x: x / one if eqx.is_array(x) else x, values)


def _arctan_ratio(x: Float[Array, " tracks"]) -> Float[Array, " tracks"]:
    # arctan(x) / x, smooth at zero, without a branch or a library call: after halving
    # the angle twice the argument is below 0.42 for any x, and mostly below 0.07.
    factor = jnp.ones_like(x)
    for _ in range(2):
        divisor = 1 + jnp.sqrt(1 + x**2)
        x = x / divisor
        factor = factor * divisor
    return 4 * _horner(_ARCTAN, x**2) / factor


def _horner(
    coefficients: tuple[float, ...], x: Float[Array, " tracks"]
) -> Float[Array, " tracks"]:
    value = jnp.full_like(x, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        value = value * x + coefficient
    return value


def _apply(upper: tuple[Float[Array, " tracks"], ...], row: tuple) -> tuple:
    # The symmetric matrix times a vector whose absent elements are None.
    place = {pair: k for k, pair in enumerate(_PAIRS)}
    return tuple(
        _dot(row, tuple(upper[place[min(a, b), max(a, b)]] for b in range(5)))
        for a in range(5)
    )


def _dot(left: tuple, right: tuple) -> Array:
    products = [a * b for a, b in zip(left, right, strict=True) if a is not None]
    total = products[0]
    for product in products[1:]:
        total = total + product
    return total
