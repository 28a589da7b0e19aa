from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ._abstract import AbstractSampler, Gradient


class Detached(AbstractSampler):
    """Biased: the choice is drawn and its dependence on the parameters is ignored.

    What most simulation code does without saying so. Here to measure what the score is
    worth, and for a last evaluation in which no gradient is wanted.
    """

    @property
    def gradient(self) -> Gradient:
        """Biased: the score is dropped."""
        return Gradient.BIASED

    def expect(
        self,
        function: Callable[[Float[Array, " options"]], Any],
        logits: Float[Array, " options"],
        *,
        key: PRNGKeyArray,
    ) -> Any:
        """One draw."""
        choice = jax.random.categorical(key, jax.lax.stop_gradient(logits))
        return function(jax.nn.one_hot(choice, logits.shape[0], dtype=logits.dtype))

    def outcome(self, draw: Callable[[], Any], recorded: Any) -> Any:
        """A new draw, whatever was recorded."""
        del recorded
        return draw()

    def term(self, log_prob: Float[Array, ""]) -> Float[Array, ""]:
        """Zero, and no derivative."""
        return jnp.zeros_like(jax.lax.stop_gradient(log_prob))
