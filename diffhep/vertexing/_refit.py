"""Momenta of tracks, improved by the vertex that they come from."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ..helix import curvature, move_perigee
from ..numerics import inverse_spd, is_positive_definite, matmul, matvec, wrap_angle
from ._fit import VertexFit


class RefittedTracks(eqx.Module):
    """Tracks at a vertex that they are taken to come from."""

    momentum: Float[Array, "tracks 3"]
    """(phi [rad], theta [rad], q/p [1/GeV]) at the vertex; phi in [-pi, pi). Zero in
    dead slots."""
    covariance: Float[Array, "tracks 3 3"]
    """Covariance of `momentum`."""
    vertex_covariance: Float[Array, "tracks 3 3"]
    """Covariance of the position of the vertex, in mm (rows), and `momentum`
    (columns)."""
    mask: Bool[Array, " tracks"]
    """Which tracks were refitted: those alive with a covariance that is positive
    definite."""


def refit_tracks(
    parameters: Float[Array, "tracks 5"],
    covariance: Float[Array, "tracks 5 5"],
    mask: Bool[Array, " tracks"],
    field: Float[Array, ""],
    *,
    fit: VertexFit,
) -> RefittedTracks:
    r"""The momenta of tracks at their common vertex, with all that it says about them.

    Billoir and Qian (NIM A311 (1992) 139) fit vertex and momenta together. The vertex
    alone comes from `fit_vertex`; given it, each track is a problem of its own. With
    $r$ its impact parameters about the vertex $v$, $p$ its momentum there, $C$ their
    covariance and $g = C_{pr} C_{rr}^{-1}$,

    $$\hat p = p - g r, \quad
      K = \frac{\partial p}{\partial v} - g\,\frac{\partial r}{\partial v}, \quad
      \mathrm{cov}(\hat p) = C_{pp} - g C_{rp} + K\,\mathrm{cov}(v) K^T, \quad
      \mathrm{cov}(v, \hat p) = \mathrm{cov}(v) K^T.$$

    What is left of $p$ without $r$ is independent of the vertex, whatever the weights
    of the fit: so the covariances are right for each of them. Two tracks share
    $\mathrm{cov}(\hat p_i, v)\,\mathrm{cov}(v)^{-1}\,\mathrm{cov}(v, \hat p_j)$.

    Args:
        parameters: Track parameters about the origin; dead slots may hold anything.
        covariance: Their covariance.
        mask: Which tracks are alive.
        field: Magnetic field along z, in T.
        fit: Their vertex, a single one. A track of weight zero is treated as if it came
            from there, too.

    Returns:
        The refitted tracks.
    """
    usable = mask & jax.vmap(is_positive_definite)(covariance)
    eye = jnp.eye(5, dtype=covariance.dtype)[None, :, :]
    momentum, spread, shared = jax.vmap(_refit, (0, 0, None, None, None))(
        # A polar angle of one is as good as any whose sine is not zero.
        jnp.where(usable[:, None], parameters, 1.0),
        jnp.where(usable[:, None, None], covariance, eye),
        fit.position,
        fit.covariance,
        field,
    )
    return RefittedTracks(
        momentum=jnp.where(usable[:, None], momentum, 0.0),
        covariance=jnp.where(usable[:, None, None], spread, 0.0),
        vertex_covariance=jnp.where(usable[:, None, None], shared, 0.0),
        mask=usable,
    )


def _refit(
    parameters: Float[Array, " 5"],
    covariance: Float[Array, "5 5"],
    position: Float[Array, " 3"],
    vertex: Float[Array, "3 3"],
    field: Float[Array, ""],
) -> tuple[Float[Array, " 3"], Float[Array, "3 3"], Float[Array, "3 3"]]:
    moved, spread = move_perigee(parameters, covariance, position, field)
    gain = matmul(spread[2:, :2], inverse_spd(spread[:2, :2]))
    impact_slopes, turn_slopes = _slopes(moved, field)
    slopes = turn_slopes - matmul(gain, impact_slopes)
    alone = spread[2:, 2:] - matmul(gain, spread[:2, 2:])
    shared = matmul(vertex, slopes.T)
    momentum = moved[2:] - matvec(gain, moved[:2])
    wrapped = jnp.where(jnp.arange(3) == 0, wrap_angle(momentum), momentum)
    return wrapped, alone + matmul(slopes, shared), shared


def _slopes(
    moved: Float[Array, " 5"], field: Float[Array, ""]
) -> tuple[Float[Array, "2 3"], Float[Array, "3 3"]]:
    # Derivatives of (d0, z0) and of (phi, theta, q/p) to the reference. The arc from
    # the old one grows by the component along the track over kappa.
    sine, cosine = jnp.sin(moved[2]), jnp.cos(moved[2])
    omega = curvature(moved, field)
    kappa = 1 - omega * moved[0]
    cotangent = jnp.cos(moved[3]) / jnp.sin(moved[3])
    zero, one = jnp.zeros_like(sine), jnp.ones_like(sine)
    along = jnp.stack([cosine, sine, zero]) / kappa
    impact = [
        jnp.stack([sine, -cosine, zero]),
        cotangent * along - jnp.stack([zero, zero, one]),
    ]
    none = jnp.zeros_like(along)
    return jnp.stack(impact), jnp.stack([-omega * along, none, none])
