"""Several displaced vertices in one jet."""

import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
from jaxtyping import Array, Bool, Float

from ..numerics import sanitise
from ._adaptive import AdaptiveWeights, adaptive_weight
from ._crossing import crossing_point
from ._find_primary import FoundVertices, ordered
from ._impact import (
    TrackState,
    chi2_of,
    impact_at,
    select_tracks,
    track_state,
    with_vertex_covariance,
)
from ._multiple import fit_multiple_vertices
from ._secondary import DisplacementCut, displacement_weight
from ._seeds import Seeds


# The b hadron flies within about a tenth of a radian of the jet's axis.
_PRIOR_SHAPE = 0.1
# Two vertices of one jet are millimetres apart: hotter, they would be one.
_ANNEALING = (4.0, 2.0, 1.5)
# Sum of weights of the tracks that agree with a crossing for it to be a seed.
_LEAST = 1.2


def find_secondary_vertices(
    parameters: Float[Array, "tracks 5"],
    covariance: Float[Array, "tracks 5 5"],
    mask: Bool[Array, " tracks"],
    field: Float[Array, ""],
    *,
    direction: Float[Array, " 3"],
    primary: Float[Array, " 3"],
    primary_covariance: Float[Array, "3 3"],
    cut: DisplacementCut,
    adaptive: AdaptiveWeights,
    prior_width: Float[Array, ""],
    num_vertices: int = 3,
    num_candidates: int = 12,
    num_steps: int = 12,
    adjoint: optx.AbstractAdjoint | None = None,
) -> FoundVertices:
    """The displaced vertices of one jet, nearest first: that of a b hadron, then c.

    Seeds where two of the most displaced tracks cross and most others pass, then one
    fit of all vertices, in which displaced tracks compete for them. Which vertices
    there are, and their order, is a discrete choice: values and derivatives are exact
    within it.

    Args:
        parameters: Track parameters about the origin; dead slots may hold anything.
        covariance: Their covariance.
        mask: Which tracks are of the jet.
        field: Magnetic field along z, in T.
        direction: Unit vector along the jet.
        primary: The primary vertex, in mm.
        primary_covariance: Its covariance, in mm^2, here taken to be independent of the
            tracks.
        cut: Which tracks are displaced.
        adaptive: Temperature and cutoff of the weights.
        prior_width: Width of the prior about the primary vertex along the jet, in mm;
            across it is a tenth of that.
        num_vertices: Slots for vertices.
        num_candidates: How many of the most displaced tracks are crossed for seeds.
        num_steps: Number of steps of all vertices together.
        adjoint: How the gradient crosses the fit.

    Returns:
        The vertices; the score is minus the distance from the primary vertex along the
        jet, in mm.

    Raises:
        ValueError: There are fewer than two tracks or candidates to cross.
    """
    if min(num_candidates, mask.shape[0]) < 2:
        raise ValueError(
            f"`num_candidates` is {num_candidates} and there are {mask.shape[0]} slots "
            "for tracks; take two at least."
        )
    state = track_state(parameters, covariance, mask, field)
    impact = with_vertex_covariance(
        impact_at(state, primary[:, None]), primary_covariance
    )
    weight = jnp.where(mask, displacement_weight(impact, cut), 0.0)
    # As for primary vertices: where the search begins, and how many there are.
    seeds = _seeds(
        *jax.lax.stop_gradient((state, weight, primary, direction, adaptive)),
        num_vertices=num_vertices,
        num_candidates=min(num_candidates, mask.shape[0]),
    )
    along = direction[:, None] * direction[None, :]
    across = jnp.eye(3, dtype=along.dtype) - along
    precision = (along + across / _PRIOR_SHAPE**2) / prior_width**2
    fit = fit_multiple_vertices(
        parameters,
        covariance,
        weight,
        mask,
        field,
        prior_mean=jnp.broadcast_to(primary[None, :], (num_vertices, 3)),
        prior_precision=jnp.broadcast_to(precision[None], (num_vertices, 3, 3)),
        start=seeds.position,
        vertex_mask=seeds.mask,
        adaptive=adaptive,
        annealing=_ANNEALING,
        num_steps=num_steps,
        least_weight=_LEAST,
        adjoint=adjoint,
    )
    flight = jnp.sum((fit.position - primary[None, :]) * direction[None, :], axis=1)
    return ordered(fit, jnp.where(fit.mask, -flight, 0.0), seeds.overflow)


def _seeds(
    state: TrackState,
    weight: Float[Array, " tracks"],
    primary: Float[Array, " 3"],
    direction: Float[Array, " 3"],
    adaptive: AdaptiveWeights,
    *,
    num_vertices: int,
    num_candidates: int,
) -> Seeds:
    _, best = jax.lax.top_k(weight, num_candidates)
    state, weight = select_tracks(state, best), weight[best]
    first, second = (jnp.asarray(i) for i in np.triu_indices(num_candidates, 1))
    crossing = crossing_point(state, first, second)
    ahead = (crossing.position - primary[None, :]) @ direction > 0
    usable = ahead & (crossing.chi2 < adaptive.cutoff**2)
    points = sanitise(crossing.position, usable)

    def agreement(point: Float[Array, " 3"]) -> Float[Array, " tracks"]:
        compatibility = chi2_of(impact_at(state, point[:, None]))
        return weight * adaptive_weight(compatibility, adaptive)

    agree = jax.vmap(agreement)(points)

    def scores(left: Float[Array, " tracks"]) -> Float[Array, " pairs"]:
        pair = jnp.minimum(left[first], left[second]) > 0
        return jnp.where(usable & pair, agree @ left, 0.0)

    def take(
        left: Float[Array, " tracks"], _: None
    ) -> tuple[Float[Array, " tracks"], tuple[Float[Array, " 3"], Bool[Array, ""]]]:
        score = scores(left)
        chosen = jnp.argmax(score)
        found = score[chosen] > _LEAST
        belongs = (2 * agree[chosen] > weight) & found
        return jnp.where(belongs, 0.0, left), (points[chosen], found)

    left, (position, found) = jax.lax.scan(
        take, jnp.ones_like(weight), length=num_vertices
    )
    return Seeds(position=position, mask=found, overflow=jnp.max(scores(left)) > _LEAST)
