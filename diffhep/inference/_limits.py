"""Upper limits, intervals and scans of the strength of a signal."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..numerics import find_root
from ._hypothesis import hypothesis_test
from ._lanes import check_batch_size, fit_in_lanes
from ._measurement import Measurement, fit_measurement, search_measurement
from ._newton import FitResult, FitStatus
from ._search import Search
from ._test_statistics import (
    AbstractOneSidedStatistic,
    BoundedLimitTest,
    TwoSidedTest,
    deviance,
    evaluate,
)


class UpperLimit(eqx.Module):
    """The strengths of the signal above which all are excluded."""

    observed: Float[Array, ""]
    """By the data; NaN where it is not below the highest strength that was tried."""
    expected: Float[Array, " 5"]
    """Without signal, if the data fluctuate by -2, -1, 0, 1 and 2 standard deviations;
    NaN likewise."""


def upper_limit(
    measurement: Measurement,
    *,
    level: float = 0.05,
    highest: Float[Array, ""] | None = None,
    statistic: AbstractOneSidedStatistic | None = None,
) -> UpperLimit:
    """The asymptotic CLs limit, observed and expected.

    By root finding, not by interpolation on a grid; the derivative is the implicit one.

    Args:
        measurement: The measurement.
        level: One minus the confidence level.
        highest: The greatest strength to try; the upper bound of the parameter of
            interest unless given.
        statistic: Which test statistic; `BoundedLimitTest()` unless given.

    Returns:
        The limits.

    Raises:
        ValueError: There is no upper bound, and `highest` is not given.
    """
    if highest is None:
        if measurement.upper is None:
            raise ValueError(
                "The parameter of interest has no upper bound; say with `highest` "
                "where to end the search."
            )
        highest = measurement.upper[measurement.poi]
    chosen = BoundedLimitTest() if statistic is None else statistic
    top = jnp.log(highest)
    # In the logarithm both are almost straight, and the limit has any scale.
    bottom = top - 20.0

    def limit(which: Any) -> Float[Array, ""]:
        return find_root(
            _excess,
            bottom,
            top,
            (measurement, jnp.asarray(level, top.dtype), which, chosen),
            tolerance=1e-11,
        )

    found = jnp.exp(jax.lax.map(limit, jnp.arange(6)))
    return UpperLimit(found[5], found[:5])


def _excess(log_strength: Float[Array, ""], args: Any) -> Float[Array, ""]:
    # Of the logarithm of CLs over that of the limit.
    measurement, level, which, statistic = args
    found = hypothesis_test(measurement, jnp.exp(log_strength), statistic=statistic)
    values = jnp.append(found.expected_cls, found.cls)
    chosen = jnp.sum(jnp.where(jnp.arange(6) == which, values, 0.0))
    tiny = jnp.finfo(level.dtype).tiny
    return jnp.log(jnp.maximum(chosen, tiny)) - jnp.log(level)


def profile_interval(
    measurement: Measurement,
    best: FitResult,
    *,
    rise: float = 1.0,
    reach: float = 8.0,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Where the profile likelihood has fallen: MINOS errors.

    Args:
        measurement: The measurement.
        best: Its free fit.
        rise: The deviance at the ends: 1 for 68.3 per cent of confidence.
        reach: How many parabolic standard deviations away an end may lie.

    Returns:
        The lower and the upper end; a bound of the parameter where the likelihood does
        not fall far enough, NaN where there is none, or where the best fit is on one.
    """
    poi = measurement.poi
    centre = best.parameters[poi]
    width = reach * jnp.sqrt(best.covariance[poi, poi])
    lows = [centre - width]
    if measurement.lower is not None:
        lows.append(measurement.lower[poi])
    highs = [centre + width]
    if measurement.upper is not None:
        highs.append(measurement.upper[poi])
    outer = jnp.stack([jnp.max(jnp.stack(lows)), jnp.min(jnp.stack(highs))])
    args = (measurement, jnp.asarray(rise, centre.dtype))

    def end(far: Float[Array, ""]) -> Float[Array, ""]:
        root = find_root(_shortfall, centre, far, args, tolerance=1e-11)
        # No root up to a bound, because the likelihood does not fall that far.
        bounded = (jnp.abs(far - centre) < width) & (_shortfall(far, args) < 0)
        return jnp.where(jnp.isnan(root) & bounded, far, root)

    low, high = jax.lax.map(end, outer)
    return low, high


def _shortfall(strength: Float[Array, ""], args: Any) -> Float[Array, ""]:
    # Square roots: almost straight on each side of the best fit.
    measurement, rise = args
    best = fit_measurement(measurement)
    conditional = fit_measurement(measurement, strength=strength)
    found = deviance(measurement.likelihood, conditional, best)
    return jnp.sqrt(jnp.maximum(found, jnp.finfo(found.dtype).tiny)) - jnp.sqrt(rise)


class ProfileScan(NamedTuple):
    """A profile likelihood at some strengths of the signal."""

    strength: Float[Array, " points"]
    """The strengths."""
    deviance: Float[Array, " points"]
    """Twice the rise of the negative log-likelihood from its minimum, nuisance
    parameters fitted; not a number where a fit failed."""
    best: Float[Array, ""]
    """The strength at the minimum; not a number where that fit failed."""


def profile_scan(
    measurement: Measurement,
    strengths: Float[Array, " points"],
    *,
    num_steps: int = 100,
    batch_size: int | None = None,
) -> ProfileScan:
    """The profile likelihood along the strength of the signal.

    Where the data are simulated events that represent a truth, its minimum lies there,
    or learnt density ratios are wrong.

    Args:
        measurement: The measurement.
        strengths: Where to fit.
        num_steps: How many Newton steps each fit may take.
        batch_size: How many to fit at a time; one unless given. For accelerators, as in
            `fit_toys`.

    Returns:
        The scan.
    """
    check_batch_size(batch_size)
    best = fit_measurement(measurement, num_steps=num_steps)

    def fit(strength: Float[Array, ""]) -> FitResult:
        return fit_measurement(measurement, strength=strength, num_steps=num_steps)

    def pose(own: Any, strength: Any) -> Search:
        return search_measurement(own, strength=strength, num_steps=num_steps)

    if batch_size is None:
        fits = jax.lax.map(fit, strengths)
    else:
        fits = fit_in_lanes(pose, measurement, strengths, lanes=batch_size)

    def rise(strength: Float[Array, ""], found: FitResult) -> Float[Array, ""]:
        return evaluate(measurement, strength, best, found, statistic=TwoSidedTest())

    found = jax.vmap(rise)(strengths, fits)
    good = best.status == FitStatus.converged
    centre = jnp.where(good, best.parameters[measurement.poi], jnp.nan)
    return ProfileScan(strengths, found, centre)
