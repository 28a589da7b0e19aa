"""What tracks and the weights of their hits are where they are fitted together."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ..geometry import AbstractDetector
from ..numerics import inverse_spd, matvec, safe_sqrt
from ._competition import AbstractCompetition
from ._information import LinearTrack, information, respond
from ._measurement import Errors
from ._model import predict, wrap_azimuths


class State(eqx.Module):
    """Tracks, and how they are deflected."""

    parameters: Float[Array, "*tracks 5"]
    """Track parameters; phi not wrapped."""
    kicks: Float[Array, "*tracks layers kinds"]
    """Deflections at the layers in standard deviations, in the order of flight."""


class View(eqx.Module):
    """How the hits lie to a track."""

    jacobian: Float[Array, "*tracks layers 2 5"]
    """Derivative of the prediction to the helix at the layer."""
    deviation: Float[Array, "*tracks layers hits 2"]
    """Measured minus predicted; zero where there is no hit or no crossing."""
    square: Float[Array, "*tracks layers hits"]
    """The same, squared, in units of the errors."""
    present: Bool[Array, "*tracks layers hits"]
    """Where there is a hit on a layer that the track reaches."""


class Arms(eqx.Module):
    """What the tracks are fitted to."""

    position: Float[Array, "layers hits 2"]
    """Measured coordinates, finite."""
    mask: Bool[Array, "layers hits"]
    """Which hits there are."""
    log_odds: Float[Array, "tracks layers hits"]
    """What else is known for a hit."""
    errors: Errors
    """Errors of the hits, for each track."""
    detector: AbstractDetector
    """The detector."""
    competition: AbstractCompetition
    """Who competes for whom."""
    cutoff: Float[Array, ""]
    """Distance at which a hit is as likely noise, in standard deviations."""
    temperature: Float[Array, ""]
    """Temperature after the annealing."""

    def weights(
        self, view: View, temperature: Float[Array, ""] | None = None
    ) -> Float[Array, "tracks layers hits"]:
        """The weights of the hits.

        Args:
            view: How they lie to the tracks.
            temperature: The temperature; that after the annealing unless given.

        Returns:
            The weights, 0 to 1.
        """
        if temperature is None:
            temperature = self.temperature
        energy = (self.log_odds - view.square / 2) / temperature
        return self.competition.weights(
            jnp.where(view.present, energy, -jnp.inf),
            -(self.cutoff**2) / (2 * temperature),
        )


def look(arms: Arms, state: State) -> View:
    """How the hits lie to the tracks.

    Args:
        arms: The hits.
        state: The tracks.

    Returns:
        The view of each track.
    """

    def one(parameters: Any, kicks: Any, errors: Errors) -> View:
        crossings = predict(parameters, arms.detector)
        shift = jnp.sum(errors.kicks * kicks[:, None, :], axis=2)
        # A layer's own kick comes after its hit.
        shift = jnp.cumsum(shift, axis=0) - shift
        if errors.drift is not None:
            shift = shift + errors.drift
        if errors.order is not None:
            shift = shift[jnp.argsort(errors.order)]
        moved = jnp.sum(crossings.jacobian * shift[:, None, :], axis=2)
        apart = arms.position - (crossings.position + moved)[:, None, :]
        apart = wrap_azimuths(apart, arms.detector)
        present = arms.mask & crossings.reached[:, None]
        apart = jnp.where(present[:, :, None], apart, 0.0)
        square = jnp.sum(apart**2 * errors.weight[:, None, :], axis=2)
        jacobian = jnp.where(crossings.reached[:, None, None], crossings.jacobian, 0.0)
        return View(jacobian, apart, square, present)

    return jax.vmap(one)(state.parameters, state.kicks, arms.errors)


def anneal(
    arms: Arms, seeds: Float[Array, "tracks 5"], temperatures: tuple[float, ...]
) -> State:
    """The tracks after fits to all hits with the weights of falling temperatures.

    Args:
        arms: The hits.
        seeds: Track parameters to start from.
        temperatures: The temperatures.

    Returns:
        The tracks. One that loses its hits stays where it was.
    """
    kicks = arms.errors.kicks
    start = State(seeds, jnp.zeros(kicks.shape[:2] + kicks.shape[3:], seeds.dtype))

    def cool(state: State, temperature: Any) -> tuple[State, None]:
        weight = arms.weights(look(arms, state), temperature)
        track, alive = _linear_tracks(arms, state.parameters, weight, temperature)
        return jax.vmap(_refit)(state, track, alive), None

    return jax.lax.scan(cool, start, jnp.asarray(temperatures, seeds.dtype))[0]


def _linear_tracks(
    arms: Arms,
    parameters: Float[Array, "tracks 5"],
    weight: Float[Array, "tracks layers hits"],
    temperature: Float[Array, ""],
) -> tuple[LinearTrack, Bool[Array, " tracks"]]:
    # About tracks without kicks; and whether they have hits enough.
    kicks = arms.errors.kicks
    none = jnp.zeros(kicks.shape[:2] + kicks.shape[3:], kicks.dtype)
    views = look(arms, State(parameters, none))

    def one(view: View, weight: Any, errors: Errors) -> LinearTrack:
        total = jnp.sum(weight, axis=1)
        # Next to nothing has no mean: its derivative would overflow.
        some = (total > jnp.finfo(total.dtype).eps)[:, None]
        share = jnp.where(some, weight, 0.0) / jnp.where(some, total[:, None], 1.0)
        mean = jnp.sum(share[:, :, None] * view.deviation, axis=1)
        rows = jnp.concatenate([view.jacobian, mean[:, :, None]], axis=2)
        inverse = errors.weight * total[:, None] / temperature
        if errors.order is not None:
            rows, inverse = rows[errors.order], inverse[errors.order]
        return LinearTrack(rows, errors.kicks, inverse)

    tracks = jax.vmap(one)(views, weight, arms.errors)
    # Enough to invert a matrix. While it is hot no hit counts for much.
    least = jnp.sqrt(jnp.finfo(weight.dtype).eps)
    return tracks, layers_with(weight, least) >= 3


def layers_with(
    weight: Float[Array, "tracks layers hits"], least: Float[Array, ""] | float
) -> Int[Array, " tracks"]:
    """How many layers a track has hits on.

    Args:
        weight: Weights of the hits.
        least: The sum of them that makes a hit.

    Returns:
        The number for each track.
    """
    return jnp.sum(jnp.sum(weight, axis=2) > least, axis=1)


def _refit(state: State, track: LinearTrack, alive: Bool[Array, ""]) -> State:
    response = respond(track)
    form = _regular(response.form, alive)
    step = matvec(inverse_spd(form[:5, :5]), form[:5, 5])
    # Measured minus predicted, per change of the track and per unit.
    change = jnp.concatenate([-step, jnp.ones_like(step[:1])])
    new = State(
        state.parameters + step, jax.vmap(matvec, (0, None))(response.best, change)
    )
    return jax.tree.map(lambda new, old: jnp.where(alive, new, old), new, state)


def _regular(form: Float[Array, "6 6"], alive: Bool[Array, ""]) -> Float[Array, "6 6"]:
    # With less than three hits the unit matrix stands in.
    return jnp.where(alive, form, jnp.eye(6, dtype=form.dtype))


def information_of(
    arms: Arms, state: State
) -> tuple[Float[Array, "tracks 5 5"], Bool[Array, " tracks"]]:
    """The information matrices of the tracks, for given weights of the hits.

    Args:
        arms: The hits.
        state: The tracks.

    Returns:
        The matrices, and whether there is one: else it is the unit matrix.
    """
    weight = arms.weights(look(arms, state))
    tracks, alive = _linear_tracks(arms, state.parameters, weight, arms.temperature)
    forms = jax.vmap(_regular)(jax.vmap(information)(tracks), alive)
    return forms[:, :5, :5], alive


class System(eqx.Module):
    """The equations that tracks, kicks and weights solve together."""

    arms: Arms
    """The hits."""
    start: State
    """Where a track stays that has too few hits."""
    scale: Float[Array, "tracks 5"]
    """Units of the track parameters."""
    alive: Bool[Array, " tracks"]
    """Which tracks have hits enough."""

    @property
    def is_kick(self) -> Bool[np.ndarray, " unknowns"]:
        """Which unknowns are kicks."""
        tracks, *kicks = self.start.kicks.shape
        return np.tile(np.arange(5 + np.prod(kicks)) >= 5, tracks)

    def pack(self, state: State) -> Float[Array, " unknowns"]:
        """Parameters in their units and kicks, one track after the other.

        Args:
            state: The tracks.

        Returns:
            The unknowns.
        """
        tracks = state.parameters.shape[0]
        kicks = jnp.reshape(state.kicks, (tracks, -1))
        return jnp.ravel(jnp.concatenate([state.parameters / self.scale, kicks], 1))

    def unpack(self, unknowns: Float[Array, " unknowns"]) -> State:
        """The opposite of `pack`.

        Args:
            unknowns: The unknowns.

        Returns:
            The tracks.
        """
        table = jnp.reshape(unknowns, (self.alive.shape[0], -1))
        kicks = jnp.reshape(table[:, 5:], self.start.kicks.shape)
        return State(table[:, :5] * self.scale, kicks)


def slope(
    unknowns: Float[Array, " unknowns"], system: System
) -> Float[Array, " unknowns"]:
    """What vanishes at the solution: the gradient of the log-likelihood.

    Like the slope of `fit_track` it leaves out that kicks bend the track by more or
    less where the track itself changes.

    Args:
        unknowns: Tracks and kicks.
        system: The equations.

    Returns:
        One number for each unknown.
    """
    arms, state = system.arms, system.unpack(unknowns)
    views = look(arms, state)
    weight = arms.weights(views)

    def one(view: View, weight: Any, errors: Errors, state: State) -> State:
        pull = jnp.sum(weight[:, :, None] * view.deviation, axis=1)
        pull = pull * errors.weight / arms.temperature
        push = jnp.sum(view.jacobian * pull[:, :, None], axis=1)
        if errors.order is not None:
            push = push[errors.order]
        # A kick moves what comes after it.
        total = jnp.sum(push, axis=0)
        after = total[None, :] - jnp.cumsum(push, axis=0)
        moved = jnp.sum(errors.kicks * after[:, :, None], axis=1)
        return State(total, moved - state.kicks)

    slopes = jax.vmap(one)(views, weight, arms.errors, state)
    slopes = State(slopes.parameters * system.scale**2, slopes.kicks)
    held = system.pack(system.start) - unknowns
    each = unknowns.shape[0] // system.alive.shape[0]
    return jnp.where(jnp.repeat(system.alive, each), system.pack(slopes), held)


def distance(
    unknowns: Float[Array, " unknowns"],
    system: System,
    covariance: Float[Array, "tracks 5 5"],
) -> Float[Array, " tracks"]:
    """How far the tracks are from the solution.

    Args:
        unknowns: Tracks and kicks.
        system: The equations.
        covariance: Covariance of each track.

    Returns:
        About that many standard deviations; NaN where the fit broke down.
    """
    table = jnp.reshape(slope(unknowns, system), (system.alive.shape[0], -1))

    def one(row: Any, covariance: Any, scale: Any) -> Float[Array, ""]:
        push = row[:5] / scale
        square = jnp.sum(push * matvec(covariance, push)) + jnp.sum(row[5:] ** 2)
        # A matrix that is not positive definite gives NaN, which is no zero.
        return jnp.where(square >= 0, safe_sqrt(square), jnp.nan)

    return jax.vmap(one)(table, covariance, system.scale)
