"""The normal equations of a vertex fit, for any number of vertices at once."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..numerics import inverse_3x3, inverse_spd, matvec
from ._adaptive import AdaptiveWeights, adaptive_weight
from ._impact import Impact, TrackState, chi2_of, impact_at, precision_of


_ROWS = ((0, 1, 2), (1, 3, 4), (2, 4, 5))


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
    information: Float[Array, "vertices 3 3"]
    """Weighted information of the tracks, without the prior."""
    squared: Float[Array, "vertices 3 3"]
    """The same with squared weights."""
    compatibility: Float[Array, " tracks"]
    """Chi-squared of each track with its vertex."""
    weight: Float[Array, "vertices tracks"]
    """Weights, adapted to the positions."""


def impacts(problem: VertexProblem, positions: Float[Array, "vertices 3"]) -> Impact:
    """Impact parameters of each track about its vertex.

    Args:
        problem: The fit.
        positions: The vertices, in mm.

    Returns:
        Impact parameters; about the origin where a track has no vertex.
    """
    points = positions.T @ problem.assignment
    return impact_at(problem.state, points)


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
    impact = impacts(problem, positions)
    compatibility = chi2_of(impact)
    weight = _weights(problem, compatibility)
    slopes, curvatures = _contributions(impact)
    pull = matvec3(problem.precision, positions - problem.mean)
    return NormalEquations(
        gradient=_reduce(slopes, weight) + pull,
        information=_symmetric(_reduce(curvatures, weight)),
        squared=_symmetric(_reduce(curvatures, weight**2)),
        compatibility=compatibility,
        weight=weight,
    )


def gauss_newton(
    problem: VertexProblem, positions: Float[Array, "vertices 3"]
) -> tuple[Float[Array, "vertices 3"], Float[Array, " vertices"]]:
    """One step of Gauss and Newton, with the weights held fixed within the step.

    Args:
        problem: The fit.
        positions: Where to linearise, in mm.

    Returns:
        The new positions, and the squared length of the step in standard deviations.
    """
    equations = normal_equations(problem, positions)
    inverse = jax.vmap(inverse_spd)(equations.information + problem.precision)
    step = matvec3(inverse, equations.gradient)
    return positions - step, jnp.sum(step * equations.gradient, axis=1)


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
    return jnp.reshape(normal_equations(problem, vertices).gradient, (-1,))


def newton(
    positions: Float[Array, " unknowns"], problem: VertexProblem
) -> Float[Array, " unknowns"]:
    """One step towards the root of `optimality`, with its exact Jacobian.

    The weights and the covariances of the impact parameters move with the vertex, which
    Gauss and Newton neglect: they would gain one or two digits a step, and this doubles
    them.

    Args:
        positions: The vertices one after another, in mm.
        problem: The fit.

    Returns:
        The new positions.
    """
    number = positions.shape[0] // 3
    probes = jnp.tile(jnp.eye(3, dtype=positions.dtype), (1, number))
    # The vertices share no track, so that three probes give all 3 x 3 blocks.
    value, columns = jax.vmap(
        lambda probe: jax.jvp(lambda y: optimality(y, problem), (positions,), (probe,)),
        out_axes=(None, 0),
    )(probes)
    blocks = jnp.moveaxis(jnp.reshape(columns, (3, number, 3)), 0, -1)
    gradient = jnp.reshape(value, (number, 3))
    step = matvec3(jax.vmap(inverse_3x3)(blocks), gradient)
    return positions - jnp.reshape(step, (-1,))


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


def _weights(
    problem: VertexProblem, compatibility: Float[Array, " tracks"]
) -> Float[Array, "vertices tracks"]:
    if problem.adaptive is None:
        return problem.weight
    return problem.weight * adaptive_weight(compatibility, problem.adaptive)[None, :]


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


def _symmetric(upper: Float[Array, "vertices 6"]) -> Float[Array, "vertices 3 3"]:
    return jnp.stack(
        [jnp.stack([upper[:, k] for k in r], axis=1) for r in _ROWS], axis=1
    )
