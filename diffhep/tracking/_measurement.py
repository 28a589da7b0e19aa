import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ..geometry import AbstractDetector
from ..helix import Ionisation
from ._information import LinearTrack
from ._losses import loss_kicks
from ._model import predict, resolution, scattering_kicks, wrap_azimuths
from ._prior import TrackPrior
from ._seed import seed_track


class Errors(eqx.Module):
    """The errors of the hits of a track, taken at a seed."""

    weight: Float[Array, "layers 2"]
    """Inverse variances of the measurements, in the order of the layers."""
    kicks: Float[Array, "layers 5 kicks"]
    """What deflects the track at the layers at random, in the order of flight."""
    drift: Float[Array, "layers 5"] | None
    """How far the helix has moved from that of the perigee where it arrives at a layer,
    by the mean energy loss; in the order of flight."""
    order: Int[Array, " layers"] | None
    """The layers in the order of flight; None if they are so."""


class Measurement(eqx.Module):
    """The hits of one track, and what the fit needs to know of their errors."""

    position: Float[Array, "layers 2"]
    """Measured coordinates, finite."""
    share: Float[Array, " layers"]
    """How much each hit counts; zero where there is none."""
    weight: Float[Array, "layers 2"]
    """Inverse variances with that factor."""
    errors: Errors
    """Errors of the hits."""
    detector: AbstractDetector
    """The detector."""
    prior: TrackPrior | None
    """What is known besides."""
    seed: Float[Array, " 5"]
    """Parameters at which the errors were taken."""


def prepare(
    position: Float[Array, "layers 2"],
    mask: Bool[Array, " layers"],
    detector: AbstractDetector,
    *,
    weight: Float[Array, " layers"] | None,
    seed: Float[Array, " 5"] | None,
    prior: TrackPrior | None,
    ionisation: Ionisation | None,
) -> tuple[Measurement, Bool[Array, ""]]:
    """The hits of a track with their errors, taken at a seed.

    Args:
        position: What was measured on each layer.
        mask: Which hits were found.
        detector: The detector.
        weight: How much each hit counts; one if None.
        seed: Track parameters to start from; made from the hits if None.
        prior: What is known besides; nothing if None.
        ionisation: How much energy is lost; none if None.

    Returns:
        The hits, and whether there are enough: if not, those of another track stand in.
    """
    share = jnp.ones_like(position[:, 0]) if weight is None else weight
    # Three hits that count next to nothing do not determine a track.
    counted = mask & (share > jnp.sqrt(jnp.finfo(position.dtype).eps))
    found = jnp.sum(counted) >= 3
    # Too few hits: those of a canned track stand in.
    canned = predict(detector.example, detector)
    use = counted & found
    safe = jnp.where(use[:, None], position, canned.position)
    counts = jnp.where(use, share, jnp.where(canned.reached & ~found, 1.0, 0.0))
    if seed is None:
        start = seed_track(safe, counts > 0, detector, weight=counts)
    else:
        start = jnp.where(found, seed, detector.example)
    if prior is not None:
        # With it they are not too few, nor do they count too little.
        start = jnp.where(found, start, prior.parameters) if seed is None else seed
        safe = jnp.where(mask[:, None], position, canned.position)
        counts = jnp.where(mask, share, 0.0)
        found = jnp.ones_like(found)
    errors = errors_at(start, detector, ionisation=ionisation)
    hits = Measurement(
        position=safe,
        share=counts,
        weight=errors.weight * counts[:, None],
        errors=errors,
        detector=detector,
        prior=prior,
        seed=start,
    )
    return hits, found


def errors_at(
    seed: Float[Array, " 5"],
    detector: AbstractDetector,
    *,
    ionisation: Ionisation | None,
) -> Errors:
    """The errors of the hits of a track.

    Args:
        seed: Track parameters.
        detector: The detector.
        ionisation: How much energy is lost; none if None.

    Returns:
        The errors.
    """
    crossings = predict(seed, detector)
    kicks = scattering_kicks(seed, crossings, detector)
    drift = None
    if ionisation is not None:
        drift, straggling = loss_kicks(seed, crossings, detector, ionisation)
        kicks = jnp.concatenate([kicks, straggling[:, :, None]], axis=2)
    order = None
    if not detector.ordered:
        order = jnp.argsort(crossings.arc)
        kicks = kicks[order]
        drift = None if drift is None else drift[order]
    if drift is not None:
        # A layer's own loss comes after its hit.
        drift = jnp.cumsum(drift, axis=0) - drift
    weight = 1 / resolution(crossings, detector) ** 2
    return Errors(weight=weight, kicks=kicks, drift=drift, order=order)


def linearise(parameters: Float[Array, " 5"], hits: Measurement) -> LinearTrack:
    """The hits as linear functions of small changes of the track parameters.

    Args:
        parameters: Where to take the derivatives.
        hits: The hits.

    Returns:
        The hits, in the order of flight.
    """
    crossings = predict(parameters, hits.detector)
    residual = wrap_azimuths(hits.position - crossings.position, hits.detector)
    rows = jnp.concatenate([crossings.jacobian, residual[:, :, None]], axis=2)
    weight, errors = hits.weight, hits.errors
    if errors.order is not None:
        rows, weight = rows[errors.order], weight[errors.order]
    # What is out of reach has no derivative that means anything.
    rows = jnp.where((weight > 0)[:, :, None], rows, 0.0)
    if errors.drift is not None:
        moved = jnp.sum(rows[:, :, :5] * errors.drift[:, None, :], axis=2)
        rows = jnp.concatenate([rows[:, :, :5], rows[:, :, 5:] - moved[:, :, None]], 2)
    return LinearTrack(rows, errors.kicks, weight)
