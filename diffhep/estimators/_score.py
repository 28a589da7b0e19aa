from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ._abstract import AbstractSampler, Gradient
from ._log_weight import score_term


class Score(AbstractSampler):
    """Unbiased: the derivative of the log-probability of the choice made.

    REINFORCE (Williams 1992) in the form of the DiCE factor, which stays in the event's
    weight until a weighted mean or histogram is taken.
    """

    @property
    def gradient(self) -> Gradient:
        """Unbiased."""
        return Gradient.UNBIASED

    def expect(
        self,
        function: Callable[[Float[Array, " options"]], Any],
        logits: Float[Array, " options"],
        *,
        key: PRNGKeyArray,
    ) -> Any:
        """One draw, times its DiCE factor."""
        choice = jax.random.categorical(key, jax.lax.stop_gradient(logits))
        one_hot = jax.nn.one_hot(choice, logits.shape[0], dtype=logits.dtype)
        # `where` and not a product: forbidden options have a logit of minus infinity.
        log_prob = jnp.sum(jax.nn.log_softmax(logits), where=one_hot > 0)
        factor = jnp.exp(self.term(log_prob))
        return jax.tree.map(lambda x: factor * x, function(one_hot))

    def outcome(self, draw: Callable[[], Any], recorded: Any) -> Any:
        """A new draw, whatever was recorded."""
        del recorded
        return draw()

    def term(self, log_prob: Float[Array, ""]) -> Float[Array, ""]:
        """The score term."""
        return score_term(log_prob)
