"""Hits are assigned to tracks while these are fitted: annealed, then differentiated."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optimistix as optx
from jaxtyping import Array, Bool, Float

from ..geometry import AbstractDetector
from ..helix import Ionisation
from ..numerics import (
    inverse_general,
    inverse_spd,
    matvec,
    solve_optimality,
    wrap_angle,
)
from ._annealing import (
    Arms,
    System,
    anneal,
    distance,
    information_of,
    layers_with,
    look,
    slope,
)
from ._competition import AbstractCompetition, HitPicksTrack
from ._fit import TrackStatus
from ._measurement import errors_at


class ArmsFit(eqx.Module):
    """Tracks with the hits that they share."""

    parameters: Float[Array, "tracks 5"]
    """(d0 [mm], z0 [mm], phi [rad], theta [rad], q/p [1/GeV]); phi in [-pi, pi)."""
    covariance: Float[Array, "tracks 5 5"]
    """Covariance of `parameters` for given weights of the hits."""
    weight: Float[Array, "tracks layers hits"]
    """The probability that a hit belongs to a track, as the track is fitted."""
    chi2: Float[Array, " tracks"]
    """Weighted chi-squared, the scattering included."""
    ndf: Float[Array, " tracks"]
    """Two for each hit, times its weight, less five."""
    status: TrackStatus
    """How each fit ended. A layer has a hit if the weights on it exceed one half. With
    `too_few_hits` the rest is finite and means little."""


def fit_arms(
    position: Float[Array, "layers hits 2"],
    mask: Bool[Array, "layers hits"],
    seeds: Float[Array, "tracks 5"],
    detector: AbstractDetector,
    *,
    log_odds: Float[Array, "tracks layers hits"] | None = None,
    competition: AbstractCompetition = HitPicksTrack(),  # noqa: B008 - immutable
    cutoff: float | Float[Array, ""] = 4.0,
    temperatures: tuple[float, ...] = (81.0, 27.0, 9.0, 3.0, 1.0, 1.0, 1.0),
    temperature: float | Float[Array, ""] = 1.0,
    ionisation: Ionisation | None = None,
    num_steps: int = 2,
    adjoint: optx.AbstractAdjoint | None = None,
) -> ArmsFit:
    r"""Tracks and the weights of their hits, in one minimisation.

    The parameters and the scattering $\varepsilon$ minimise

    $\frac12\varepsilon^2 - \sum\log(e^{-c^2/2T} + \sum e^{(\lambda - d^2/2)/T})$

    with the squared distances $d^2$ of hits and tracks in units of the errors of the
    pixels, which at a temperature T are larger by its root. `competition` says what the
    sums run over. The derivative to $-d^2/2T$ is the weight of a hit: its term over all
    in the bracket, $e^{-c^2/2T}$ for the outlier among them.

    While the temperature T falls, each step takes the weights as given and fits the
    tracks to all hits (the filter of `fit_track`). Then Newton's method solves for
    tracks, scattering and weights together, and the implicit function theorem takes the
    gradient to hits, errors, detector, `log_odds`, cutoff and temperature. The way
    there leaves no trace in it. With a single hit on each layer this is `fit_track`.

    The search is local, and hits far outside the road that the scattering allows are
    what it rejects best: `tests/tracking/test_arms.py` has figures.

    Args:
        position: What was measured on each layer, in rad or mm. Dead entries may hold
            anything.
        mask: Which hits there are.
        seeds: Parameters to start from, where the errors are taken too.
        detector: The detector.
        log_odds: What else is known for a hit, by a network say: $\lambda$; zero unless
            given.
        competition: Who competes for whom.
        cutoff: Where a hit is as likely noise, in standard deviations: c.
        temperatures: The temperatures of the annealing.
        temperature: The last one. At 1 the weights are probabilities.
        ionisation: How much energy a pion loses in the material; none unless given.
        num_steps: Number of Newton steps at the end.
        adjoint: How the gradient crosses the fit; implicit unless given.

    Returns:
        The tracks in the order of the seeds.

    Raises:
        ValueError: There are no steps, or a temperature is not positive.
    """
    if num_steps < 1 or min(temperatures, default=1.0) <= 0:
        raise ValueError(
            f"`num_steps` is {num_steps} and `temperatures` are {temperatures}; take "
            "at least one step and positive temperatures."
        )
    dtype = position.dtype
    position = jnp.where(mask[:, :, None], position, 0.0)
    odds = jnp.zeros((), dtype) if log_odds is None else log_odds
    errors = jax.vmap(lambda s: errors_at(s, detector, ionisation=ionisation))(seeds)
    arms = Arms(
        position=position,
        mask=mask,
        log_odds=jnp.where(mask[None], odds, 0.0),
        errors=errors,
        detector=detector,
        competition=competition,
        cutoff=jnp.asarray(cutoff, dtype),
        temperature=jnp.asarray(temperature, dtype),
    )
    state = anneal(arms, seeds, temperatures)
    form, alive = information_of(arms, state)
    # A unit and a decision: the root does not depend on either.
    width = jnp.sqrt(jnp.diagonal(jax.vmap(inverse_spd)(form), axis1=1, axis2=2))
    system = System(
        arms=arms,
        start=jax.lax.stop_gradient(state),
        scale=jax.lax.stop_gradient(width),
        alive=alive,
    )
    root = solve_optimality(
        _newton,
        slope,
        system.pack(state),
        system,
        num_steps=num_steps,
        adjoint=optx.ImplicitAdjoint() if adjoint is None else adjoint,
        symmetric=False,
    )
    return _summary(root, system)


def _newton(root: Float[Array, " unknowns"], system: Any) -> Float[Array, " unknowns"]:
    # Kicks do not move the crossings: their columns are cheap on their own.
    is_kick = system.is_kick
    parts = root[~is_kick], root[is_kick]

    def both(track: Any, kicks: Any) -> Float[Array, " unknowns"]:
        joined = jnp.zeros_like(root).at[~is_kick].set(track).at[is_kick].set(kicks)
        return slope(joined, system)

    columns = jax.jacfwd(both, 0)(*parts), jax.jacfwd(both, 1)(*parts)
    jacobian = jnp.zeros((root.shape[0],) * 2, root.dtype)
    jacobian = jacobian.at[:, ~is_kick].set(columns[0]).at[:, is_kick].set(columns[1])
    return root - matvec(inverse_general(jacobian), slope(root, system))


def _summary(root: Float[Array, " unknowns"], system: System) -> ArmsFit:
    state = system.unpack(root)
    views = look(system.arms, state)
    weight = system.arms.weights(views)
    form, alive = information_of(system.arms, state)
    found = system.alive & alive & (layers_with(weight, 0.5) >= 3)
    covariance = jax.vmap(inverse_spd)(form)
    left = distance(root, system, covariance)
    converged = left < 1e2 * jnp.sqrt(jnp.finfo(root.dtype).eps)
    is_phi = jnp.arange(5)[None, :] == 2
    return ArmsFit(
        parameters=jnp.where(is_phi, wrap_angle(state.parameters), state.parameters),
        covariance=covariance,
        weight=weight,
        chi2=jnp.sum(weight * views.square, (1, 2)) + jnp.sum(state.kicks**2, (1, 2)),
        ndf=2 * jnp.sum(weight, axis=(1, 2)) - 5,
        status=jax.vmap(_status)(found, converged),
    )


def _status(found: Bool[Array, ""], converged: Bool[Array, ""]) -> TrackStatus:
    ended = TrackStatus.where(converged, TrackStatus.good, TrackStatus.not_converged)
    return TrackStatus.where(found, ended, TrackStatus.too_few_hits)
