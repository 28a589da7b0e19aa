from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ._abstract import AbstractEstimator, Gradient


class Enumerate(AbstractEstimator):
    """Exact: every option is evaluated and weighted with its probability.

    Costs one evaluation per option; no random number is used.
    """

    @property
    def gradient(self) -> Gradient:
        """Exact."""
        return Gradient.EXACT

    def expect(
        self,
        function: Callable[[Float[Array, " options"]], Any],
        logits: Float[Array, " options"],
        *,
        key: PRNGKeyArray,
    ) -> Any:
        """The sum over all options."""
        del key
        options = jnp.eye(logits.shape[0], dtype=logits.dtype)
        probability = jax.nn.softmax(logits)
        allowed = probability > 0

        def mean(values: Array) -> Array:
            shape = (-1,) + (1,) * (values.ndim - 1)
            # A forbidden option may be nonsense to `function`: keep it out entirely.
            safe = jnp.where(jnp.reshape(allowed, shape), values, 0)
            return jnp.sum(jnp.reshape(probability, shape) * safe, axis=0)

        return jax.tree.map(mean, jax.vmap(function)(options))
