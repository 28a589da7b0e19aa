from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from ._gradient_estimate import GradientEstimate


def finite_differences(
    function: Callable[[Any, Any], Float[Array, "*replicas"]],
    point: PyTree[Float[Array, "..."]],
    draws: PyTree,
    *,
    step: float | PyTree,
) -> GradientEstimate:
    r"""The derivative of $E[f]$ by central differences with common random numbers.

    The rival of the score function, which needs no log-probability, but two draws for
    each number in `point`. It is biased by `step`: by `step`$^2 / 6$ of the third
    derivative, and where outcomes jump, its variance grows as 1 / `step`.

    Args:
        function: From the parameters and one draw to a number, or to an array of
            replicas of it. It is called on both sides with the same draw.
        point: The parameters at which to differentiate.
        draws: Random keys, of shape (events,); or a structure with a leading axis that
            has keys beside whatever else differs from draw to draw, an event for
            instance.
        step: How far to go to each side, positive: one number for all parameters, or
            one for each array of `point`, in its structure.

    Returns:
        The estimate, in the structure of `point`.

    Raises:
        ValueError: A step is not positive.
    """
    for size in jax.tree.leaves(step):
        if isinstance(size, float | int) and size <= 0:
            raise ValueError(
                f"`step` is {size}, but a difference needs a positive one: a tenth of "
                "the distance over which the mean bends is usual."
            )
    flat, unravel = ravel_pytree(point)
    if jax.tree.structure(step) != jax.tree.structure(point):
        step = jax.tree.map(lambda _: step, point)
    steps, _ = ravel_pytree(jax.tree.map(jnp.full_like, point, step))

    def values(flat: Float[Array, " parameters"]) -> Array:
        return jax.vmap(lambda draw: function(unravel(flat), draw))(draws)

    def along(index: Array) -> Array:
        shift = jnp.zeros_like(flat).at[index].set(steps[index])
        return (values(flat + shift) - values(flat - shift)) / (2 * steps[index])

    slopes = jnp.moveaxis(jax.lax.map(along, jnp.arange(flat.size)), 0, -1)
    axes = slopes.ndim - 1
    for _ in range(axes):
        unravel = jax.vmap(unravel)
    return GradientEstimate.of(unravel(slopes), axes=axes)
