"""V0s: neutral particles that decay, or convert, to two charged ones."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
from jaxtyping import Array, Bool, Float, Int

from ..numerics import matmul, safe_sqrt, solve_spd
from ._crossing import crossing_point
from ._impact import (
    TrackState,
    chi2_of,
    impact_at,
    select_tracks,
    track_state,
    with_vertex_covariance,
)
from ._pair import PairFit, fit_pair
from ._v0_cut import V0Cut, invariant_masses, v0_weight


# A pair is fitted if no more than this separates its tracks, in standard deviations
# squared, and if it is not much worse than the soft selection asks for.
_MEETING = 25.0
_LOOSE = 0.3
_POINTING = 0.9
_MASS_MARGIN = 0.02
# Curvature, in 1/mm, of a track too straight to be measured.
_STRAIGHT = 1e-12
# Two tracks that cross, for empty slots.
_SAFE = ((0.0, 0.0, 0.0, 1.0, 1.0), (0.0, 0.0, 1.5, 1.0, -1.0))


class V0s(eqx.Module):
    """Candidates for V0s, the most likely first; and what they say of the tracks.

    The axis `hypotheses` is that of `V0_HYPOTHESES`: K_S, Lambda, anti-Lambda, photon.
    """

    positive: Int[Array, " candidates"]
    """Slot of the track of positive charge."""
    negative: Int[Array, " candidates"]
    """Slot of the other."""
    position: Float[Array, "candidates 3"]
    """Where it decays (x, y, z), in mm."""
    momentum: Float[Array, "candidates 3"]
    """Momentum (px, py, pz) there, in GeV."""
    chi2: Float[Array, " candidates"]
    """Chi-squared of the vertex, of one degree of freedom."""
    mass: Float[Array, "candidates hypotheses"]
    """Mass if the tracks are what the hypothesis says, in GeV."""
    mass_error: Float[Array, "candidates hypotheses"]
    """Its standard deviation."""
    flight: Float[Array, " candidates"]
    """Distance from the primary vertex along the momentum, in mm."""
    flight_error: Float[Array, " candidates"]
    """Its standard deviation."""
    miss: Float[Array, " candidates"]
    """Chi-squared, of two degrees of freedom, of its coming from the primary vertex."""
    weight: Float[Array, "candidates hypotheses"]
    """Soft selection, 0 to 1."""
    track_probability: Float[Array, " tracks"]
    """How much of each track is of a V0, 0 to 1: a veto for tagging."""
    mask: Bool[Array, " candidates"]
    """Which slots hold a candidate."""
    overflow: Bool[Array, ""]
    """Whether there were more candidates than slots."""


def find_v0s(
    parameters: Float[Array, "tracks 5"],
    covariance: Float[Array, "tracks 5 5"],
    mask: Bool[Array, " tracks"],
    field: Float[Array, ""],
    *,
    primary: Float[Array, " 3"],
    primary_covariance: Float[Array, "3 3"],
    cut: V0Cut,
    capacity: int,
    num_steps: int = 10,
    adjoint: optx.AbstractAdjoint | None = None,
) -> V0s:
    """Pairs of tracks of opposite charge that may come from a neutral particle.

    All pairs are crossed, those that may be V0s are fitted, and a soft selection says
    how good they are as K_S, Lambda, anti-Lambda or photon. Which pairs are fitted is a
    discrete choice, far outside of the soft selection: there its weights are at most
    about one per cent. Within the choice all is exact.

    The electrons of a photon leave in the same direction, so that their circles touch
    more than they cross. The fits of half of them do not converge, and they are lost.

    Args:
        parameters: Track parameters about the origin; dead slots may hold anything.
        covariance: Their covariance.
        mask: Which tracks are alive.
        field: Magnetic field along z, in T.
        primary: The primary vertex, in mm.
        primary_covariance: Its covariance, in mm^2, here taken to be independent of the
            tracks.
        cut: The soft selection.
        capacity: Slots for candidates.
        num_steps: Number of steps of each vertex fit.
        adjoint: How the gradient crosses these.

    Returns:
        The candidates.

    Raises:
        ValueError: There is no slot, or there are fewer than two tracks.
    """
    number = mask.shape[0]
    if capacity < 1 or number < 2:
        raise ValueError(
            f"`capacity` is {capacity} and there are {number} slots for tracks; take "
            "at least one and two."
        )
    state = track_state(parameters, covariance, mask, field)
    away = chi2_of(
        with_vertex_covariance(impact_at(state, primary[:, None]), primary_covariance)
    )
    # Which pairs are fitted, and where the fits begin: the former is discrete, and the
    # latter forgotten by the solution.
    chosen = _choose(
        *jax.lax.stop_gradient((state, away, mask, primary, cut)),
        capacity=min(capacity, number * (number - 1) // 2),
    )

    def one(
        measured: Float[Array, "2 5"],
        errors: Float[Array, "2 5 5"],
        start: Float[Array, " 3"],
    ) -> tuple[PairFit, Float[Array, " 7"], Float[Array, "7 7"]]:
        fit = fit_pair(
            measured, errors, field, start=start, num_steps=num_steps, adjoint=adjoint
        )
        return fit, *_numbers_of(fit, primary, primary_covariance)

    tracks = _tracks_of(chosen, parameters, covariance)
    fitted = jax.vmap(one)(*tracks, chosen.start)
    return _judged(cut, chosen, away, *fitted)


class _Chosen(eqx.Module):
    """The pairs to fit."""

    pair: Int[Array, "candidates 2"]
    """Slots of both tracks, that of positive charge first."""
    start: Float[Array, "candidates 3"]
    mask: Bool[Array, " candidates"]
    overflow: Bool[Array, ""]


def _tracks_of(
    chosen: _Chosen,
    parameters: Float[Array, "tracks 5"],
    covariance: Float[Array, "tracks 5 5"],
) -> tuple[Float[Array, "candidates 2 5"], Float[Array, "candidates 2 5 5"]]:
    alive = chosen.mask[:, None, None]
    safe = jnp.asarray(_SAFE, parameters.dtype)[None, :, :]
    unit = jnp.eye(5, dtype=parameters.dtype)[None, None, :, :]
    return (
        jnp.where(alive, parameters[chosen.pair], safe),
        jnp.where(alive[:, None], covariance[chosen.pair], unit),
    )


def _choose(
    state: TrackState,
    away: Float[Array, " tracks"],
    mask: Bool[Array, " tracks"],
    primary: Float[Array, " 3"],
    cut: V0Cut,
    *,
    capacity: int,
) -> _Chosen:
    first, second = (jnp.asarray(i) for i in np.triu_indices(mask.shape[0], 1))
    pair = jnp.stack([first, second], axis=1)
    crossing = crossing_point(state, first, second)
    # Positive first: the curvature has the sign of charge times field.
    sign = jnp.sign(state.omega * state.slope)
    pair = jnp.where((sign[first] > 0)[:, None], pair, pair[:, ::-1])
    momenta = jnp.stack(
        [_momentum(state, pair[:, i], crossing.position) for i in range(2)], axis=1
    )
    total = jnp.sum(momenta, axis=1)
    way = crossing.position - primary[None, :]
    lengths = jnp.sqrt(jnp.sum(total**2, axis=1) * jnp.sum(way**2, axis=1))
    cosine = jnp.sum(total * way, axis=1) / jnp.where(lengths > 0, lengths, 1.0)
    masses = jax.vmap(invariant_masses)(momenta)
    window = 2 * cut.mass_window + _MASS_MARGIN
    close = jnp.abs(masses - cut.nominal[None, :]) < window[None, :]
    far = away > (_LOOSE * cut.displacement) ** 2
    good = (
        (mask & far)[pair].all(axis=1)
        & (sign[first] * sign[second] < 0)
        & (crossing.chi2 < _MEETING)
        & (cosine > _POINTING)
        & close.any(axis=1)
    )
    rank = crossing.chi2 + 100 * (1 - cosine)
    _, best = jax.lax.top_k(jnp.where(good, -rank, -jnp.inf), capacity)
    return _Chosen(
        pair=pair[best],
        start=crossing.position[best],
        mask=good[best],
        overflow=jnp.sum(good) > capacity,
    )


def _momentum(
    state: TrackState, slot: Int[Array, " pairs"], point: Float[Array, "pairs 3"]
) -> Float[Array, "pairs 3"]:
    track = select_tracks(state, slot)
    impact = impact_at(track, point.T)
    # In a field of zero nothing is known of the momentum: it counts as none.
    size = jnp.abs(track.slope) / jnp.maximum(jnp.abs(track.omega), _STRAIGHT)
    along = jnp.stack([impact.cosine, impact.sine, track.cotangent], axis=1)
    return along * (size / jnp.sqrt(1 + track.cotangent**2))[:, None]


def _chi2(
    values: Float[Array, " 2"], covariance: Float[Array, "2 2"]
) -> Float[Array, ""]:
    return jnp.sum(values * solve_spd(covariance, values))


def _judged(  # noqa: PLR0917 - what there is, in the order it was made
    cut: V0Cut,
    chosen: _Chosen,
    away: Float[Array, " tracks"],
    fit: PairFit,
    values: Float[Array, "candidates 7"],
    spread: Float[Array, "candidates 7 7"],
) -> V0s:
    variance = jnp.diagonal(spread, axis1=1, axis2=2)
    error = safe_sqrt(variance)
    alive = chosen.mask & fit.converged & jnp.all(jnp.isfinite(variance), axis=1)
    miss = jax.vmap(_chi2)(values[:, 5:], spread[:, 5:, 5:])
    weight = v0_weight(
        cut,
        displacement=away[chosen.pair],
        chi2=fit.chi2,
        miss=miss,
        flight=values[:, 4] / jnp.where(error[:, 4] > 0, error[:, 4], 1.0),
        mass=values[:, :4],
    )
    weight = jnp.where(alive[:, None], weight, 0.0)
    return V0s(
        positive=chosen.pair[:, 0],
        negative=chosen.pair[:, 1],
        position=fit.position,
        momentum=jnp.sum(fit.momenta, axis=1),
        chi2=fit.chi2,
        mass=values[:, :4],
        mass_error=error[:, :4],
        flight=values[:, 4],
        flight_error=error[:, 4],
        miss=miss,
        weight=weight,
        track_probability=_probability(chosen.pair, weight, away.shape[0]),
        mask=alive,
        overflow=chosen.overflow,
    )


def _numbers_of(
    fit: PairFit, primary: Float[Array, " 3"], primary_covariance: Float[Array, "3 3"]
) -> tuple[Float[Array, " 7"], Float[Array, "7 7"]]:
    known = jnp.concatenate([fit.position, jnp.ravel(fit.momenta), primary])
    spread = jnp.zeros((12, 12), known.dtype)
    spread = spread.at[:9, :9].set(fit.covariance).at[9:, 9:].set(primary_covariance)
    slopes = jax.jacfwd(_numbers)(known)
    return _numbers(known), matmul(slopes, matmul(spread, slopes.T))


def _numbers(known: Float[Array, " 12"]) -> Float[Array, " 7"]:
    # Masses, flight, and by how much it misses the primary vertex.
    momenta = jnp.reshape(known[3:9], (2, 3))
    way = known[:3] - known[9:]
    x, y, z = jnp.sum(momenta, axis=0)
    across = safe_sqrt(x**2 + y**2)
    total = safe_sqrt(x**2 + y**2 + z**2)
    flight = (way[0] * x + way[1] * y + way[2] * z) / total
    aside = (way[1] * x - way[0] * y) / across
    forward = (way[0] * x + way[1] * y) / across
    above = (way[2] * across - forward * z) / total
    rest = jnp.stack([flight, aside, above])
    return jnp.concatenate([invariant_masses(momenta), rest])


def _probability(
    pairs: Int[Array, "candidates 2"],
    weight: Float[Array, "candidates hypotheses"],
    number: int,
) -> Float[Array, " tracks"]:
    # That any of its pairs is a V0 of any kind.
    any_kind = 1 - jnp.prod(1 - weight, axis=1)
    slots = jnp.arange(number)
    member = jnp.any(pairs[:, :, None] == slots[None, None, :], axis=1)
    return 1 - jnp.prod(jnp.where(member, 1 - any_kind[:, None], 1.0), axis=0)
