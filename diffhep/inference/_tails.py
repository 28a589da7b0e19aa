"""Probabilities from counts of toys, with their errors."""

import jax
import jax.numpy as jnp
from jax.scipy.special import ndtr
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ..numerics import safe_sqrt


# So many times the toys are drawn anew: the errors of bands are good to 7 per cent.
_REPLICAS = 100


def num_good(values: Float[Array, " toys"]) -> Int[Array, ""]:
    """How many toys have a test statistic.

    Args:
        values: Test statistics; NaN where a fit failed.

    Returns:
        The number.
    """
    return jnp.sum(~jnp.isnan(values))


def tail(
    values: Float[Array, " toys"], threshold: Float[Array, ""]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The probability of a test statistic at least as large as a threshold.

    The error is the standard deviation of what one knows of the probability after so
    many successes in so many trials, where one knew nothing before (Casadei,
    arXiv 0908.0130): the binomial one for large numbers, and never zero.

    Args:
        values: Test statistics of toys. Those that are NaN are left out.
        threshold: The threshold. What differs from it by rounding is equal to it.

    Returns:
        The share of the toys, and its error; NaN where the threshold is NaN, or all
        toys are.
    """
    number = num_good(values)
    counted = jnp.sum(values >= threshold - _slack(threshold))
    whole, part = (x.astype(values.dtype) for x in (number, counted))
    share = part / whole
    spread = (part + 1) * (whole - part + 1) / ((whole + 2) ** 2 * (whole + 3))
    known = ~jnp.isnan(threshold) & (number > 0)
    return jnp.where(known, share, jnp.nan), jnp.where(known, spread**0.5, jnp.nan)


def critical_value(
    values: Float[Array, " toys"], level: float
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The least test statistic that at most a given share of the toys exceeds.

    Args:
        values: Test statistics of toys. Those that are NaN are left out.
        level: The share.

    Returns:
        The value; and its error, half of what it changes by where its rank moves by a
        standard deviation up and down. NaN where all toys are.
    """
    whole = num_good(values).astype(values.dtype)
    spread = safe_sqrt(whole * level * (1 - level))
    # NaN is sorted to the end.
    ordered = jnp.sort(values)

    def at(rank: Float[Array, ""]) -> Float[Array, ""]:
        # A whole rank must not become the next by rounding.
        index = jnp.ceil(jnp.clip(rank * (1 - 1e-6), 1, whole)).astype(int) - 1
        return ordered[index]

    rank = (1 - level) * whole
    return at(rank), (at(rank + spread) - at(rank - spread)) / 2


def bands(
    tested: Float[Array, " toys"], alternative: Float[Array, " toys"]
) -> tuple[Float[Array, " 5"], Float[Array, " 5"]]:
    """CLs and p-values that data of the alternative hypothesis give.

    Each of its toys in turn stands for the data, as in pyhf's `ToyCalculator`.

    Args:
        tested: Test statistics of toys of the tested hypothesis.
        alternative: Those of the alternative.

    Returns:
        Quantiles of CLs, and of the p-value of the tested hypothesis, at -2, -1, 0, 1
        and 2 standard deviations of a Gaussian.
    """
    above, own = (_shares(x, alternative) for x in (tested, alternative))
    found = jnp.stack([above / own, above])
    found = jnp.where(jnp.isnan(alternative), jnp.nan, found)
    cls, p_tested = jnp.nanquantile(found, _quantiles(found.dtype), axis=1).T
    return cls, p_tested


def band_errors(
    tested: Float[Array, " toys"],
    alternative: Float[Array, " toys"],
    *,
    key: PRNGKeyArray,
) -> tuple[Float[Array, " 5"], Float[Array, " 5"]]:
    """The statistical errors of `bands`.

    By a bootstrap over toys, and not less than one toy of the tested hypothesis is
    worth.

    Args:
        tested: Test statistics of toys of the tested hypothesis.
        alternative: Those of the alternative.
        key: Random key.

    Returns:
        Errors of both bands.
    """

    def again(key: PRNGKeyArray) -> Float[Array, "2 5"]:
        first, second = jax.random.split(key)
        drawn = (
            jax.random.choice(first, tested, tested.shape),
            jax.random.choice(second, alternative, alternative.shape),
        )
        return jnp.stack(bands(*drawn))

    spread = jnp.std(jax.lax.map(again, jax.random.split(key, _REPLICAS)), axis=0)
    one = 1 / num_good(tested).astype(tested.dtype)
    cls, p_tested = spread
    return jnp.maximum(cls, one / _quantiles(cls.dtype)), jnp.maximum(p_tested, one)


def _slack(threshold: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    # Test statistics of equal data differ by rounding, and in a counting experiment a
    # good share of all toys is equal to the data.
    return jnp.finfo(threshold.dtype).eps ** 0.5 * jnp.maximum(1.0, jnp.abs(threshold))


def _quantiles(dtype: jnp.dtype) -> Float[Array, " 5"]:
    return ndtr(jnp.asarray([-2.0, -1.0, 0.0, 1.0, 2.0], dtype))


def _shares(
    values: Float[Array, " toys"], thresholds: Float[Array, " others"]
) -> Float[Array, " others"]:
    # `tail` of many thresholds.
    ordered = jnp.sort(jnp.where(jnp.isnan(values), -jnp.inf, values))
    below = jnp.searchsorted(ordered, thresholds - _slack(thresholds))
    counted = (values.shape[0] - below).astype(values.dtype)
    return counted / num_good(values).astype(values.dtype)
