"""Several vertices that compete for tracks: the adaptive multi-vertex fit."""

import functools
from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import optimistix as optx
from jaxtyping import Array, Bool, Float

from ..numerics import (
    SmallGeneral,
    inverse_spd,
    matmul,
    sanitise,
    solve_optimality,
    solve_spd,
)
from ._adaptive import AdaptiveWeights
from ._competing import (
    CompetingProblem,
    careful_step,
    curvature_of,
    gradient_of,
    information_of,
    length_of,
    newton_move,
    optimality,
    step,
    terms_at,
)
from ._impact import track_state


ANNEALING = (64.0, 16.0, 4.0, 2.0, 1.5)
# Steps at the final temperature before it is decided which vertices there are, and
# after that.
_SETTLING = 6
# Squared length, in standard deviations, of a step that is as good as none.
_DONE = 1e-4
# Which vertices there are, and where, one after another.
_State = tuple[Bool[Array, " vertices"], Float[Array, " unknowns"]]


class MultipleVertexFit(eqx.Module):
    """Vertices fitted together. Dead slots hold the prior, and finite numbers."""

    position: Float[Array, "vertices 3"]
    """Positions (x, y, z), in mm."""
    covariance: Float[Array, "vertices 3 3"]
    """Covariance of each position given the weights, in mm^2."""
    chi2: Float[Array, " vertices"]
    """Weighted chi-squared of the tracks, without that of the prior."""
    ndf: Float[Array, " vertices"]
    """Expectation of `chi2`: for n tracks of unit weight and a wide prior 2 n - 3."""
    weight: Float[Array, "vertices tracks"]
    """How the tracks are shared out; the sum over the vertices is below one."""
    converged: Bool[Array, " vertices"]
    """Whether the position is a solution. If not, it is finite and means nothing."""
    mask: Bool[Array, " vertices"]
    """Which slots hold a vertex."""


def fit_multiple_vertices(
    parameters: Float[Array, "tracks 5"],
    covariance: Float[Array, "tracks 5 5"],
    weight: Float[Array, " tracks"],
    mask: Bool[Array, " tracks"],
    field: Float[Array, ""],
    *,
    prior_mean: Float[Array, "vertices 3"],
    prior_precision: Float[Array, "vertices 3 3"],
    start: Float[Array, "vertices 3"],
    vertex_mask: Bool[Array, " vertices"],
    adaptive: AdaptiveWeights,
    annealing: Sequence[float] = ANNEALING,
    num_steps: int = 6,
    merging: float = 3.0,
    least_weight: float = 1.5,
    adjoint: optx.AbstractAdjoint | None = None,
) -> MultipleVertexFit:
    r"""The origins of tracks that may come from any of several vertices, in one solve.

    Each track is shared out by `competing_weight`, and with those shares $w_{ki}$ all
    vertices solve

    $$\sum_i w_{ki} J_{ki}^T S_{ki}^{-1} r_{ki} + P_k (v_k - m_k) = 0$$

    (see `fit_vertices`) at once, self-consistently. The implicit derivative goes
    through the whole coupled system: a track that moves changes what the vertices next
    to its own get.

    A vertex that the cooling has left without tracks, or on top of a heavier one, is
    dead in the result. Which those are is a discrete choice: what is returned, and its
    derivative, are exact within the choice.

    Args:
        parameters: Track parameters about the origin; dead slots may hold anything.
        covariance: Their covariance.
        weight: Weight of each track, 0 to 1, to share out among the vertices.
        mask: Which tracks are alive.
        field: Magnetic field along z, in T.
        prior_mean: Centres of the Gaussian priors, in mm; those of dead vertices may
            hold anything.
        prior_precision: Their inverse covariances, in 1/mm^2, positive definite.
        start: Where to begin, in mm. No gradient flows to it.
        vertex_mask: Which vertices to fit.
        adaptive: Final temperature, and the cutoff beyond which no vertex gets a track.
        annealing: Temperatures before the final one.
        num_steps: Number of steps of all vertices together, after the annealing.
        merging: Distance, in standard deviations, below which two vertices are one.
        least_weight: Sum of weights below which a vertex is none.
        adjoint: How the gradient crosses the fit: `ImplicitAdjoint` with a solver for
            general matrices unless given.

    Returns:
        The vertices, in the order of `start`.
    """
    if adjoint is None:
        adjoint = optx.ImplicitAdjoint(linear_solver=SmallGeneral())
    unit = jnp.eye(3, dtype=prior_precision.dtype)[None, :, :]
    problem = CompetingProblem(
        state=track_state(parameters, covariance, mask, field),
        weight=jnp.where(mask, weight, 0.0),
        alive=vertex_mask,
        mean=sanitise(prior_mean, vertex_mask),
        precision=jnp.where(vertex_mask[:, None, None], prior_precision, unit),
        adaptive=adaptive,
    )
    usable = vertex_mask[:, None] & jnp.isfinite(start)
    start = jnp.reshape(jnp.where(usable, start, problem.mean), (-1,))
    # The solution does not depend on where the search for it begins, and which vertices
    # there are is discrete: no gradient is lost here.
    alive, start = jax.lax.stop_gradient(
        _search(
            jax.lax.stop_gradient(problem),
            jax.lax.stop_gradient(start),
            annealing=tuple(annealing),
            merging=merging,
            least_weight=least_weight,
        )
    )
    problem = eqx.tree_at(lambda p: p.alive, problem, alive)
    root = solve_optimality(
        step,
        optimality,
        start,
        problem,
        num_steps=num_steps,
        adjoint=adjoint,
        symmetric=False,
    )
    return _summary(problem, jnp.reshape(root, prior_mean.shape), least_weight)


def _search(
    problem: CompetingProblem,
    start: Float[Array, " unknowns"],
    *,
    annealing: tuple[float, ...],
    merging: float,
    least_weight: float,
) -> _State:
    # One loop of two phases, so that its body is compiled once: first the cooling, then
    # time for the survivors to share out what the others had.
    first = annealing + _SETTLING * (0.0,)
    second = (0.0,) * len(first)
    final = problem.adaptive.temperature
    schedules = jnp.maximum(jnp.asarray([first, second], final.dtype), final)

    def phase(carry: _State, schedule: Float[Array, " steps"]) -> tuple[_State, None]:
        now = eqx.tree_at(lambda p: p.alive, problem, carry[0])
        positions, _ = jax.lax.scan(functools.partial(_cool, now), carry[1], schedule)
        alive = _survivors(now, positions, merging=merging, least_weight=least_weight)
        vertices = jnp.reshape(positions, (-1, 3))
        vertices = jnp.where(alive[:, None], vertices, problem.mean)
        return (alive, jnp.reshape(vertices, (-1,))), None

    (alive, positions), _ = jax.lax.scan(phase, (problem.alive, start), schedules)
    return alive, positions


def _cool(
    problem: CompetingProblem,
    positions: Float[Array, " unknowns"],
    temperature: Float[Array, ""],
) -> tuple[Float[Array, " unknowns"], None]:
    warm = eqx.tree_at(lambda p: p.adaptive.temperature, problem, temperature)
    return careful_step(positions, warm), None


def _survivors(
    problem: CompetingProblem,
    positions: Float[Array, " unknowns"],
    *,
    merging: float,
    least_weight: float,
) -> Bool[Array, " vertices"]:
    vertices = jnp.reshape(positions, (-1, 3))
    terms = terms_at(problem, vertices)
    weight = problem.weight[None, :] * terms.share
    spread = jax.vmap(inverse_spd)(information_of(terms, weight) + problem.precision)

    def distance(k: Array, other: Array) -> Float[Array, ""]:
        away = vertices[k] - vertices[other]
        return jnp.sum(away * solve_spd(spread[k] + spread[other], away))

    slots = jnp.arange(vertices.shape[0])
    near = jax.vmap(jax.vmap(distance, (None, 0)), (0, None))(slots, slots)
    size = jnp.sum(weight, axis=1)
    heavier = (size[None, :] > size[:, None]) | (
        (size[None, :] == size[:, None]) & (slots[None, :] < slots[:, None])
    )
    rival = problem.alive[None, :] & heavier & (near < merging**2)
    # `~(<)`: a fit that has failed is kept, to be reported as such.
    return problem.alive & ~(size < least_weight) & ~jnp.any(rival, axis=1)


def _summary(
    problem: CompetingProblem, position: Float[Array, "vertices 3"], least_weight: float
) -> MultipleVertexFit:
    terms = terms_at(problem, position)
    weight = problem.weight[None, :] * terms.share
    information = information_of(terms, weight)
    squared = information_of(terms, weight**2)
    inverse = jax.vmap(inverse_spd)(information + problem.precision)
    covariance = jax.vmap(_sandwich)(inverse, squared + problem.precision)
    blocks, whole = curvature_of(problem, terms)
    move, definite = newton_move(
        *jax.lax.stop_gradient((blocks, whole, gradient_of(problem, position, terms)))
    )
    # The expectation of sum w r^T S^-1 r at the solution, see `fit_vertices`.
    measured = 2 * jnp.sum(weight, axis=1)
    shared = jnp.sum(inverse * squared, axis=(1, 2))
    moved = jnp.sum(covariance * information, axis=(1, 2))
    return MultipleVertexFit(
        position=position,
        covariance=covariance,
        chi2=jnp.sum(weight * terms.compatibility, axis=1),
        ndf=measured - 2 * shared + moved,
        weight=weight,
        # A comparison with NaN is false: that fit failed, too. Without a minimum of all
        # together, the steps of each are slow and must be shorter.
        converged=length_of(blocks, move) < jnp.where(definite, _DONE, _DONE**2),
        mask=problem.alive & ~(jnp.sum(weight, axis=1) < least_weight),
    )


def _sandwich(
    outer: Float[Array, "3 3"], inner: Float[Array, "3 3"]
) -> Float[Array, "3 3"]:
    return matmul(outer, matmul(inner, outer))
