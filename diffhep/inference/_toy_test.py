"""Hypothesis tests whose probabilities are counts of toys."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.lax import stop_gradient
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ._hypothesis import first_failure
from ._measurement import Measurement, fit_strengths
from ._newton import FitStatus
from ._tails import band_errors, bands, num_good, tail
from ._test_statistics import (
    AbstractOneSidedStatistic,
    BoundedLimitTest,
    evaluate,
)
from ._toys import toy_statistics


class ToyTest(eqx.Module):
    """What the data say about a strength of the signal, with statistical errors.

    Probabilities and the statistic are NaN where a fit of the data failed.
    """

    cls: Float[Array, ""]
    """The ratio of `p_tested` to `p_alternative`; NaN where the latter is zero."""
    cls_error: Float[Array, ""]
    """Its statistical error."""
    expected_cls: Float[Array, " 5"]
    """Quantiles of `cls` if the alternative is true, at -2, -1, 0, 1 and 2 standard
    deviations of a Gaussian: what excludes most comes first."""
    expected_cls_error: Float[Array, " 5"]
    """Their statistical errors. Next to a jump, as where the statistic of a good share
    of the toys is zero, they are too small: the quantile may be on either side."""
    p_tested: Float[Array, ""]
    """Probability of a statistic at least as large, if the tested strength is true: for
    the strength zero the p-value of a discovery."""
    p_tested_error: Float[Array, ""]
    """Its statistical error."""
    p_alternative: Float[Array, ""]
    """The same, if the alternative is true."""
    p_alternative_error: Float[Array, ""]
    """Its statistical error."""
    expected_p_tested: Float[Array, " 5"]
    """Quantiles of `p_tested` if the alternative is true."""
    expected_p_tested_error: Float[Array, " 5"]
    """Their statistical errors."""
    statistic: Float[Array, ""]
    """The test statistic of the data."""
    tested: Float[Array, " toys"]
    """Those of toys of the tested strength; NaN where a fit failed."""
    alternative: Float[Array, " toys"]
    """Those of toys of the alternative; NaN where a fit failed."""
    failed: Int[Array, " 2"]
    """How many toys of the tested strength and of the alternative failed. They are left
    out: probabilities are shares of the others, which holds only if failures have
    nothing to do with the statistic. Mistrust more than a few."""
    best: Float[Array, ""]
    """The fitted strength."""
    status: FitStatus
    """How the fits of the data ended: converged, or the first failure."""


def toy_hypothesis_test(
    measurement: Measurement,
    strength: Float[Array, ""],
    *,
    statistic: AbstractOneSidedStatistic | None = None,
    num_toys: int = 2000,
    num_steps: int = 100,
    batch_size: int | None = None,
    key: PRNGKeyArray,
) -> ToyTest:
    """The test of a strength of the signal by random experiments.

    Counts and outcomes of auxiliary measurements are drawn anew in each, with the
    nuisance parameters that fit the data best at the strength of the hypothesis (ATLAS
    and CMS, ATL-PHYS-PUB-2011-11), and two fits give its statistic: all as in pyhf's
    `ToyCalculator`. For small numbers of events, where `hypothesis_test` is wrong.

    Nothing of the outcome has a derivative: it is counted.

    Args:
        measurement: The measurement. Its likelihood has to know how to `sample`.
        strength: The strength that is tested.
        statistic: Which test statistic; `BoundedLimitTest()` unless given.
        num_toys: How many toys of either hypothesis.
        num_steps: How many Newton steps each fit may take.
        batch_size: How many toys to fit at a time, as in `fit_toys`.
        key: Random key.

    Returns:
        The outcome.
    """
    # Zero gradients and not the accidental ones of sums over the toys that count.
    measurement, strength = stop_gradient((measurement, strength))
    chosen = BoundedLimitTest() if statistic is None else statistic
    measurement = chosen.restrict(measurement)
    other = jnp.full_like(strength, chosen.asimov_strength())
    fits = fit_strengths(
        measurement,
        jnp.stack([strength, strength, other]),
        jnp.asarray([False, True, True]),
        num_steps=num_steps,
    )
    best, at_tested, at_other = fits
    value = evaluate(measurement, strength, best, at_tested, statistic=chosen)
    draws, replicas = jax.random.split(key)
    tested, alternative = toy_statistics(
        measurement,
        strength,
        jnp.stack([at_tested.parameters, at_other.parameters]),
        statistic=chosen,
        num_toys=num_toys,
        num_steps=num_steps,
        batch_size=batch_size,
        key=draws,
    )
    status = first_failure(fits)
    good = status == FitStatus.converged
    counted = _count(value, tested, alternative, key=replicas)
    numbers = {name: jnp.where(good, x, jnp.nan) for name, x in counted.items()}
    # As a keyword, `cls` would be the class.
    return ToyTest(
        numbers.pop("cls"),
        **numbers,
        tested=tested,
        alternative=alternative,
        failed=num_toys - jnp.stack([num_good(tested), num_good(alternative)]),
        best=best.parameters[measurement.poi],
        status=status,
    )


def _count(
    value: Float[Array, ""],
    tested: Float[Array, " toys"],
    alternative: Float[Array, " toys"],
    *,
    key: PRNGKeyArray,
) -> dict[str, Array]:
    # From name of a field of `ToyTest` to number.
    p_tested, p_alternative = (tail(x, value) for x in (tested, alternative))
    expected = bands(tested, alternative)
    expected_error = band_errors(tested, alternative, key=key)
    pairs = {
        "cls": _ratio(p_tested, p_alternative),
        "p_tested": p_tested,
        "p_alternative": p_alternative,
        "expected_cls": (expected[0], expected_error[0]),
        "expected_p_tested": (expected[1], expected_error[1]),
    }
    numbers = {"statistic": value}
    for name, (number, error) in pairs.items():
        numbers |= {name: number, f"{name}_error": error}
    return numbers


def _ratio(
    top: tuple[Float[Array, ""], Float[Array, ""]],
    bottom: tuple[Float[Array, ""], Float[Array, ""]],
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    # Of two independent numbers with errors.
    some = bottom[0] > 0
    safe = jnp.where(some, bottom[0], 1.0)
    ratio = top[0] / safe
    error = jnp.hypot(top[1], ratio * bottom[1]) / safe
    return jnp.where(some, ratio, jnp.nan), jnp.where(some, error, jnp.nan)
