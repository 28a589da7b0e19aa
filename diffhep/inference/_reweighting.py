"""Weights from density ratios, and what tells whether these are right."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..numerics import safe_sqrt
from ..pipeline import weighted_mean
from ._bins import AbstractBins


def effective_sample_size(log_weight: Float[Array, " entries"]) -> Float[Array, ""]:
    """How many entries of equal weight have the same statistical error.

    Args:
        log_weight: Logarithm of the weights.

    Returns:
        (sum w)^2 / sum w^2.
    """
    share = jax.nn.softmax(log_weight)
    return 1 / jnp.sum(share**2)


def reweight(
    log_weight: Float[Array, " entries"], log_ratio: Float[Array, " entries"]
) -> Float[Array, " entries"]:
    """Weights that turn one density into another, with the sum of the old ones.

    For example p_4b(x) = w(x) p_2b(x): a background of four b jets from one of two,
    with a ratio that was learnt where there is no signal.

    Args:
        log_weight: Logarithm of the weights of entries from the denominator's density.
        log_ratio: Logarithm of the density ratio at each.

    Returns:
        Logarithm of the new weights. That the ratio's own mean is not 1 is divided
        out; `normalisation` tells by how much.
    """
    changed = log_weight + log_ratio
    total, wanted = (jax.nn.logsumexp(x) for x in (changed, log_weight))
    return changed - total + wanted


class Measured(NamedTuple):
    """A number with its statistical error."""

    value: Float[Array, ""]
    error: Float[Array, ""]


def normalisation(
    log_weight: Float[Array, " entries"], log_ratio: Float[Array, " entries"]
) -> Measured:
    """The mean of a density ratio over its denominator, which is 1 for a right one.

    Args:
        log_weight: Logarithm of the weights of entries from the denominator's density.
        log_ratio: Logarithm of the density ratio at each.

    Returns:
        The mean and its error.
    """
    share = jax.nn.softmax(log_weight)
    ratio = jnp.exp(log_ratio)
    mean = weighted_mean(ratio, log_weight)
    return Measured(mean, safe_sqrt(jnp.sum((share * (ratio - mean)) ** 2)))


class Closure(NamedTuple):
    """Two histograms of a feature that should be the same."""

    reweighted: Float[Array, " bins"]
    """Shares of the reweighted entries."""
    target: Float[Array, " bins"]
    """Shares of the target's entries."""
    error: Float[Array, " bins"]
    """Statistical error of the difference."""
    chi2: Float[Array, ""]
    """Sum of the squared pulls of the bins that are not empty; expected is their
    number. (The pulls are a little anticorrelated, as the shares add up to one.)"""


def closure(
    feature: Float[Array, " entries"],
    log_weight: Float[Array, " entries"],
    target: Float[Array, " others"],
    target_log_weight: Float[Array, " others"],
    *,
    bins: AbstractBins,
) -> Closure:
    """How well a feature of reweighted entries follows that of the target.

    Args:
        feature: The feature of entries from the denominator's density.
        log_weight: Logarithm of their weights after `reweight`.
        target: The feature of entries from the numerator's density.
        target_log_weight: Logarithm of their weights.
        bins: Bins of the feature.

    Returns:
        The comparison, of shapes: both are normalised.
    """
    ours, variance = _shares(feature, log_weight, bins)
    theirs, more = _shares(target, target_log_weight, bins)
    error2 = variance + more
    some = error2 > 0
    pull2 = jnp.where(some, (ours - theirs) ** 2 / jnp.where(some, error2, 1.0), 0.0)
    return Closure(ours, theirs, safe_sqrt(error2), jnp.sum(pull2))


class Overtraining(NamedTuple):
    """Scores of events that were trained on, beside those of others."""

    numerator: Closure
    """Of the class with label 1."""
    denominator: Closure
    """Of the class with label 0."""


class Scores(NamedTuple):
    """What a classifier says of labelled events."""

    score: Float[Array, " entries"]
    """Its output, or any function of that."""
    label: Float[Array, " entries"]
    """1 or 0."""
    log_weight: Float[Array, " entries"]
    """Logarithm of the weights."""


def overtraining(seen: Scores, unseen: Scores, *, bins: AbstractBins) -> Overtraining:
    """Whether a classifier learnt its training events by heart.

    Args:
        seen: Events that it was trained on.
        unseen: Events that it was not trained on.
        bins: Bins of the score.

    Returns:
        The comparison of both classes: what is called `reweighted` are the events of
        the training, and the target are the others.
    """

    def one(label: float) -> Closure:
        sides = (
            (x.score, jnp.where(x.label == label, x.log_weight, -jnp.inf))
            for x in (seen, unseen)
        )
        (ours, weight), (theirs, other) = sides
        return closure(ours, weight, theirs, other, bins=bins)

    return Overtraining(one(1.0), one(0.0))


class Calibration(NamedTuple):
    """How often a classifier is right, in bins of what it says."""

    predicted: Float[Array, " bins"]
    """Mean output."""
    observed: Float[Array, " bins"]
    """Share of entries with label 1."""
    error: Float[Array, " bins"]
    """Statistical error of that."""


def calibration_curve(
    score: Float[Array, " entries"],
    label: Float[Array, " entries"],
    log_weight: Float[Array, " entries"],
    *,
    bins: AbstractBins,
) -> Calibration:
    """The reliability of a classifier: the two numbers agree for a calibrated one.

    Args:
        score: Its output s = p_1 / (p_1 + p_0), 0 to 1.
        label: 1 or 0.
        log_weight: Logarithm of the weights, both classes having the same total.
        bins: Bins of the output.

    Returns:
        The curve; not a number in bins without entries.
    """
    member = jnp.exp(log_weight)[:, None] * jax.vmap(bins.membership)(score)
    total = jnp.sum(member, axis=0)
    predicted = jnp.sum(member * score[:, None], axis=0) / total
    observed = jnp.sum(member * label[:, None], axis=0) / total
    spread = (label[:, None] - observed[None]) ** 2
    error = safe_sqrt(jnp.sum(member**2 * spread, axis=0)) / total
    return Calibration(predicted, observed, error)


def _shares(
    values: Float[Array, " entries"],
    log_weight: Float[Array, " entries"],
    bins: AbstractBins,
) -> tuple[Float[Array, " bins"], Float[Array, " bins"]]:
    # With the variance of a share of a total that fluctuates, too.
    weight = jax.nn.softmax(log_weight)[:, None]
    member = jax.vmap(bins.membership)(values)
    share = jnp.sum(weight * member, axis=0)
    return share, jnp.sum((weight * (member - share[None])) ** 2, axis=0)
