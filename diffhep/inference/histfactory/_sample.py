"""Toy experiments."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ._likelihood import expected_data
from ._model import HistFactoryData, HistFactoryModel
from ._prepare import find_places, prepare


def sample_data(
    model: HistFactoryModel,
    parameters: Float[Array, " parameters"],
    *,
    key: PRNGKeyArray,
) -> HistFactoryData:
    """One random experiment: counts and auxiliary data.

    No gradient flows through the draws.

    Args:
        model: The model.
        parameters: The parameters that are true.
        key: Random key.

    Returns:
        The data.
    """
    places, width = find_places(model.layout), prepare(model).width
    average = jax.lax.stop_gradient(expected_data(model, parameters))
    main, normal, poisson = jax.random.split(key, 3)
    dtype = parameters.dtype
    counts = jax.random.poisson(main, average.counts).astype(dtype)
    auxiliary = average.auxiliary
    noise = jax.random.normal(normal, width.shape, dtype) * jax.lax.stop_gradient(width)
    auxiliary = auxiliary.at[places.normal_slot].add(noise)
    events = jax.random.poisson(poisson, auxiliary[places.poisson_slot])
    auxiliary = auxiliary.at[places.poisson_slot].set(events.astype(dtype))
    return HistFactoryData(counts, jnp.asarray(auxiliary))
