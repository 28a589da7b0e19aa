"""What each parameter does to the strength of the signal."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ._measurement import Measurement
from ._newton import FitResult, FitStatus, fit_likelihood, standard_deviations


class Impacts(eqx.Module):
    """Shifts of the fitted strength of the signal, by parameter."""

    up: Float[Array, " parameters"]
    """With the parameter held one standard deviation above its best value."""
    down: Float[Array, " parameters"]
    """Below."""
    linear: Float[Array, " parameters"]
    """Of the same to first order: the covariance with the strength over the parameter's
    standard deviation."""


def impacts(
    measurement: Measurement, best: FitResult, *, num_steps: int = 100
) -> Impacts:
    """How much of the uncertainty each parameter is responsible for.

    Two fits for each parameter, one after the other: each takes only the steps that it
    needs. The standard deviations are those of the fit.

    Args:
        measurement: The measurement.
        best: Its free fit.
        num_steps: How many Newton steps each fit may take.

    Returns:
        The impacts; zero for the strength itself and for parameters that are not free,
        NaN where a fit fails.
    """
    poi = measurement.poi
    size = best.parameters.shape[0]
    width = standard_deviations(best)
    index = jnp.arange(size)
    counts = best.free & (index != poi)

    def shift(question: Any) -> Float[Array, ""]:
        which, sign = question
        own = index == which
        fixed = own if measurement.fixed is None else own | measurement.fixed
        found = fit_likelihood(
            measurement.likelihood,
            best.parameters + jnp.where(own, sign * width, 0.0),
            lower=measurement.lower,
            upper=measurement.upper,
            fixed=fixed,
            starts=measurement.starts,
            num_steps=num_steps,
        )
        good = found.status == FitStatus.converged
        moved = found.parameters[poi] - best.parameters[poi]
        return jnp.where(good, moved, jnp.nan)

    ones = jnp.ones(size, best.parameters.dtype)
    up, down = (jax.lax.map(shift, (index, sign * ones)) for sign in (1, -1))
    safe = jnp.where(counts, width, 1.0)
    linear = best.covariance[poi] / safe
    return Impacts(*(jnp.where(counts, x, 0.0) for x in (up, down, linear)))
