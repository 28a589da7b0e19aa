"""Fits and test statistics of many data sets."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from ._measurement import Measurement, fit_measurement
from ._newton import FitResult
from ._test_statistics import AbstractTestStatistic, profile_statistic


def fit_toys(
    measurement: Measurement,
    data: PyTree,
    *,
    strength: Float[Array, ""] | None = None,
    num_steps: int = 100,
    batch_size: int | None = None,
) -> FitResult:
    """The best fits of many data sets of one measurement.

    One after the other, so that none waits for the slowest, as it would under `vmap`;
    or a few at a time, which wait for the slowest of these only. That is for
    accelerators. On a CPU it is a loss, of the steps that are waited for and more
    (`make bench-histfactory`).

    Args:
        measurement: The measurement. Its own data do not matter.
        data: What stands in place of `measurement.likelihood.data`, along a leading
            axis.
        strength: Signal strength to hold; free unless given.
        num_steps: How many Newton steps each fit may take.
        batch_size: How many to fit at a time; one unless given. The results agree to
            rounding.

    Returns:
        The results, with a leading axis.

    Raises:
        ValueError: The likelihood has no `data`.
    """
    if not hasattr(measurement.likelihood, "data"):
        raise ValueError(
            f"`{type(measurement.likelihood).__name__}` has no `data` to replace; map "
            "over `fit_measurement` with `jax.lax.map`."
        )

    def fit(one: Any) -> FitResult:
        changed = eqx.tree_at(lambda m: m.likelihood.data, measurement, one)
        return fit_measurement(changed, strength=strength, num_steps=num_steps)

    return jax.lax.map(fit, data, batch_size=batch_size)


def toy_statistics(
    measurement: Measurement,
    strength: Float[Array, ""],
    truths: Float[Array, "hypotheses parameters"],
    *,
    statistic: AbstractTestStatistic,
    num_toys: int,
    num_steps: int,
    batch_size: int | None,
    key: PRNGKeyArray,
) -> Float[Array, "hypotheses toys"]:
    """A test statistic of random experiments, the auxiliary measurements included.

    The fits begin where those of the data begin: the statistic is the same function.

    Args:
        measurement: The measurement. Its own data do not matter.
        strength: The strength of the signal that is tested.
        truths: The parameters that are true, for each hypothesis.
        statistic: Which statistic.
        num_toys: How many experiments for each hypothesis.
        num_steps: How many Newton steps each fit may take.
        batch_size: How many experiments at a time; one unless given.
        key: Random key.

    Returns:
        The values; NaN where a fit fails.
    """
    hypotheses = truths.shape[0]

    def toy(question: tuple[Int[Array, ""], PRNGKeyArray]) -> Float[Array, ""]:
        index, key = question
        drawn = measurement.likelihood.sample(truths[index // num_toys], key=key)
        changed = eqx.tree_at(lambda m: m.likelihood, measurement, drawn)
        return profile_statistic(
            changed, strength, statistic=statistic, num_steps=num_steps
        )

    # All in one loop: the fit is compiled once.
    keys = jax.random.split(key, hypotheses * num_toys)
    questions = (jnp.arange(hypotheses * num_toys), keys)
    values = jax.lax.map(toy, questions, batch_size=batch_size)
    return values.reshape(hypotheses, num_toys)
