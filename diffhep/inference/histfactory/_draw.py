"""Random data around their average."""

import jax
import jax.numpy as jnp
from jax.lax import stop_gradient
from jaxtyping import Array, Float, PRNGKeyArray

from ._model import HistFactoryData
from ._prepare import Prepared, find_places


def draw(
    prepared: Prepared, average: HistFactoryData, *, key: PRNGKeyArray
) -> HistFactoryData:
    """One random experiment: counts, and the outcomes of auxiliary measurements.

    Args:
        prepared: The model.
        average: What it expects.
        key: Random key.

    Returns:
        The data, NaN where the average is negative. No gradient flows through the
        draws.
    """
    places = find_places(prepared.layout)
    average, width = stop_gradient((average, prepared.width))
    main, normal, poisson = jax.random.split(key, 3)
    auxiliary = average.auxiliary
    noise = jax.random.normal(normal, width.shape, auxiliary.dtype) * width
    auxiliary = auxiliary.at[places.normal_slot].add(noise)
    events = _draw_counts(auxiliary[places.poisson_slot], key=poisson)
    auxiliary = auxiliary.at[places.poisson_slot].set(events)
    return HistFactoryData(_draw_counts(average.counts, key=main), auxiliary)


def _draw_counts(
    mean: Float[Array, " counts"], *, key: PRNGKeyArray
) -> Float[Array, " counts"]:
    # A mean that cannot be would give -1: a fit has to fail there.
    possible = mean >= 0
    drawn = jax.random.poisson(key, jnp.where(possible, mean, 0.0))
    return jnp.where(possible, drawn.astype(mean.dtype), jnp.nan)
