import abc
import enum
from collections.abc import Callable
from typing import Any, TypeVar

import equinox as eqx
from jaxtyping import Array, Float, PRNGKeyArray, PyTree


_Outcome = TypeVar("_Outcome", bound=PyTree)


class Gradient(enum.Enum):
    """What a stage promises about the gradient that it passes on."""

    EXACT = "exact"
    """The derivative of what was computed, to rounding."""
    UNBIASED = "unbiased"
    """A random number whose expectation is the derivative of the expectation."""
    BIASED = "biased"
    """Something is dropped; the stage's documentation says what."""


class AbstractEstimator(eqx.Module):
    """How gradients cross a discrete choice."""

    @property
    @abc.abstractmethod
    def gradient(self) -> Gradient:
        """What the estimator promises."""

    @abc.abstractmethod
    def expect(
        self,
        function: Callable[[Float[Array, " options"]], Any],
        logits: Float[Array, " options"],
        *,
        key: PRNGKeyArray,
    ) -> Any:
        """An estimate of the expectation of `function` over one categorical choice.

        Args:
            function: From the one-hot choice to arrays.
            logits: Unnormalised log-probabilities; minus infinity forbids an option.
            key: Random key.

        Returns:
            The estimate, whose derivative estimates that of the expectation.
        """


class AbstractSampler(AbstractEstimator):
    """An estimator that goes on with one outcome, as the stages of a pipeline must.

    A stage asks for an `outcome`, and adds `term` of the outcome's log-probability
    to the event's `log_weight`. That works for choices of any kind: a category,
    three hundred hits found or lost, a whole clustering history.
    """

    @abc.abstractmethod
    def outcome(
        self, draw: Callable[[], _Outcome], recorded: _Outcome | None
    ) -> _Outcome:
        """The outcome to go on with.

        Args:
            draw: Draws an outcome.
            recorded: The outcome of the same choice in an earlier run, if the event
                carries one.

        Returns:
            One of the two.
        """

    @abc.abstractmethod
    def term(self, log_prob: Float[Array, ""]) -> Float[Array, ""]:
        """What to add to the event's `log_weight`.

        Args:
            log_prob: Log-probability of the outcome, differentiable in whatever it
                depends on.

        Returns:
            A number that is zero in value.
        """
