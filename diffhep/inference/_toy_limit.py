"""Upper limits from toys."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ._crossing import last_crossing
from ._measurement import Measurement
from ._test_statistics import AbstractOneSidedStatistic
from ._toy_test import ToyTest, toy_hypothesis_test


class ToyLimit(eqx.Module):
    """The strengths of the signal above which all are excluded, from toys."""

    observed: Float[Array, ""]
    """By the data; NaN where it is not between the strengths that were tested."""
    observed_error: Float[Array, ""]
    """Its statistical error."""
    expected: Float[Array, " 5"]
    """Without signal, quantiles at -2, -1, 0, 1 and 2 standard deviations of a
    Gaussian; NaN likewise."""
    expected_error: Float[Array, " 5"]
    """Their statistical errors."""
    strengths: Float[Array, " strengths"]
    """The strengths that were tested."""
    tests: ToyTest
    """The test of each, along a leading axis."""


def toy_upper_limit(
    measurement: Measurement,
    strengths: Float[Array, " strengths"],
    *,
    level: float = 0.05,
    statistic: AbstractOneSidedStatistic | None = None,
    num_toys: int = 2000,
    num_steps: int = 100,
    batch_size: int | None = None,
    key: PRNGKeyArray,
) -> ToyLimit:
    """The CLs limit by random experiments, observed and expected.

    Each strength is tested with toys of its own; the limit lies on the straight line
    between the last one that is not excluded and the next. Choose steps in which CLs
    falls by more than its error: of many that are not, the last one that happens to lie
    above the level is too high.

    Nothing of the outcome has a derivative: it is counted.

    Args:
        measurement: The measurement. Its likelihood has to know how to `sample`.
        strengths: The strengths to test, rising.
        level: One minus the confidence level.
        statistic: Which test statistic; `BoundedLimitTest()` unless given.
        num_toys: How many toys of either hypothesis, for each strength.
        num_steps: How many Newton steps each fit may take.
        batch_size: How many toys to fit at a time, as in `fit_toys`.
        key: Random key.

    Returns:
        The limits, and the tests that they come from.
    """

    def test(question: tuple[Float[Array, ""], PRNGKeyArray]) -> ToyTest:
        strength, key = question
        return toy_hypothesis_test(
            measurement,
            strength,
            statistic=statistic,
            num_toys=num_toys,
            num_steps=num_steps,
            batch_size=batch_size,
            key=key,
        )

    strengths = jax.lax.stop_gradient(strengths)  # as all that is counted
    tests = jax.lax.map(test, (strengths, jax.random.split(key, strengths.shape[0])))
    values = jnp.concatenate([tests.cls[:, None], tests.expected_cls], axis=1)
    errors = jnp.concatenate(
        [tests.cls_error[:, None], tests.expected_cls_error], axis=1
    )
    ends, spreads = jax.vmap(lambda v, e: last_crossing(strengths, v, e, level))(
        values.T, errors.T
    )
    return ToyLimit(ends[0], spreads[0], ends[1:], spreads[1:], strengths, tests)
