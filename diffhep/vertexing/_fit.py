"""Vertex fits: one vertex, or several that share no track."""

import equinox as eqx
import jax
import jax.numpy as jnp
import optimistix as optx
from jaxtyping import Array, Bool, Float

from ..numerics import BlockSolver3, inverse_spd, matmul, solve_optimality
from ._adaptive import AdaptiveWeights
from ._impact import track_state
from ._normal import (
    NormalEquations,
    VertexProblem,
    gauss_newton,
    matvec3,
    newton,
    normal_equations,
    optimality,
)


# Temperatures before the final one, so that a bad start does not lose all tracks.
_ANNEALING = (1024.0, 256.0, 64.0, 16.0, 4.0)
# Squared lengths, in standard deviations: of a step that Newton's method can start
# after, and of one that is as good as none.
_CLOSE = 1.0
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
    """Chi-squared of each track with its vertex; of two degrees of freedom."""
    converged: Bool[Array, "*vertices"]
    """Whether the position is a solution. It is the centre of the prior, or anything
    else that is finite, where not."""


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
    num_steps: int = 3,
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
        num_steps: Number of steps of Gauss and Newton.
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
    num_steps: int = 3,
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

    A vertex without tracks is the prior. A fit that fails falls back to the prior.

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
        num_steps: Number of steps of Gauss and Newton, after the annealing that
            `adaptive` brings. One step of Newton with the exact Jacobian follows, or
            two with `adaptive`.
        adaptive: How weights fall with the distance from the vertex, if they do.
        adjoint: How the gradient crosses the fit: `ImplicitAdjoint` with a solver for
            3 x 3 blocks unless given.

    Returns:
        The vertices, with a leading axis.
    """
    if adjoint is None:
        adjoint = optx.ImplicitAdjoint(linear_solver=BlockSolver3())
    member = assignment & mask[None, :]
    problem = VertexProblem(
        state=track_state(parameters, covariance, mask, field),
        weight=jnp.where(member, weight, 0.0),
        assignment=member.astype(parameters.dtype),
        mean=prior_mean,
        precision=prior_precision,
        adaptive=adaptive,
    )
    # The solution does not depend on where the search for it begins: no gradient is
    # lost here, and none of the search has to be remembered.
    close, position = _approach(
        jax.lax.stop_gradient(problem), jax.lax.stop_gradient(start), num_steps
    )
    # Without tracks the solution is the centre of the prior: a hopeless fit shall not
    # make infinities that a zero cotangent would turn into NaN.
    problem = eqx.tree_at(
        lambda p: p.weight, problem, jnp.where(close[:, None], problem.weight, 0.0)
    )
    root = solve_optimality(
        newton,
        optimality,
        jnp.reshape(position, (-1,)),
        problem,
        # Weights that move with the vertex make the start worse.
        num_steps=1 if adaptive is None else 2,
        adjoint=adjoint,
        symmetric=False,
    )
    position = jnp.reshape(root, position.shape)
    return _summary(problem, position, close)


def _approach(
    problem: VertexProblem, start: Float[Array, "vertices 3"], num_steps: int
) -> tuple[Bool[Array, " vertices"], Float[Array, "vertices 3"]]:
    # Which fits came close to their solution, and where they are now.
    def step(
        position: Float[Array, "vertices 3"], temperature: Float[Array, ""] | None
    ) -> tuple[Float[Array, "vertices 3"], Float[Array, " vertices"]]:
        current = problem
        if temperature is not None:
            current = eqx.tree_at(
                lambda p: p.adaptive.temperature, problem, temperature
            )
        return gauss_newton(current, position)

    temperatures = None
    if problem.adaptive is not None:
        final = problem.adaptive.temperature
        before = jnp.maximum(jnp.asarray(_ANNEALING, final.dtype), final)
        temperatures = jnp.concatenate([before, jnp.broadcast_to(final, (num_steps,))])
        num_steps += len(_ANNEALING)
    position, lengths = jax.lax.scan(step, start, temperatures, length=num_steps)
    # A comparison with NaN is false: that fit failed, too.
    close = lengths[-1] < _CLOSE
    return close, jnp.where(close[:, None], position, problem.mean)


def _summary(
    problem: VertexProblem,
    position: Float[Array, "vertices 3"],
    close: Bool[Array, " vertices"],
) -> VertexFit:
    equations = normal_equations(problem, position)
    total = equations.information + problem.precision
    inverse = jax.vmap(inverse_spd)(total)
    middle = equations.squared + problem.precision
    covariance = jax.vmap(_sandwich)(inverse, middle)
    step = matvec3(inverse, equations.gradient)
    length = jnp.sum(step * equations.gradient, axis=1)
    return VertexFit(
        position=position,
        covariance=covariance,
        chi2=jnp.sum(equations.weight * equations.compatibility[None, :], axis=1),
        ndf=_expected_chi2(equations, inverse, covariance),
        weight=equations.weight,
        compatibility=equations.compatibility,
        converged=close & (length < _DONE),
    )


def _sandwich(
    outer: Float[Array, "3 3"], inner: Float[Array, "3 3"]
) -> Float[Array, "3 3"]:
    return matmul(outer, matmul(inner, outer))


def _expected_chi2(
    equations: NormalEquations,
    inverse: Float[Array, "vertices 3 3"],
    covariance: Float[Array, "vertices 3 3"],
) -> Float[Array, " vertices"]:
    # The expectation of sum w r^T S^-1 r at the solution, if tracks and prior are true.
    # The trace of a product of symmetric matrices is the sum of their products.
    measured = 2 * jnp.sum(equations.weight, axis=1)
    shared = jnp.sum(inverse * equations.squared, axis=(1, 2))
    moved = jnp.sum(covariance * equations.information, axis=(1, 2))
    return measured - 2 * shared + moved
