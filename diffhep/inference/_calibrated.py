"""From classifiers to density ratios: ensembles and calibration.

Convention: trained with both classes of equal total weight, a classifier's output is
s = p_1 / (p_1 + p_0), so that its logit is the logarithm of the density ratio of class
1 to class 0, log(p_1 / p_0) = log(s / (1 - s)).
"""

import abc
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize
from jaxtyping import Array, Float


def mean_ratio(
    log_ratios: Float[Array, "members *entries"],
) -> Float[Array, "*entries"]:
    """The ratio of an ensemble: the mean of its members' ratios.

    Not of their logarithms or outputs: a ratio is to integrate to one over the
    denominator's density, which means of ratios keep.

    Args:
        log_ratios: Logarithms of the density ratios of each member.

    Returns:
        The logarithm of the mean.
    """
    number = jnp.log(jnp.asarray(log_ratios.shape[0], log_ratios.dtype))
    return jax.nn.logsumexp(log_ratios, axis=0) - number


class AbstractCalibration(eqx.Module):
    """A map from a classifier's logit to one that is right on average."""

    @abc.abstractmethod
    def __call__(self, logit: Float[Array, ""]) -> Float[Array, ""]:
        """The calibrated logit.

        Args:
            logit: The classifier's.

        Returns:
            The logarithm of the density ratio.
        """


class PiecewiseCalibration(AbstractCalibration):
    """Linear between given logits, and parallel to the identity beyond."""

    logits: Float[Array, " knots"]
    """The classifier's, increasing."""
    calibrated: Float[Array, " knots"]
    """What they are to be."""

    def __call__(self, logit: Float[Array, ""]) -> Float[Array, ""]:
        """The calibrated logit, differentiable."""
        inside = jnp.clip(logit, self.logits[0], self.logits[-1])
        return jnp.interp(inside, self.logits, self.calibrated) + logit - inside


def histogram_calibration(
    logit: Float[Array, " entries"],
    label: Float[Array, " entries"],
    log_weight: Float[Array, " entries"],
    *,
    num_bins: int = 20,
) -> PiecewiseCalibration:
    """A calibration from the share of class 1 in bins of the logit.

    Args:
        logit: The classifier's, of entries that it was not trained on.
        label: 1 or 0.
        log_weight: Logarithm of the weights. Each class is given the total one half.
        num_bins: Bins, each with the same weight of both classes together.

    Returns:
        The map, through the means of the bins.

    Raises:
        ValueError: A class has no entries, or there are fewer entries than bins.
    """
    values = _by_value(logit, label, log_weight)
    if not 2 <= num_bins <= len(values.logit):
        raise ValueError(
            f"`num_bins` is {num_bins}, but must be at least 2 and at most the number "
            f"of different logits, {len(values.logit)}."
        )
    # A bin ends where the weight so far has reached its share.
    place = np.cumsum(values.weight) - values.weight / 2
    index = np.minimum((place * num_bins).astype(int), num_bins - 1)
    return _through_blocks(values, index)


def isotonic_calibration(
    logit: Float[Array, " entries"],
    label: Float[Array, " entries"],
    log_weight: Float[Array, " entries"],
) -> PiecewiseCalibration:
    """The increasing calibration that is likeliest.

    Isotonic regression (Zadrozny, Elkan, KDD 2002, doi 10.1145/775047.775151) by SciPy.

    Args:
        logit: The classifier's, of entries that it was not trained on.
        label: 1 or 0.
        log_weight: Logarithm of the weights. Each class is given the total one half.

    Returns:
        The map, through the means of the blocks.

    Raises:
        ValueError: A class has no entries.
    """
    values = _by_value(logit, label, log_weight)
    share = values.ones / values.weight
    found = scipy.optimize.isotonic_regression(share, weights=values.weight)
    index = np.repeat(np.arange(len(found.blocks) - 1), np.diff(found.blocks))
    return _through_blocks(values, index)


class _Values(NamedTuple):
    """Entries of the same logit together, by rising logit."""

    logit: np.ndarray
    weight: np.ndarray
    ones: np.ndarray
    """The part of the weight with label 1."""
    squares: np.ndarray
    """Sum of the squared weights of the entries."""


def _by_value(logit: Array, label: Array, log_weight: Array) -> _Values:
    logits, labels, logs = (np.asarray(x, float) for x in (logit, label, log_weight))
    if not np.isin(labels, (0, 1)).all():
        raise ValueError(
            f"`label` holds {np.unique(labels)}, but must be 0 or 1 for each entry."
        )
    weights = np.exp(logs - logs.max(initial=-np.inf))
    totals = np.array([weights[labels == k].sum() for k in (0, 1)])
    if not (totals > 0).all():
        raise ValueError(
            f"The entries have the total weights {totals[0]:g} of label 0 and "
            f"{totals[1]:g} of label 1; a calibration needs both classes."
        )
    weights = weights / (2 * totals[labels.astype(int)])
    places, index = np.unique(logits, return_inverse=True)
    sums = (np.bincount(index, x) for x in (weights, weights * labels, weights**2))
    return _Values(places, *sums)


def _through_blocks(values: _Values, index: np.ndarray) -> PiecewiseCalibration:
    total, ones, sums, squares = (
        np.bincount(index, x)
        for x in (
            values.weight,
            values.ones,
            values.weight * values.logit,
            values.squares,
        )
    )
    filled = total > 0
    total, ones, sums, squares = (x[filled] for x in (total, ones, sums, squares))
    # A block of one class only is not certain: half an entry may be of the other.
    least = np.minimum(0.5 * squares / total**2, 0.5)
    share = np.clip(ones / total, least, 1 - least)
    wanted = np.log(share) - np.log1p(-share)
    return PiecewiseCalibration(jnp.asarray(sums / total), jnp.asarray(wanted))
