"""From a sample of weighted events to the templates of a binned model."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ..pipeline import Sample
from ._binned_model import BinnedModel, widest
from ._bins import AbstractBins
from ._uncertainty import expected_uncertainty


class Analysis(eqx.Module):
    """How a sample is turned into a measurement."""

    bins: AbstractBins
    """Bins of `log_ratio`, the logarithm of the density ratio."""
    norm_width: Float[Array, ""] = eqx.field(default_factory=lambda: jnp.asarray(0.1))
    """Relative uncertainty of the background's normalisation (0.1 is 10 per cent)."""
    yields: Float[Array, " 2"] | None = None
    """Expected events of background and of signal before any selection. What the
    weights of the sample add up to unless given: give it for a part of a data set."""
    least_background: Float[Array, ""] | None = None
    """Expected background that is added to each bin. That of about one simulated event
    keeps a bin in which none happened to be found from being taken as free of
    background, which a training would exploit."""
    num_simulated: Float[Array, " 2"] | None = None
    """Effective number of simulated events, (sum w)^2 / sum w^2, of background and of
    signal, whose statistical error the templates bear. None: the templates are taken to
    be exact. Of the whole data set, also where a sample is a part of it. Each bin bears
    the error of one event more than was found in it, because an empty bin is not known
    to be empty."""


class Contributions(eqx.Module):
    """What each entry of a sample adds to each template, ready to be summed."""

    shares: Float[Array, "entries variations bins"]
    """Soft selection times bin membership, 0 to 1."""
    log_weight: Float[Array, " entries"]
    """Logarithm of the weights, with their scores."""
    label: Float[Array, " entries"]
    """1 for signal, 0 for background."""
    index: Int[Array, " entries"]
    """Number of the event: entries of one number are replicas of one event."""


def find_contributions(sample: Sample, bins: AbstractBins) -> Contributions:
    """What each entry adds to each template.

    Args:
        sample: Events with `pass_weight`, `log_ratio` and `label`.
        bins: Bins of `log_ratio`.

    Returns:
        The contributions, in 64 bits wherever JAX has them.

    Raises:
        ValueError: The events lack a field.
    """
    events = widest(sample.events)
    if events.log_ratio is None or events.pass_weight is None or events.label is None:
        raise ValueError(
            "The sample lacks `log_ratio`, `pass_weight` or `label`; name them in "
            "`keep` when you call `run`."
        )
    membership = jax.vmap(jax.vmap(widest(bins).membership))(events.log_ratio)
    shares = events.pass_weight[:, :, None] * membership
    return Contributions(shares, events.log_weight, events.label, events.index)


def fill_templates(
    contributions: Contributions,
    analysis: Analysis,
    *,
    multiplicity: Float[Array, " entries"] | None = None,
) -> BinnedModel:
    """The templates of both processes, each self-normalised.

    A template is the expected yield of the process times a weighted mean over its
    entries, sum(w f) / sum(w). In value that is sum(w f) if `analysis.yields` is not
    given; but the scores in the weights, whose mean vanishes only in expectation, then
    cannot move the total: the normalisation is their baseline. It also means that a
    derivative of the total rate must enter through `analysis.yields`.

    Args:
        contributions: What each entry adds.
        analysis: Uncertainty of the normalisation, and yields.
        multiplicity: How often each entry counts; once unless given.

    Returns:
        The model. A process without entries has empty templates.
    """
    log_weight = contributions.log_weight
    # The same factor above and below: only the totals need it again.
    shift = jax.lax.stop_gradient(jnp.max(log_weight))
    weight = jnp.exp(log_weight - shift)
    if multiplicity is not None:
        weight = weight * multiplicity
    signal = contributions.label
    share = jnp.stack([weight * (1 - signal), weight * signal])
    total = jnp.sum(share, axis=1)
    summed = jnp.tensordot(share, contributions.shares, axes=1)
    some = total > 0
    mean = summed / jnp.where(some, total, 1.0)[:, None, None]
    variance = _variance_of_mean(share, contributions.shares[:, 0], analysis)
    if analysis.yields is None:
        # The derivative of the total is dropped: it is the mean of the scores, which
        # is zero in expectation and noise in a sample.
        yields = jax.lax.stop_gradient(total) * jnp.exp(shift)
    else:
        yields = widest(analysis.yields)
    background, signal = yields[:, None, None] * mean
    if analysis.least_background is not None:
        background = background + widest(analysis.least_background)
    relative = None
    if variance is not None:
        absolute = jnp.sum(yields[:, None] ** 2 * variance, axis=0)
        some = background[0] + signal[0] > 0
        nominal = jnp.where(some, background[0] + signal[0], 1.0)
        relative = jnp.where(some, absolute / nominal**2, 0.0)
    return BinnedModel(
        signal[0],
        signal[1],
        signal[2],
        background[0],
        background[1],
        background[2],
        widest(analysis.norm_width),
        relative,
    )


def _variance_of_mean(
    share: Float[Array, "2 entries"],
    membership: Float[Array, "entries bins"],
    analysis: Analysis,
) -> Float[Array, "2 bins"] | None:
    # Of sum(w f) / sum(w), as if the sample had the number of events of the analysis.
    # Replicas of an event count as one: as if they were all the same. One more event
    # is added to each bin: a bin in which none was found need not be empty.
    if analysis.num_simulated is None:
        return None
    number = widest(analysis.num_simulated)[:, None]
    # The square of a weight has the score of the weight itself.
    square = share * jax.lax.stop_gradient(share)
    total = jnp.sum(square, axis=1)[:, None]
    spread = jnp.tensordot(square, membership**2, axes=1)
    return (spread / jnp.where(total > 0, total, 1.0) + 1 / number) / number


def templates(sample: Sample, analysis: Analysis) -> BinnedModel:
    """The binned model of a sample.

    Args:
        sample: Events with `pass_weight`, `log_ratio` (three variations each: nominal,
            jet energy scale up, down) and `label`.
        analysis: How the sample is turned into a measurement.

    Returns:
        The model, in 64 bits wherever JAX has them.
    """
    return fill_templates(find_contributions(sample, analysis.bins), analysis)


def sample_uncertainty(sample: Sample, analysis: Analysis) -> Float[Array, ""]:
    """The expected uncertainty on the signal strength that a sample predicts.

    A nonlinear function of averages over the sample: consistent, with a bias of order
    one over the number of entries, in value and in derivative. It is too small where
    few entries fill a bin. `bootstrap` estimates the statistical error.

    Args:
        sample: Events with `pass_weight`, `log_ratio` and `label`.
        analysis: How the sample is turned into a measurement.

    Returns:
        One standard deviation; NaN if there is no signal.
    """
    return expected_uncertainty(templates(sample, analysis))
