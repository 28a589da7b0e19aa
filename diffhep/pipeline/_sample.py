import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..event import Event


class Sample(eqx.Module):
    """Weighted events, ready for an analysis. Analysis functions take it to a number.

    Reductions are self-normalised: the normalisation acts as a baseline of the score.
    """

    events: Event
    """A batch with one leading axis `entries` (events times replicas)."""

    @classmethod
    def from_events(cls, events: Event) -> "Sample":
        """The sample of a batch, with all leading axes made one.

        Args:
            events: What `run` returned: a batch, of replicas perhaps.

        Returns:
            The sample.
        """
        axes = events.log_weight.ndim
        return cls(
            jax.tree.map(lambda x: jnp.reshape(x, (-1, *x.shape[axes:])), events)
        )

    @property
    def log_weight(self) -> Float[Array, " entries"]:
        """Logarithm of the weights, with their scores."""
        return self.events.log_weight


def weighted_mean(
    values: Float[Array, " entries"], log_weight: Float[Array, " entries"]
) -> Float[Array, ""]:
    """The self-normalised weighted mean.

    Consistent, with a bias of order one over the number of entries.

    Args:
        values: One number per entry.
        log_weight: Logarithm of the weights, with their scores.

    Returns:
        The mean, in the unit of the values.
    """
    return jnp.sum(jax.nn.softmax(log_weight) * values)
