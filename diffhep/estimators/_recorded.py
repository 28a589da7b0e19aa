from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ._abstract import AbstractSampler, Gradient


class Recorded(AbstractSampler):
    """The outcome of an earlier run, held fixed: the pathwise derivative remains.

    With every choice held fixed the pipeline is a smooth function of its parameters,
    and its gradient can be compared with finite differences to many digits.
    """

    @property
    def gradient(self) -> Gradient:
        """Biased, as a derivative of the expectation: the choices do not respond."""
        return Gradient.BIASED

    def expect(
        self,
        function: Callable[[Float[Array, " options"]], Any],
        logits: Float[Array, " options"],
        *,
        key: PRNGKeyArray,
    ) -> Any:
        """Not defined: a lone expectation has no record to take the outcome from."""
        raise ValueError(
            "`Recorded` holds an event's earlier outcomes fixed and cannot estimate an "
            "expectation of its own; use `Score` or `Enumerate`."
        )

    def outcome(self, draw: Callable[[], Any], recorded: Any) -> Any:
        """The recorded outcome."""
        del draw
        if recorded is None:
            raise ValueError(
                "`Recorded` needs the outcome of an earlier run in the event, but it "
                "has none. Run the pipeline once with `Score` and keep `detected` and "
                "`history`."
            )
        return recorded

    def term(self, log_prob: Float[Array, ""]) -> Float[Array, ""]:
        """Zero, and no derivative."""
        return jnp.zeros_like(jax.lax.stop_gradient(log_prob))
