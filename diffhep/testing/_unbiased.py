from typing import NamedTuple

import numpy as np
from jaxtyping import Array, ArrayLike


class Unbiased(NamedTuple):
    """What a comparison of estimates with the exact value found."""

    mean: np.ndarray
    """Mean of the estimates."""
    standard_error: np.ndarray
    """Its standard error."""
    pull: float
    """Largest distance from the exact value, in standard errors."""


def check_unbiased(
    estimates: Array | np.ndarray, exact: ArrayLike, *, num_sigma: float = 4.0
) -> Unbiased:
    """The mean of independent estimates, compared with the exact value.

    Args:
        estimates: Independent estimates along the leading axis, at least two.
        exact: What they estimate, of the shape of one estimate.
        num_sigma: How many standard errors the mean may lie off.

    Returns:
        Mean, standard error and pull.

    Raises:
        AssertionError: The mean lies further off, or an estimate is not finite.
        ValueError: There are fewer than two estimates, or the shapes do not match.
    """
    values, expected = np.asarray(estimates), np.asarray(exact)
    if values.ndim == 0 or values.shape[0] < 2 or values.shape[1:] != expected.shape:
        raise ValueError(
            "`estimates` needs a leading axis of at least 2 and the shape of `exact` "
            f"{expected.shape} behind it, but its shape is {values.shape}."
        )
    if not np.isfinite(values).all():
        raise AssertionError(
            f"{np.sum(~np.isfinite(values))} of {values.size} estimates are not finite."
        )
    mean = values.mean(axis=0)
    error = values.std(axis=0, ddof=1) / np.sqrt(values.shape[0])
    # Estimates without variance must be right to rounding.
    floor = 8 * np.finfo(mean.dtype).eps * np.maximum(np.abs(expected), np.abs(mean))
    distance = np.abs(mean - expected)
    pulls = distance / np.maximum(np.maximum(error, floor), np.finfo(mean.dtype).tiny)
    pull = float(np.max(pulls, initial=0.0))
    if pull > num_sigma:
        worst = np.unravel_index(np.argmax(pulls), pulls.shape)
        raise AssertionError(
            f"The mean of {values.shape[0]} estimates is {mean[worst]:.6g} +- "
            f"{error[worst]:.2g}, which is {pull:.1f} standard errors from the exact "
            f"{expected[worst]:.6g}; at most {num_sigma:g} are allowed."
        )
    return Unbiased(mean, error, pull)
