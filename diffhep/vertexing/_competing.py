"""The equations of several vertices that compete for the same tracks."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ..numerics import inverse_spd, matvec
from ._adaptive import AdaptiveWeights
from ._impact import TrackState, chi2_of, impact_at
from ._normal import _contributions, matvec3, symmetric


_PAIRS = ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))
# A step of Newton that moves a vertex by more standard deviations than this is not
# trusted: the weights change too much on the way.
_TRUST = 1.0


class CompetingProblem(eqx.Module):
    """Everything that determines the positions of vertices that share their tracks."""

    state: TrackState
    weight: Float[Array, " tracks"]
    """Prior weight of each track, 0 to 1, to share among the vertices."""
    alive: Bool[Array, " vertices"]
    """Which vertices take part."""
    mean: Float[Array, "vertices 3"]
    """Centre of the prior, in mm."""
    precision: Float[Array, "vertices 3 3"]
    """Inverse covariance of the prior, in 1/mm^2."""
    adaptive: AdaptiveWeights


class Terms(eqx.Module):
    """What each track says of each vertex, linearised at given positions."""

    compatibility: Float[Array, "vertices tracks"]
    """Chi-squared of each track with each vertex; of two degrees of freedom."""
    share: Float[Array, "vertices tracks"]
    """How the tracks are shared out; the sum over the vertices is below one."""
    slopes: tuple[Float[Array, "vertices tracks"], ...]
    """Half the derivative of `compatibility` in x, y, z, covariances held fixed."""
    curvatures: tuple[Float[Array, "vertices tracks"], ...]
    """Information on the position: (xx, xy, xz, yy, yz, zz)."""


def competing_weight(
    compatibility: Float[Array, "vertices tracks"],
    alive: Bool[Array, " vertices"],
    adaptive: AdaptiveWeights,
) -> Float[Array, "vertices tracks"]:
    r"""The share of each vertex in each track.

    $w_{ki} = e^{-\chi^2_{ki}/2T} / (e^{-c^2/2T} + \sum_l e^{-\chi^2_{li}/2T})$, as in
    the adaptive multi-vertex fit (Waltenberger, Fruehwirth, Vanlaer, J. Phys. G 34
    (2007) N343). For one vertex it is `adaptive_weight`.

    Args:
        compatibility: Chi-squared of each track with each vertex.
        alive: Which vertices take part; the others get nothing.
        adaptive: Temperature and cutoff.

    Returns:
        The shares, 0 to 1.
    """
    scale = -1 / (2 * adaptive.temperature)
    logits = jnp.where(alive[:, None], scale * compatibility, -jnp.inf)
    none = jnp.full_like(compatibility[:1], 1.0) * scale * adaptive.cutoff**2
    return jax.nn.softmax(jnp.concatenate([logits, none]), axis=0)[:-1]


def terms_at(problem: CompetingProblem, positions: Float[Array, "vertices 3"]) -> Terms:
    """What each track says of each vertex.

    Args:
        problem: The fit.
        positions: The vertices, in mm.

    Returns:
        The terms of all sums over tracks.
    """
    impact = jax.vmap(impact_at, (None, 0))(problem.state, positions[:, :, None])
    compatibility = jax.vmap(chi2_of)(impact)
    slopes, curvatures = jax.vmap(_contributions)(impact)
    return Terms(
        compatibility=compatibility,
        share=competing_weight(compatibility, problem.alive, problem.adaptive),
        slopes=slopes,
        curvatures=curvatures,
    )


def information_of(
    terms: Terms, weight: Float[Array, "vertices tracks"]
) -> Float[Array, "vertices 3 3"]:
    """The weighted information of the tracks on each vertex.

    Args:
        terms: What each track says.
        weight: What to multiply it with.

    Returns:
        Symmetric matrices, in 1/mm^2.
    """
    return symmetric(_reduce(terms.curvatures, weight))


def gradient_of(
    problem: CompetingProblem, positions: Float[Array, "vertices 3"], terms: Terms
) -> Float[Array, "vertices 3"]:
    """Half the derivative of chi-squared, tracks and prior, with fixed weights.

    It is the derivative of the free energy, too, by which the shares minimise what is
    lost when a track is shared out.

    Args:
        problem: The fit.
        positions: The vertices, in mm.
        terms: What each track says there.

    Returns:
        The gradient, in 1/mm; zero at the solution.
    """
    pull = matvec3(problem.precision, positions - problem.mean)
    return _reduce(terms.slopes, problem.weight[None, :] * terms.share) + pull


def curvature_of(
    problem: CompetingProblem, terms: Terms
) -> tuple[Float[Array, "vertices 3 3"], Float[Array, "all all"]]:
    """The Jacobian of `gradient_of` in all positions, approximately.

    What is neglected is how covariances and directions of the tracks change with the
    vertices.

    Args:
        problem: The fit.
        terms: What each track says.

    Returns:
        The blocks for fixed shares; and the whole matrix, symmetric, where the shares
        follow the positions and so couple the vertices.
    """
    weight = problem.weight[None, :] * terms.share
    blocks = information_of(terms, weight) + problem.precision
    products = tuple(terms.slopes[a] * terms.slopes[b] for a, b in _PAIRS)
    own = blocks - symmetric(_reduce(products, weight)) / problem.adaptive.temperature
    number, size = terms.share.shape
    pulls = jnp.stack([terms.share * slope for slope in terms.slopes], axis=1)
    pulls = jnp.reshape(pulls, (3 * number, size))
    coupling = jnp.matmul(
        pulls * problem.weight[None, :], pulls.T, precision=jax.lax.Precision.HIGHEST
    )
    return blocks, block_matrix(own) + coupling / problem.adaptive.temperature


def block_matrix(blocks: Float[Array, "vertices 3 3"]) -> Float[Array, "all all"]:
    """A block-diagonal matrix.

    Args:
        blocks: Its blocks.

    Returns:
        The matrix, three rows and columns per block.
    """
    number = blocks.shape[0]
    one = jnp.eye(number, dtype=blocks.dtype)
    whole = one[:, None, :, None] * blocks[:, :, None, :]
    return jnp.reshape(whole, (3 * number, 3 * number))


def optimality(
    positions: Float[Array, " unknowns"], problem: CompetingProblem
) -> Float[Array, " unknowns"]:
    """The condition that the flattened positions fulfil: the gradient vanishes.

    Args:
        positions: The vertices one after another, in mm.
        problem: The fit.

    Returns:
        The gradient, in 1/mm.
    """
    vertices = jnp.reshape(positions, (-1, 3))
    terms = terms_at(problem, vertices)
    return jnp.reshape(gradient_of(problem, vertices, terms), (-1,))


def careful_step(
    positions: Float[Array, " unknowns"], problem: CompetingProblem
) -> Float[Array, " unknowns"]:
    """The step of Gauss and Newton of each vertex, with the shares held fixed.

    That of an expectation-maximisation: downhill from anywhere, slow where vertices
    overlap.

    Args:
        positions: The vertices one after another, in mm.
        problem: The fit.

    Returns:
        The new positions.
    """
    vertices = jnp.reshape(positions, (-1, 3))
    terms = terms_at(problem, vertices)
    weight = problem.weight[None, :] * terms.share
    blocks = information_of(terms, weight) + problem.precision
    move = _apart(blocks, gradient_of(problem, vertices, terms))
    return positions - _usable(jnp.reshape(move, (-1,)))


def step(
    positions: Float[Array, " unknowns"], problem: CompetingProblem
) -> Float[Array, " unknowns"]:
    """One step towards the root of `optimality`, of all vertices together.

    That of Newton where the curvature is that of a minimum and the step is short; that
    of `careful_step` elsewhere.

    Args:
        positions: The vertices one after another, in mm.
        problem: The fit.

    Returns:
        The new positions.
    """
    vertices = jnp.reshape(positions, (-1, 3))
    terms = terms_at(problem, vertices)
    gradient = gradient_of(problem, vertices, terms)
    blocks, whole = curvature_of(problem, terms)
    bold, _ = newton_move(blocks, whole, gradient)
    near = jnp.max(length_of(blocks, bold)) < _TRUST**2
    move = jnp.where(near, bold, _apart(blocks, gradient))
    return positions - _usable(jnp.reshape(move, (-1,)))


def newton_move(
    blocks: Float[Array, "vertices 3 3"],
    whole: Float[Array, "all all"],
    gradient: Float[Array, "vertices 3"],
) -> tuple[Float[Array, "vertices 3"], Bool[Array, ""]]:
    """What Newton's step takes from the positions.

    Args:
        blocks: The curvature for fixed shares.
        whole: The curvature with everything.
        gradient: The gradient.

    Returns:
        The step, that for fixed shares if `whole` is not positive definite; and whether
        it is.
    """
    # Which of two matrices is inverted is a choice: no gradient to lose.
    trial = inverse_spd(jax.lax.stop_gradient(whole))
    definite = jnp.all(jnp.isfinite(trial))
    matrix = jnp.where(definite, whole, block_matrix(blocks))
    move = matvec(inverse_spd(matrix), jnp.reshape(gradient, (-1,)))
    return jnp.reshape(move, (-1, 3)), definite


def length_of(
    blocks: Float[Array, "vertices 3 3"], move: Float[Array, "vertices 3"]
) -> Float[Array, " vertices"]:
    """Squared lengths of steps, in standard deviations.

    Args:
        blocks: Information on each vertex.
        move: The steps.

    Returns:
        One number per vertex.
    """
    return jnp.sum(move * matvec3(blocks, move), axis=1)


def _apart(
    blocks: Float[Array, "vertices 3 3"], gradient: Float[Array, "vertices 3"]
) -> Float[Array, "vertices 3"]:
    return matvec3(jax.vmap(inverse_spd)(blocks), gradient)


def _usable(move: Float[Array, " unknowns"]) -> Float[Array, " unknowns"]:
    # Never leave for infinity: a fit that fails stays where it is.
    return jnp.where(jnp.isfinite(move), move, 0.0)


def _reduce(
    values: tuple[Float[Array, "vertices tracks"], ...],
    weight: Float[Array, "vertices tracks"],
) -> Float[Array, "vertices components"]:
    return jnp.stack([jnp.sum(weight * value, axis=1) for value in values], axis=1)
