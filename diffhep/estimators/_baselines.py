import abc

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from ._log_weight import leave_one_out


class AbstractBaseline(eqx.Module):
    """What a result is compared with before it multiplies a score.

    A score has the mean zero, so that what does not depend on the choice may be taken
    off: only the noise changes.
    """

    @abc.abstractmethod
    def of(
        self, values: Float[Array, "events replicas"]
    ) -> Float[Array, "events replicas"]:
        """The baseline of each value.

        Args:
            values: Results of replicas of events.

        Returns:
            What to take off each of them.
        """


class AbstractEventBaseline(AbstractBaseline):
    """A baseline that needs one event at a time, as a stage sees it."""

    @property
    @abc.abstractmethod
    def least_replicas(self) -> int:
        """How many replicas it needs."""

    @abc.abstractmethod
    def centre(self, terms: Float[Array, " replicas"]) -> Float[Array, " replicas"]:
        """The same baseline as a change of the weights, whatever they will multiply.

        Args:
            terms: What each replica's choices added to `log_weight`.

        Returns:
            Terms of the same value.
        """


class LeaveOneOut(AbstractEventBaseline):
    """The mean of the other replicas of the event: unbiased, and the least noise."""

    @property
    def least_replicas(self) -> int:
        """Two."""
        return 2

    def of(
        self, values: Float[Array, "events replicas"]
    ) -> Float[Array, "events replicas"]:
        """The mean of the others in the row."""
        number = values.shape[1]
        if number < 2:
            raise ValueError(
                f"Leave-one-out baselines need at least 2 replicas, but there is "
                f"{number}; draw more, or use `BatchMean`."
            )
        return (jnp.sum(values, axis=1, keepdims=True) - values) / (number - 1)

    def centre(self, terms: Float[Array, " replicas"]) -> Float[Array, " replicas"]:
        """As `leave_one_out`."""
        return leave_one_out(terms)


class BatchMean(AbstractBaseline):
    """The mean of all values of all events.

    It contains the value itself, so that a gradient is short by a factor 1 - 1/n for n
    values. It is what the normalisation of `pipeline.weighted_mean` does; a stage,
    which sees one event, cannot. Between events it leaves all the noise.
    """

    def of(
        self, values: Float[Array, "events replicas"]
    ) -> Float[Array, "events replicas"]:
        """The mean of all."""
        return jnp.full_like(values, jnp.mean(values))


class NoBaseline(AbstractEventBaseline):
    """Nothing: the plain score function, unbiased."""

    @property
    def least_replicas(self) -> int:
        """One."""
        return 1

    def of(
        self, values: Float[Array, "events replicas"]
    ) -> Float[Array, "events replicas"]:
        """Zero."""
        return jnp.zeros_like(values)

    def centre(self, terms: Float[Array, " replicas"]) -> Float[Array, " replicas"]:
        """The terms as they are."""
        return terms
