"""Fits and test statistics of many data sets."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from ..numerics import LoopEnds
from ._lanes import check_batch_size, fit_in_lanes, search_in_lanes
from ._likelihood import AbstractLikelihood
from ._measurement import Measurement, fit_measurement, search_measurement
from ._newton import FitResult
from ._search import Search
from ._test_statistics import AbstractTestStatistic, profile_statistic
from ._toy_lanes import statistics_in_lanes


_Question = tuple[Int[Array, ""], PRNGKeyArray]
# How many toys a lane fits before it waits for the others.
_ROUND = 16


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
    or some at a time, and the next one begins as soon as one of these has ended. That
    is for accelerators: on a CPU a step of many together takes longer than the same
    steps one by one (`make bench-histfactory`).

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
        ValueError: The likelihood has no `data`, or the batch has no size.
    """
    check_batch_size(batch_size)
    if not hasattr(measurement.likelihood, "data"):
        raise ValueError(
            f"`{type(measurement.likelihood).__name__}` has no `data` to replace; map "
            "over `fit_measurement` with `jax.lax.map`."
        )

    def fit(one: Any) -> FitResult:
        changed = _observe(measurement, one)
        return fit_measurement(changed, strength=strength, num_steps=num_steps)

    def pose(shared: Any, one: Any) -> Search:
        own, held = shared
        changed = _observe(own, one)
        return search_measurement(changed, strength=held, num_steps=num_steps)

    if batch_size is None:
        return jax.lax.map(fit, data)
    return fit_in_lanes(pose, (measurement, strength), data, lanes=batch_size)


def _observe(measurement: Measurement, data: Any) -> Measurement:
    return eqx.tree_at(lambda m: m.likelihood.data, measurement, data)


def search_toys(measurement: Measurement, data: PyTree, lanes: int) -> LoopEnds:
    """The searches of `fit_toys` alone, which tell how many steps they take.

    Args:
        measurement: The measurement. Its own data do not matter.
        data: What stands in place of `measurement.likelihood.data`, along a leading
            axis.
        lanes: How many to fit at a time.

    Returns:
        The last states.
    """

    def pose(own: Any, one: Any) -> Search:
        return search_measurement(_observe(own, one))

    return search_in_lanes(pose, measurement, data, lanes=lanes)


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
        batch_size: How many fits at a time; one unless given. The data of
            16 times as many toys are in memory.
        key: Random key.

    Returns:
        The values; NaN where a fit fails.
    """
    check_batch_size(batch_size)
    hypotheses = truths.shape[0]
    number = hypotheses * num_toys

    def draw(question: _Question) -> AbstractLikelihood:
        index, key = question
        return measurement.likelihood.sample(truths[index // num_toys], key=key)

    def toy(question: _Question) -> Float[Array, ""]:
        changed = eqx.tree_at(lambda m: m.likelihood, measurement, draw(question))
        return profile_statistic(
            changed, strength, statistic=statistic, num_steps=num_steps
        )

    # All in one loop: the fit is compiled once.
    questions = (jnp.arange(number), jax.random.split(key, number))
    if batch_size is None:
        return jax.lax.map(toy, questions).reshape(hypotheses, num_toys)
    # In few rounds of one size: what each has to wait for at its end is little.
    rounds = max(-(-number // (_ROUND * batch_size)), 1)
    size = -(-number // rounds)
    padded = jnp.minimum(jnp.arange(rounds * size), number - 1).reshape(rounds, size)

    def some(index: Int[Array, " toys"]) -> Float[Array, " toys"]:
        return statistics_in_lanes(
            measurement,
            strength,
            draw,
            jax.tree.map(lambda x: x[index], questions),
            statistic=statistic,
            num_steps=num_steps,
            lanes=batch_size,
        )

    values = jax.lax.map(some, padded).reshape(-1)[:number]
    return values.reshape(hypotheses, num_toys)
