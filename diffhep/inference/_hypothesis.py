"""Asymptotic hypothesis tests: Cowan, Cranmer, Gross, Vitells, arXiv 1007.1727."""

import equinox as eqx
import jax.numpy as jnp
from jax.scipy.special import ndtr
from jaxtyping import Array, Float

from ..numerics import safe_sqrt
from ._measurement import Measurement, fit_measurement, fit_strengths
from ._newton import FitResult, FitStatus
from ._test_statistics import (
    AbstractOneSidedStatistic,
    BoundedLimitTest,
    deviance,
)


class HypothesisTest(eqx.Module):
    """What the data say about a strength of the signal; NaN where a fit failed."""

    cls: Float[Array, ""]
    """The ratio of `p_tested` to `p_alternative`, by which limits are set."""
    expected_cls: Float[Array, " 5"]
    """The same if the alternative is true and its data fluctuate by -2, -1, 0, 1 and 2
    standard deviations of the fitted strength; for `DiscoveryTest`, whose alternative
    is a signal, by 2 to -2, as in pyhf."""
    p_tested: Float[Array, ""]
    """Probability of a statistic at least as large, if the tested strength is true: for
    the strength zero the p-value of a discovery."""
    p_alternative: Float[Array, ""]
    """The same, if the alternative is true: CL_b of a limit."""
    expected_p_tested: Float[Array, " 5"]
    """`p_tested` of the same fluctuations as `expected_cls`."""
    statistic: Float[Array, ""]
    """The test statistic."""
    asimov_statistic: Float[Array, ""]
    """That of the average data of the alternative."""
    best: Float[Array, ""]
    """The fitted strength."""
    status: FitStatus
    """How the fits ended: converged, or the first failure."""


def hypothesis_test(
    measurement: Measurement,
    strength: Float[Array, ""],
    *,
    statistic: AbstractOneSidedStatistic | None = None,
    num_steps: int = 100,
) -> HypothesisTest:
    """The asymptotic test of a strength of the signal.

    Four fits: of the data, free, with the tested strength and with that of the
    alternative; and of the Asimov data that the last one expects. What these prefer
    freely is known. The derivatives to all that the likelihood holds, and to the
    strength, are exact in first order.

    Args:
        measurement: The measurement.
        strength: The strength that is tested.
        statistic: Which test statistic; `BoundedLimitTest()` unless given.
        num_steps: How many Newton steps each fit may take.

    Returns:
        The outcome.
    """
    chosen = BoundedLimitTest() if statistic is None else statistic
    measurement = chosen.restrict(measurement)
    other = jnp.full_like(strength, chosen.asimov_strength())

    best, tested, alternative = fit_strengths(
        measurement,
        jnp.stack([strength, strength, other]),
        jnp.asarray([False, True, True]),
        num_steps=num_steps,
    )
    rise = deviance(measurement.likelihood, tested, best)
    fitted = best.parameters[measurement.poi]
    value = chosen.value(strength, fitted, rise)
    average = measurement.likelihood.asimov(alternative.parameters)
    expected = fit_measurement(
        eqx.tree_at(lambda m: m.likelihood, measurement, average),
        strength=strength,
        num_steps=num_steps,
    )
    asimov = chosen.value(strength, other, deviance(average, expected, alternative))
    status = first_failure([best, tested, alternative, expected])
    root, reach = safe_sqrt(value), safe_sqrt(asimov)
    displacement = chosen.displacement(root, reach)
    p_tested, p_alternative = ndtr(-(displacement + reach)), ndtr(-displacement)
    # The one that excludes most comes first.
    fluctuations = jnp.asarray([2.0, 1.0, 0.0, -1.0, -2.0], strength.dtype)
    p_expected = ndtr(-(fluctuations + reach))
    numbers = (
        p_tested / p_alternative,
        p_expected / ndtr(-fluctuations),
        p_tested,
        p_alternative,
        p_expected,
        value,
        asimov,
    )
    # What comes of a failed fit may look like a probability.
    good = status == FitStatus.converged
    numbers = (jnp.where(good, x, jnp.nan) for x in numbers)
    return HypothesisTest(*numbers, fitted, status)


def first_failure(fits: list[FitResult]) -> FitStatus:
    """How some fits ended.

    Args:
        fits: The fits.

    Returns:
        Converged, or the first failure.
    """
    status = fits[-1].status
    for fit in fits[-2::-1]:
        good = fit.status == FitStatus.converged
        status = FitStatus.where(good, status, fit.status)
    return status
