"""Random data around their average."""

import jax
from jax.lax import stop_gradient
from jaxtyping import PRNGKeyArray

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
        The data. No gradient flows through the draws.
    """
    places = find_places(prepared.layout)
    average, width = stop_gradient((average, prepared.width))
    main, normal, poisson = jax.random.split(key, 3)
    dtype = average.counts.dtype
    counts = jax.random.poisson(main, average.counts).astype(dtype)
    auxiliary = average.auxiliary
    noise = jax.random.normal(normal, width.shape, dtype) * width
    auxiliary = auxiliary.at[places.normal_slot].add(noise)
    events = jax.random.poisson(poisson, auxiliary[places.poisson_slot])
    auxiliary = auxiliary.at[places.poisson_slot].set(events.astype(dtype))
    return HistFactoryData(counts, auxiliary)
