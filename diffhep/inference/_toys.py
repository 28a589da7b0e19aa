"""Fits of many data sets."""

from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array, Float, PyTree

from ._measurement import Measurement, fit_measurement
from ._newton import FitResult


def fit_toys(
    measurement: Measurement,
    data: PyTree,
    *,
    strength: Float[Array, ""] | None = None,
    num_steps: int = 100,
) -> FitResult:
    """The best fits of many data sets of one measurement.

    One after the other, so that none waits for the slowest, as it would under `vmap`.

    Args:
        measurement: The measurement. Its own data do not matter.
        data: What stands in place of `measurement.likelihood.data`, along a leading
            axis.
        strength: Signal strength to hold; free unless given.
        num_steps: How many Newton steps each fit may take.

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

    return jax.lax.map(fit, data)
