"""The normal equations of a vertex fit, for any number of vertices at once."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..numerics import matvec
from ._adaptive import AdaptiveWeights, adaptive_weight
from ._impact import Impact, TrackState, chi2_of, impact_at, precision_of


_ROWS = ((0, 1, 2), (1, 3, 4), (2, 4, 5))
_UPPER = ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))


class VertexProblem(eqx.Module):
    """Everything that determines the positions of vertices that share no track."""

    state: TrackState
    weight: Float[Array, "vertices tracks"]
    """Prior weight of each track in each vertex, 0 to 1."""
    assignment: Float[Array, "vertices tracks"]
    """One for the vertex that a track belongs to, zero for the others."""
    mean: Float[Array, "vertices 3"]
    """Centre of the prior, in mm."""
    precision: Float[Array, "vertices 3 3"]
    """Inverse covariance of the prior, in 1/mm^2."""
    adaptive: AdaptiveWeights | None
    """How weights fall with the distance from the vertex; `None` if they do not."""


class NormalEquations(eqx.Module):
    """The linearised problem at given positions."""

    gradient: Float[Array, "vertices 3"]
    """Half the derivative of chi-squared with fixed weights; zero at the solution."""
    information: Float[Array, "vertices 6"]
    """Weighted information of the tracks alone: (xx, xy, xz, yy, yz, zz)."""
    squared: Float[Array, "vertices 6"]
    """The same with squared weights."""
    fall: Float[Array, "vertices 6"] | None
    """What adaptive weights take off the information, by falling with the distance;
    `None` if they do not adapt."""
    compatibility: Float[Array, "vertices tracks"]
    """Chi-squared of each track with its vertex, zero with the others."""
    weight: Float[Array, "vertices tracks"]
    """Weights, adapted to the positions."""


def normal_equations(
    problem: VertexProblem, positions: Float[Array, "vertices 3"]
) -> NormalEquations:
    """The normal equations, linearised at given positions.

    Args:
        problem: The fit.
        positions: The vertices, in mm.

    Returns:
        The equations.
    """
    impact = _impacts(problem, positions)
    compatibility = chi2_of(impact)
    factor = _factor(problem, compatibility)
    weight = problem.weight * factor[None, :]
    slopes, curvatures = _contributions(impact)
    fall = None
    if problem.adaptive is not None:
        # The weight falls by this much of itself per half unit of chi-squared.
        rate = (1 - factor) / problem.adaptive.temperature
        rates = tuple(rate * slope for slope in slopes)
        fall = _reduce(tuple(rates[i] * slopes[j] for i, j in _UPPER), weight)
    return NormalEquations(
        gradient=_gradient(problem, positions, slopes, weight),
        information=_reduce(curvatures, weight),
        squared=_reduce(curvatures, weight**2),
        fall=fall,
        compatibility=problem.assignment * compatibility[None, :],
        weight=weight,
    )


def advance(
    positions: Float[Array, "vertices 3"],
    equations: NormalEquations,
    problem: VertexProblem,
    *,
    follow: bool = True,
) -> Float[Array, "vertices 3"]:
    """One step towards the root of the normal equations.

    That of Gauss and Newton, and where the weights adapt, with what that adds to the
    Jacobian. Gains two to four digits: what is neglected is how covariances and
    directions of the tracks change with the vertex.

    Args:
        positions: The vertices, in mm.
        equations: The normal equations there.
        problem: The fit.
        follow: Whether the step knows that the weights adapt. It is slower if not, but
            goes downhill from anywhere.

    Returns:
        The new positions.
    """
    prior = jnp.stack([problem.precision[:, i, j] for i, j in _UPPER], axis=1)
    curvature = equations.information + prior
    if follow and equations.fall is not None:
        curvature = curvature - equations.fall
    move = _solve(curvature, equations.gradient)
    # Never leave for infinity: the fit is not converged and stays where it is.
    usable = jnp.all(jnp.isfinite(move), axis=1, keepdims=True)
    return positions - jnp.where(usable, move, 0.0)


def optimality(
    positions: Float[Array, " unknowns"], problem: VertexProblem
) -> Float[Array, " unknowns"]:
    """The condition that the flattened positions fulfil: the gradient vanishes.

    Args:
        positions: The vertices one after another, in mm.
        problem: The fit.

    Returns:
        The gradient of the normal equations, in 1/mm.
    """
    vertices = jnp.reshape(positions, (-1, 3))
    impact = _impacts(problem, vertices)
    weight = problem.weight * _factor(problem, chi2_of(impact))[None, :]
    slopes, _ = _contributions(impact)
    return jnp.reshape(_gradient(problem, vertices, slopes, weight), (-1,))


def symmetric(upper: Float[Array, "vertices 6"]) -> Float[Array, "vertices 3 3"]:
    """Symmetric matrices from their upper triangles.

    Args:
        upper: The elements (xx, xy, xz, yy, yz, zz).

    Returns:
        The matrices.
    """
    return upper[:, jnp.asarray(_ROWS)]


def matvec3(
    matrices: Float[Array, "vertices 3 3"], vectors: Float[Array, "vertices 3"]
) -> Float[Array, "vertices 3"]:
    """The product of each matrix with its vector.

    Args:
        matrices: Matrices.
        vectors: Vectors.

    Returns:
        Vectors.
    """
    return jax.vmap(matvec)(matrices, vectors)


def _impacts(problem: VertexProblem, positions: Float[Array, "vertices 3"]) -> Impact:
    # About its vertex; about the origin where a track has none.
    return impact_at(problem.state, positions.T @ problem.assignment)


def _factor(
    problem: VertexProblem, compatibility: Float[Array, " tracks"]
) -> Float[Array, " tracks"]:
    if problem.adaptive is None:
        return jnp.ones_like(compatibility)
    return adaptive_weight(compatibility, problem.adaptive)


def _gradient(
    problem: VertexProblem,
    positions: Float[Array, "vertices 3"],
    slopes: tuple[Float[Array, " tracks"], ...],
    weight: Float[Array, "vertices tracks"],
) -> Float[Array, "vertices 3"]:
    pull = matvec3(problem.precision, positions - problem.mean)
    return _reduce(slopes, weight) + pull


def _solve(
    upper: Float[Array, "vertices 6"], right: Float[Array, "vertices 3"]
) -> Float[Array, "vertices 3"]:
    # By cofactors, element by element: a tenth of the code of a factorisation.
    xx, xy, xz, yy, yz, zz = (upper[:, k] for k in range(6))
    x, y, z = (right[:, k] for k in range(3))
    cxx, cxy, cxz = yy * zz - yz * yz, xz * yz - xy * zz, xy * yz - xz * yy
    cyy, cyz, czz = xx * zz - xz * xz, xy * xz - xx * yz, xx * yy - xy * xy
    determinant = xx * cxx + xy * cxy + xz * cxz
    # No step where there is nothing but rounding: parallel tracks have no vertex.
    least = 4 * jnp.finfo(determinant.dtype).eps
    good = jnp.abs(determinant) > least * jnp.abs(xx * yy * zz)
    determinant = jnp.where(good, determinant, jnp.inf)
    rows = (
        cxx * x + cxy * y + cxz * z,
        cxy * x + cyy * y + cyz * z,
        cxz * x + cyz * y + czz * z,
    )
    return jnp.stack([row / determinant for row in rows], axis=1)


def _contributions(
    impact: Impact,
) -> tuple[tuple[Float[Array, " tracks"], ...], tuple[Float[Array, " tracks"], ...]]:
    # J^T S^-1 r and the upper triangle of J^T S^-1 J, J = d(d0, z0) / d(x, y, z).
    p_dd, p_dz, p_zz = precision_of(impact)
    jx, jy = impact.sine, -impact.cosine
    kx, ky = impact.gradient_x, impact.gradient_y
    # The rows of J^T S^-1; the derivative of z0 in z is -1.
    ax, bx = jx * p_dd + kx * p_dz, jx * p_dz + kx * p_zz
    ay, by = jy * p_dd + ky * p_dz, jy * p_dz + ky * p_zz
    az, bz = -p_dz, -p_zz
    d0, z0 = impact.d0, impact.z0
    slopes = (ax * d0 + bx * z0, ay * d0 + by * z0, az * d0 + bz * z0)
    xx, xy, yy = ax * jx + bx * kx, ax * jy + bx * ky, ay * jy + by * ky
    return slopes, (xx, xy, -bx, yy, -by, p_zz)


def _reduce(
    values: tuple[Float[Array, " tracks"], ...],
    weight: Float[Array, "vertices tracks"],
) -> Float[Array, "vertices components"]:
    # One product per component. Stacked first, the compiler would evaluate the whole
    # chain anew for each element of the stack (measured: 50 times slower with jvp).
    return jnp.stack([weight @ value for value in values], axis=1)
