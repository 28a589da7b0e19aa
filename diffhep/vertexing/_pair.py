"""The vertex of two tracks, the tracks improved by it, and the errors of both."""

import equinox as eqx
import jax
import jax.numpy as jnp
import optimistix as optx
from jaxtyping import Array, Bool, Float

from ..helix import momentum, perigee_at, perigee_jacobian
from ..numerics import inverse_spd, matmul, matvec
from ._fit import fit_vertex


# Inverse variance, in 1/mm^2, of what is known of the vertex besides: it is within a
# metre.
_VAGUE = 1e-6
# Each improves the tracks to the square of the error before.
_REFITS = 2


class PairFit(eqx.Module):
    """Two tracks from one vertex."""

    position: Float[Array, " 3"]
    """The vertex (x, y, z), in mm."""
    momenta: Float[Array, "2 3"]
    """Momenta of the improved tracks at the vertex, in GeV."""
    covariance: Float[Array, "9 9"]
    """Covariance of position and both momenta."""
    chi2: Float[Array, ""]
    """Chi-squared of the vertex, of one degree of freedom."""
    converged: Bool[Array, ""]
    """Whether the vertex is a solution. If not, all means nothing."""


def fit_pair(
    parameters: Float[Array, "2 5"],
    covariance: Float[Array, "2 5 5"],
    field: Float[Array, ""],
    *,
    start: Float[Array, " 3"],
    num_steps: int = 10,
    adjoint: optx.AbstractAdjoint | None = None,
) -> PairFit:
    """The vertex of two tracks, and their momenta there.

    The tracks are improved such that they meet at the vertex: with $K$ the gain of a
    track's impact parameters $r$ about it, $q - K r$, linearised anew at the result.

    Args:
        parameters: Track parameters about the origin.
        covariance: Their covariance.
        field: Magnetic field along z, in T.
        start: Where to begin, in mm. No gradient flows to it.
        num_steps: Number of steps of the vertex fit.
        adjoint: How the gradient crosses it.

    Returns:
        The vertex and the tracks, with the covariance of all to first order.
    """
    ones = jnp.ones_like(parameters[:, 0])
    fit = fit_vertex(
        parameters,
        covariance,
        ones,
        ones > 0,
        field,
        prior_mean=jnp.zeros_like(start),
        prior_precision=_VAGUE * jnp.eye(3, dtype=start.dtype),
        start=start,
        num_steps=num_steps,
        adjoint=adjoint,
    )
    vertex = fit.position
    improved = jax.vmap(_improve, (0, 0, None, None))(
        parameters, covariance, vertex, field
    )
    momenta = jax.vmap(_momentum_at, (0, None, None))(improved, vertex, field)
    return PairFit(
        position=vertex,
        momenta=momenta,
        covariance=_covariance(improved, covariance, vertex, field),
        chi2=fit.chi2,
        converged=fit.converged,
    )


def _momentum_at(
    parameters: Float[Array, " 5"], point: Float[Array, " 3"], field: Float[Array, ""]
) -> Float[Array, " 3"]:
    return momentum(perigee_at(parameters, point, field))


def _slopes(
    parameters: Float[Array, " 5"], point: Float[Array, " 3"], field: Float[Array, ""]
) -> tuple[Float[Array, "2 5"], Float[Array, "2 3"]]:
    # Of the impact parameters, in the track and in the point.
    to_point = jax.jacfwd(perigee_at, argnums=1)(parameters, point, field)
    return perigee_jacobian(parameters, point, field)[:2], to_point[:2]


def _improve(
    measured: Float[Array, " 5"],
    covariance: Float[Array, "5 5"],
    vertex: Float[Array, " 3"],
    field: Float[Array, ""],
) -> Float[Array, " 5"]:
    track = measured
    for _ in range(_REFITS):
        slope, _ = _slopes(track, vertex, field)
        gain, _ = _gain(slope, covariance)
        miss = perigee_at(track, vertex, field)[:2]
        track = measured - matvec(gain, miss + matvec(slope, measured - track))
    return track


def _gain(
    slope: Float[Array, "2 5"], covariance: Float[Array, "5 5"]
) -> tuple[Float[Array, "5 2"], Float[Array, "2 2"]]:
    moved = matmul(covariance, slope.T)
    precision = inverse_spd(matmul(slope, moved))
    return matmul(moved, precision), precision


def _covariance(
    improved: Float[Array, "2 5"],
    covariance: Float[Array, "2 5 5"],
    vertex: Float[Array, " 3"],
    field: Float[Array, ""],
) -> Float[Array, "9 9"]:
    slope, to_point = jax.vmap(_slopes, (0, None, None))(improved, vertex, field)
    gain, precision = jax.vmap(_gain)(slope, covariance)
    pull = jax.vmap(matmul)(jnp.swapaxes(to_point, 1, 2), precision)
    information = jnp.sum(jax.vmap(matmul)(pull, to_point), axis=0)
    spread = inverse_spd(information + _VAGUE * jnp.eye(3, dtype=vertex.dtype))
    # What the vertex, and then the improved tracks, do if a measured track moves.
    by_track = [-matmul(spread, matmul(pull[i], slope[i])) for i in range(2)]
    vertex_moves = jnp.concatenate(by_track, axis=1)
    blocks = [vertex_moves]
    momentum_slopes = jax.jacfwd(_momentum_at, argnums=(0, 1))
    for i in range(2):
        misses = matmul(to_point[i], vertex_moves)
        own = jnp.zeros_like(misses).at[:, 5 * i : 5 * i + 5].set(slope[i])
        change = -matmul(gain[i], misses + own)
        change = change.at[:, 5 * i : 5 * i + 5].add(jnp.eye(5, dtype=change.dtype))
        by_parameters, by_vertex = momentum_slopes(improved[i], vertex, field)
        blocks.append(matmul(by_parameters, change) + matmul(by_vertex, vertex_moves))
    response = jnp.concatenate(blocks, axis=0)
    first = matmul(response[:, :5], matmul(covariance[0], response[:, :5].T))
    second = matmul(response[:, 5:], matmul(covariance[1], response[:, 5:].T))
    return first + second
