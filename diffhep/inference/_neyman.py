"""Neyman's construction of confidence intervals, from toys."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.lax import stop_gradient
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from ._crossing import last_crossing
from ._hypothesis import first_failure
from ._measurement import Measurement, fit_strengths
from ._newton import FitStatus
from ._tails import critical_value, num_good, tail
from ._test_statistics import (
    AbstractTestStatistic,
    BoundedTwoSidedTest,
    evaluate,
)
from ._toys import toy_statistics


class NeymanInterval(eqx.Module):
    """A confidence interval, and the acceptance regions that it comes from."""

    lower: Float[Array, ""]
    """Where the first accepted stretch begins: the first strength that was tested if
    that is accepted and not above a lower bound of the parameter; NaN if it is accepted
    and there may be others below, and if none is accepted."""
    lower_error: Float[Array, ""]
    """Its statistical error; zero at a bound."""
    upper: Float[Array, ""]
    """Where the last accepted stretch ends, likewise."""
    upper_error: Float[Array, ""]
    """Its statistical error; zero at a bound."""
    strengths: Float[Array, " strengths"]
    """The strengths that were tested."""
    accepted: Bool[Array, " strengths"]
    """Which the data do not exclude; false where a fit failed. May have gaps, from the
    toys' statistical error too."""
    statistic: Float[Array, " strengths"]
    """The test statistic of the data; NaN where a fit failed."""
    critical: Float[Array, " strengths"]
    """The largest one that is accepted; NaN where a fit failed."""
    critical_error: Float[Array, " strengths"]
    """Its statistical error. In a counting experiment, where the statistic has few
    values, zero as a rule: see `p_value_error`."""
    p_value: Float[Array, " strengths"]
    """Probability of a statistic at least as large as that of the data, if the strength
    is true; NaN where a fit failed."""
    p_value_error: Float[Array, " strengths"]
    """Its statistical error."""
    failed: Int[Array, " strengths"]
    """How many toys failed. They are left out, as in `ToyTest`."""
    status: FitStatus
    """How the fits of the data ended, for each strength."""


def neyman_interval(
    measurement: Measurement,
    strengths: Float[Array, " strengths"],
    *,
    level: float = 0.05,
    statistic: AbstractTestStatistic | None = None,
    num_toys: int = 2000,
    num_steps: int = 100,
    batch_size: int | None = None,
    key: PRNGKeyArray,
) -> NeymanInterval:
    r"""The strengths of the signal in whose acceptance regions the data lie.

    The acceptance region of a strength has the data with the smallest test statistics,
    as many as together have the confidence level, or just more where data are discrete.
    With the default statistic this is the unified approach of Feldman and Cousins
    (physics/9711021), which covers at least as often as it says. Nuisance parameters
    have the values that fit the data best at each strength: the profile construction
    (Cranmer, physics/0310108), which covers approximately.

    The ends lie on the straight line, in the p-value, between an accepted strength and
    the next: in a counting experiment, whose p-values jump, they are as good as the
    steps of the strengths. Choose steps in which the p-value changes by more than its
    error: of many that are not, the last one that happens to be accepted is too far.

    Nothing of the outcome has a derivative: it is counted.

    Args:
        measurement: The measurement. Its likelihood has to know how to `sample`.
        strengths: The strengths to test, rising. Beyond a bound of the parameter the
            bound is tested.
        level: One minus the confidence level.
        statistic: Which test statistic; `BoundedTwoSidedTest()` unless given.
        num_toys: How many toys of each strength.
        num_steps: How many Newton steps each fit may take.
        batch_size: How many toys to fit at a time, as in `fit_toys`.
        key: Random key.

    Returns:
        The interval.
    """
    # Zero gradients and not the accidental ones of the interpolation.
    measurement, strengths = stop_gradient((measurement, strengths))
    chosen = BoundedTwoSidedTest() if statistic is None else statistic
    measurement = chosen.restrict(measurement)
    strengths = _within_bounds(measurement, strengths)

    def construct(question: tuple[Float[Array, ""], PRNGKeyArray]) -> Any:
        strength, key = question
        fits = fit_strengths(
            measurement,
            jnp.stack([strength, strength]),
            jnp.asarray([False, True]),
            num_steps=num_steps,
        )
        value = evaluate(measurement, strength, *fits, statistic=chosen)
        (toys,) = toy_statistics(
            measurement,
            strength,
            fits[1].parameters[None],
            statistic=chosen,
            num_toys=num_toys,
            num_steps=num_steps,
            batch_size=batch_size,
            key=key,
        )
        failed = num_toys - num_good(toys)
        status = first_failure(fits)
        good = status == FitStatus.converged
        region = (jnp.where(good, x, jnp.nan) for x in critical_value(toys, level))
        return value, tuple(region), tail(toys, value), failed, status

    keys = jax.random.split(key, strengths.shape[0])
    found = jax.lax.map(construct, (strengths, keys))
    value, (critical, critical_error), (p_value, p_error), failed, status = found
    ends = _ends(measurement, strengths, p_value, p_error, level)
    return NeymanInterval(
        **ends,
        strengths=strengths,
        accepted=p_value > level,
        statistic=value,
        critical=critical,
        critical_error=critical_error,
        p_value=p_value,
        p_value_error=p_error,
        failed=failed,
        status=status,
    )


def _within_bounds(
    measurement: Measurement, strengths: Float[Array, " strengths"]
) -> Float[Array, " strengths"]:
    if measurement.lower is not None:
        strengths = jnp.maximum(strengths, measurement.lower[measurement.poi])
    if measurement.upper is not None:
        strengths = jnp.minimum(strengths, measurement.upper[measurement.poi])
    return strengths


def _ends(
    measurement: Measurement,
    strengths: Float[Array, " strengths"],
    p_value: Float[Array, " strengths"],
    p_error: Float[Array, " strengths"],
    level: float,
) -> dict[str, Float[Array, ""]]:
    lower, upper, poi = measurement.lower, measurement.upper, measurement.poi
    bounded = jnp.asarray([False, False])
    if lower is not None:
        bounded = bounded.at[0].set(strengths[0] <= lower[poi])
    if upper is not None:
        bounded = bounded.at[1].set(strengths[-1] >= upper[poi])
    found = {}
    for index, (name, order) in enumerate((("lower", -1), ("upper", 1))):
        x, p, error = (a[::order] for a in (strengths, p_value, p_error))
        end, spread = last_crossing(x, p, error, level)
        whole = bounded[index] & (p[-1] > level)
        found[name] = jnp.where(whole, x[-1], end)
        found[f"{name}_error"] = jnp.where(whole, 0.0, spread)
    return found
