"""Impact parameters of tracks about a point, with exact derivatives in closed form.

All arrays have the axis `tracks` last and nothing is a small matrix, so that a whole
evaluation fuses into a few elementwise loops, also under `vmap`.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ..helix import KAPPA
from ..numerics import dot_present
from ._approach import Perigee, approach_point, slopes_in_curvature
from ._spread import UPPER, split_rows, spread


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
    covariance: Float[Array, "15 tracks"]
    """Upper triangle of the covariance, row by row."""
    one: Float[Array, " tracks"]
    """One, as far as rounding goes: see `impact_at`."""


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
    d0, z0, phi, theta, charge_over_momentum = split_rows(
        jnp.where(mask[None, :], parameters.T, 1.0)
    )
    rows, columns = (jnp.asarray(x) for x in zip(*UPPER, strict=True))
    unit = (rows == columns).astype(covariance.dtype)
    upper = jnp.where(mask[None, :], covariance[:, rows, columns].T, unit[:, None])
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


def select_tracks(state: TrackState, slots: Int[Array, " selected"]) -> TrackState:
    """Some of the tracks, in any order.

    Args:
        state: The tracks.
        slots: Their slots.

    Returns:
        Their states.
    """
    return jax.tree.map(lambda x: x[..., slots], state)


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
    perigee = Perigee(state.d0, sine, cosine, omega)
    approach = approach_point(perigee, x, y)
    d0, arc, sine_new, cosine_new, kappa = approach
    d0_omega, arc_omega = slopes_in_curvature(approach, perigee, x, y)
    cotangent, tilt = state.cotangent, state.cotangent / kappa
    arc_theta = -omega * cotangent * arc_omega
    # Derivatives in (d0, phi, theta, q/p).
    d0_row = (
        cosine * cosine_new + sine * sine_new,
        cosine_new * x + sine_new * y,
        -omega * cotangent * d0_omega,
        state.slope * d0_omega,
    )
    z0_row = (
        tilt * (sine * cosine_new - cosine * sine_new),
        tilt * (cosine_new * y - sine_new * x),
        cotangent * arc_theta - arc * (1 + cotangent**2),
        cotangent * state.slope * arc_omega,
    )
    spreads = spread(state.covariance, d0_row, z0_row)
    # The compiler computes a sum of products anew for each of its uses, unless it ends
    # in something expensive: a division by one, backwards too. The compiled gradient is
    # a quarter smaller with it.
    variance_d0, mixed, variance_z0 = (x / state.one for x in spreads)
    return Impact(
        d0=d0,
        z0=state.z0 + arc * cotangent - z,
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
    across_moved = tuple(dot_present(across, row) for row in rows)
    along_moved = tuple(dot_present(along, row) for row in rows)
    return eqx.tree_at(
        lambda i: (i.variance_d0, i.covariance, i.variance_z0),
        impact,
        (
            impact.variance_d0 + dot_present(across, across_moved),
            impact.covariance + dot_present(across, along_moved),
            impact.variance_z0 + dot_present(along, along_moved),
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
