"""Vertex fits: one vertex, or several that share no track."""

import equinox as eqx
import jax
import jax.numpy as jnp
import optimistix as optx
from jaxtyping import Array, Bool, Float

from ..numerics import (
    BlockSolver3,
    cholesky_spd,
    inverse_spd,
    is_positive_definite,
    matmul,
    solve_blocks,
    solve_optimality,
)
from ._adaptive import AdaptiveWeights
from ._impact import track_state
from ._normal import (
    NormalEquations,
    VertexProblem,
    advance,
    matvec3,
    normal_equations,
    optimality,
    symmetric,
)
from ._status import VertexStatus, vertex_status


# Temperatures before the final one, so that a bad start does not lose all tracks.
_ANNEALING = (1024.0, 256.0, 64.0, 16.0, 4.0)
# Cautious steps at the final temperature. The bold ones that follow must start close:
# after 2 of these one event in 2000 found no vertex, after 8 none in 8000.
_SETTLING = 8
# Squared length, in standard deviations, of a step that is as good as none.
_DONE = 1e-4


class VertexFit(eqx.Module):
    """A fitted vertex; with a leading axis `vertices`, several."""

    position: Float[Array, "*vertices 3"]
    """Position (x, y, z), in mm."""
    covariance: Float[Array, "*vertices 3 3"]
    """Covariance of the position given the weights, in mm^2."""
    chi2: Float[Array, "*vertices"]
    """Weighted chi-squared of the tracks, without that of the prior."""
    ndf: Float[Array, "*vertices"]
    """Expectation of `chi2`: for n tracks of unit weight and a wide prior 2 n - 3."""
    weight: Float[Array, "*vertices tracks"]
    """Weights of the tracks in the fit."""
    compatibility: Float[Array, " tracks"]
    """Chi-squared of each track with its vertex, of two degrees of freedom; zero if it
    has none."""
    converged: Bool[Array, "*vertices"]
    """Whether the position is a solution. If not, it is finite and means nothing."""
    status: VertexStatus
    """How the fit ended: a sentence to read, a value to compare with."""


def fit_vertex(
    parameters: Float[Array, "tracks 5"],
    covariance: Float[Array, "tracks 5 5"],
    weight: Float[Array, " tracks"],
    mask: Bool[Array, " tracks"],
    field: Float[Array, ""],
    *,
    prior_mean: Float[Array, " 3"],
    prior_precision: Float[Array, "3 3"],
    start: Float[Array, " 3"],
    num_steps: int = 6,
    adaptive: AdaptiveWeights | None = None,
    adjoint: optx.AbstractAdjoint | None = None,
) -> VertexFit:
    """The common origin of tracks.

    See `fit_vertices`, of which this is the case of one vertex.

    Args:
        parameters: Track parameters about the origin; dead slots may hold anything.
        covariance: Their covariance.
        weight: Weight of each track, 0 to 1.
        mask: Which tracks are alive.
        field: Magnetic field along z, in T.
        prior_mean: Centre of the Gaussian prior, in mm.
        prior_precision: Its inverse covariance, in 1/mm^2, positive definite.
        start: Where to begin, in mm. No gradient flows to it.
        num_steps: Number of steps.
        adaptive: How weights fall with the distance from the vertex, if they do.
        adjoint: How the gradient crosses the fit.

    Returns:
        The vertex.
    """
    fit = fit_vertices(
        parameters,
        covariance,
        weight[None, :],
        mask,
        field,
        assignment=jnp.ones_like(mask)[None, :],
        prior_mean=prior_mean[None, :],
        prior_precision=prior_precision[None, :, :],
        start=start[None, :],
        num_steps=num_steps,
        adaptive=adaptive,
        adjoint=adjoint,
    )
    return VertexFit(
        position=fit.position[0],
        covariance=fit.covariance[0],
        chi2=fit.chi2[0],
        ndf=fit.ndf[0],
        weight=fit.weight[0],
        compatibility=fit.compatibility,
        converged=fit.converged[0],
        status=jax.tree.map(lambda x: x[0], fit.status),
    )


def fit_vertices(
    parameters: Float[Array, "tracks 5"],
    covariance: Float[Array, "tracks 5 5"],
    weight: Float[Array, "vertices tracks"],
    mask: Bool[Array, " tracks"],
    field: Float[Array, ""],
    *,
    assignment: Bool[Array, "vertices tracks"],
    prior_mean: Float[Array, "vertices 3"],
    prior_precision: Float[Array, "vertices 3 3"],
    start: Float[Array, "vertices 3"],
    num_steps: int = 6,
    adaptive: AdaptiveWeights | None = None,
    adjoint: optx.AbstractAdjoint | None = None,
) -> VertexFit:
    r"""The origins of groups of tracks, all in one solve.

    With $r$ the impact parameters $(d_0, z_0)$ of a track about its vertex $v$, $S$
    their covariance there and $J = \partial r/\partial v$, the vertex solves

    $$\sum_i w_i J_i^T S_i^{-1} r_i + P (v - m) = 0,$$

    linearised anew at the solution itself: the fit of Billoir and Qian (NIM A311 (1992)
    139) with the momenta eliminated. With `adaptive` the weights depend on the vertex
    too, and the solution is self-consistent. For fixed weights the covariance is that
    of the weighted estimator (the sandwich), not the inverse of the weighted
    information, which is too small or too large for weights other than 0 and 1.

    A vertex without tracks is the prior. A track whose covariance is not positive
    definite is left out, as if it were dead.

    Args:
        parameters: Track parameters about the origin; dead slots may hold anything.
        covariance: Their covariance.
        weight: Weight of each track in each vertex, 0 to 1.
        mask: Which tracks are alive.
        field: Magnetic field along z, in T.
        assignment: Which tracks belong to which vertex: each to one at most.
        prior_mean: Centres of the Gaussian priors, in mm.
        prior_precision: Their inverse covariances, in 1/mm^2, positive definite.
        start: Where to begin, in mm. No gradient flows to it.
        num_steps: Number of steps, after the annealing that `adaptive` brings.
        adaptive: How weights fall with the distance from the vertex, if they do.
        adjoint: How the gradient crosses the fit: `ImplicitAdjoint` with a solver for
            3 x 3 blocks unless given.

    Returns:
        The vertices, with a leading axis.
    """
    usable = mask & jax.vmap(is_positive_definite)(covariance)
    member = assignment & usable[None, :]
    problem = VertexProblem(
        state=track_state(parameters, covariance, usable, field),
        weight=jnp.where(member, weight, 0.0),
        assignment=member.astype(parameters.dtype),
        mean=prior_mean,
        precision=prior_precision,
        adaptive=adaptive,
    )
    start = jnp.where(jnp.isfinite(start), start, prior_mean)
    if adaptive is not None:
        # The solution does not depend on where the search for it begins: no gradient
        # is lost here, and none of the search has to be remembered.
        start = _anneal(*jax.lax.stop_gradient((problem, adaptive.temperature, start)))
    position, equations = _solve(problem, start, num_steps, adjoint)
    dropped = jnp.any(assignment & (mask & ~usable)[None, :], axis=1)
    return _summary(problem, position, equations, dropped)


def _solve(
    problem: VertexProblem,
    start: Float[Array, "vertices 3"],
    num_steps: int,
    adjoint: optx.AbstractAdjoint | None,
) -> tuple[Float[Array, "vertices 3"], NormalEquations]:
    blocks = isinstance(adjoint, optx.ImplicitAdjoint) and isinstance(
        adjoint.linear_solver, BlockSolver3
    )
    if adjoint is None or blocks:
        return solve_blocks(_advance, _equations, start, problem, num_steps=num_steps)
    root = solve_optimality(
        _flat_step,
        optimality,
        jnp.ravel(start),
        problem,
        num_steps=num_steps,
        adjoint=adjoint,
        symmetric=False,
    )
    position = jnp.reshape(root, start.shape)
    return position, normal_equations(problem, position)


def _advance(
    position: Float[Array, "vertices 3"],
    gradient: Float[Array, "vertices 3"],
    equations: NormalEquations,
    problem: VertexProblem,
) -> Float[Array, "vertices 3"]:
    del gradient  # It is one of the equations.
    return advance(position, equations, problem)


def _flat_step(
    positions: Float[Array, " unknowns"], problem: VertexProblem
) -> Float[Array, " unknowns"]:
    vertices = jnp.reshape(positions, (-1, 3))
    equations = normal_equations(problem, vertices)
    return jnp.ravel(advance(vertices, equations, problem))


def _equations(
    position: Float[Array, "vertices 3"], problem: VertexProblem
) -> tuple[Float[Array, "vertices 3"], NormalEquations]:
    equations = normal_equations(problem, position)
    return equations.gradient, equations


def _anneal(
    problem: VertexProblem, final: Float[Array, ""], start: Float[Array, "vertices 3"]
) -> Float[Array, "vertices 3"]:
    def cool(
        positions: Float[Array, "vertices 3"], temperature: Float[Array, ""]
    ) -> tuple[Float[Array, "vertices 3"], None]:
        warm = eqx.tree_at(lambda p: p.adaptive.temperature, problem, temperature)
        equations = normal_equations(warm, positions)
        return advance(positions, equations, warm, follow=False), None

    schedule = _ANNEALING + _SETTLING * (0.0,)
    temperatures = jnp.maximum(jnp.asarray(schedule, final.dtype), final)
    return jax.lax.scan(cool, start, temperatures)[0]


def _summary(
    problem: VertexProblem,
    position: Float[Array, "vertices 3"],
    equations: NormalEquations,
    dropped: Bool[Array, " vertices"],
) -> VertexFit:
    information = symmetric(equations.information)
    # Else the inverse would be NaN, and with it the gradient.
    regular = jax.vmap(is_positive_definite)(information + problem.precision)
    information = jnp.where(regular[:, None, None], information, 0.0)
    squared = jnp.where(regular[:, None, None], symmetric(equations.squared), 0.0)
    inverse = jax.vmap(inverse_spd)(information + problem.precision)
    covariance = jax.vmap(_sandwich)(inverse, squared + problem.precision)
    move = matvec3(inverse, equations.gradient)
    length = jnp.sum(move * equations.gradient, axis=1)
    # The expectation of sum w r^T S^-1 r at the solution, if tracks and prior are true.
    # The trace of a product of symmetric matrices is the sum of their products.
    measured = 2 * jnp.sum(equations.weight, axis=1)
    shared = jnp.sum(inverse * squared, axis=(1, 2))
    moved = jnp.sum(covariance * information, axis=(1, 2))
    # A comparison with NaN is false: that fit failed, too.
    close = regular & (length < _DONE)
    return VertexFit(
        position=position,
        covariance=covariance,
        chi2=jnp.sum(equations.weight * equations.compatibility, axis=1),
        ndf=measured - 2 * shared + moved,
        weight=equations.weight,
        compatibility=jnp.sum(equations.compatibility, axis=0),
        converged=close,
        status=jax.vmap(vertex_status)(
            empty=~jnp.any(problem.weight > 0, axis=1),
            dropped=dropped,
            regular=regular,
            close=close,
        ),
    )


@jax.custom_jvp
def _sandwich(
    outer: Float[Array, "3 3"], inner: Float[Array, "3 3"]
) -> Float[Array, "3 3"]:
    # As a square: positive definite in single precision too, whatever the condition.
    root = matmul(outer, cholesky_spd(inner))
    return matmul(root, root.T)


@_sandwich.defjvp
def _sandwich_jvp(
    primals: tuple[Float[Array, "3 3"], Float[Array, "3 3"]],
    tangents: tuple[Float[Array, "3 3"], Float[Array, "3 3"]],
) -> tuple[Float[Array, "3 3"], Float[Array, "3 3"]]:
    # A few products instead of a differentiated factorisation.
    (outer, inner), (outer_tangent, inner_tangent) = primals, tangents
    moved = matmul(outer_tangent, matmul(inner, outer))
    change = matmul(outer, matmul(inner_tangent, outer)) + moved + moved.T
    return _sandwich(outer, inner), change
