"""Where the events that a density ratio is learnt from come from."""

import abc
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree


class EventBatch(NamedTuple):
    """Events drawn at random, for one step of a training."""

    features: PyTree[Float[Array, "entries ..."]]
    """What the network sees of each event."""
    parameters: Float[Array, "entries parameters"]
    """With which parameters of the theory or the detector each was simulated."""
    weight: Float[Array, " entries"]
    """Weights, whose expectation is one. Some may be negative."""


class AbstractEventSource(eqx.Module):
    """Events of one density, or of one density for each value of some parameters."""

    @abc.abstractmethod
    def draw(self, number: int, *, key: PRNGKeyArray) -> EventBatch:
        """Events, independent of each other.

        Args:
            number: How many.
            key: Random key.

        Returns:
            The events.
        """


class StoredEvents(AbstractEventSource):
    """A simulated sample, from which events are drawn with replacement."""

    features: PyTree[Float[Array, "entries ..."]]
    """What the network sees: an array, or arrays, along a first axis."""
    parameters: Float[Array, "entries parameters"] | None = None
    """With which parameters each event was simulated; none unless given. Several
    samples, of a grid of parameters say, are joined along the first axis."""
    weight: Float[Array, " entries"] | None = None
    """Weights, in any unit; the same for all unless given. Some may be negative."""

    def __check_init__(self):
        """Raise where there are not as many of each."""
        columns = jax.tree.leaves((self.features, self.parameters, self.weight))
        sizes = {x.shape[0] if x.ndim else None for x in columns}
        if not jax.tree.leaves(self.features) or len(sizes) > 1 or sizes & {0, None}:
            shapes = ", ".join(str(x.shape) for x in columns)
            raise ValueError(
                f"Features, parameters and weights have the shapes {shapes}, but the "
                "first axis of each is that of the events; give as many of each, and "
                "at least one."
            )

    def draw(self, number: int, *, key: PRNGKeyArray) -> EventBatch:
        """Events, each as likely as any other, with their weights over the mean."""
        first = jax.tree.leaves(self.features)[0]
        index = jax.random.randint(key, (number,), 0, first.shape[0])
        features = jax.tree.map(lambda x: x[index], self.features)
        dtype = first.dtype
        parameters = jnp.zeros((number, 0), dtype)
        if self.parameters is not None:
            parameters = self.parameters[index]
        weight = jnp.ones(number, dtype)
        if self.weight is not None:
            weight = self.weight[index] / jnp.mean(self.weight)
        return EventBatch(features, parameters, weight)


class VariedEvents(AbstractEventSource):
    """Events that are moved to other parameters as they are drawn.

    For variations that can be applied to an event that was simulated without, as
    scales and resolutions can: the density is then known at all values of the
    parameters, of which a simulated grid knows some.
    """

    events: StoredEvents
    """Events without the variation. Their own parameters, if any, come first among
    those of the moved ones."""
    prior: Callable[[PRNGKeyArray], Float[Array, " parameters"]]
    """Draws the parameters of one event. Its density does not matter, but where the
    ratio is to be known there have to be some."""
    vary: Callable[[PyTree, Float[Array, " parameters"]], PyTree]
    """From features and parameters of one event to the moved features."""

    def draw(self, number: int, *, key: PRNGKeyArray) -> EventBatch:
        """Events, each with parameters of its own."""
        which, values = jax.random.split(key)
        batch = self.events.draw(number, key=which)
        parameters = jax.vmap(self.prior)(jax.random.split(values, number))
        features = jax.vmap(self.vary)(batch.features, parameters)
        parameters = jnp.concatenate([batch.parameters, parameters], axis=1)
        return EventBatch(features, parameters, batch.weight)
