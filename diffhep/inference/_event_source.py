"""Where the events that a density ratio is learnt from come from."""

import abc
import math
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Float, PRNGKeyArray, PyTree, Shaped

from ._learnt_ratio import float_type


class EventBatch(NamedTuple):
    """Events drawn at random, for one step of a training."""

    features: PyTree[Shaped[Array, "entries ..."]]
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

    features: PyTree[Shaped[Array, "entries ..."]]
    """What the network sees: an array, or arrays, along a first axis. Of events without
    weight it may be anything."""
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
        ranks = [(self.parameters, 2, "parameters"), (self.weight, 1, "weight")]
        for column, rank, name in ranks:
            if column is not None and column.ndim != rank:
                raise ValueError(
                    f"`{name}` has the shape {column.shape}, but must have {rank} "
                    "axes: a weight is a number, and parameters are a row, for each "
                    "event; write `x[:, None]` for a single parameter."
                )
        _check_weight(self.weight)

    def draw(self, number: int, *, key: PRNGKeyArray) -> EventBatch:
        """Events, each as likely as any other, with their weights over the mean."""
        first = jax.tree.leaves(self.features)[0]
        index = jax.random.randint(key, (number,), 0, first.shape[0])
        features = jax.tree.map(lambda x: x[index], self.features)
        dtype = float_type(first)
        parameters = jnp.zeros((number, 0), dtype)
        if self.parameters is not None:
            parameters = self.parameters[index]
        if self.weight is None:
            return EventBatch(features, parameters, jnp.ones(number, dtype))
        weight = self.weight[index] / jnp.mean(self.weight)
        # Zero times what is not a number is not a number.
        known = jax.vmap(lambda x, w: jnp.where(w != 0, x, jnp.zeros_like(x)))
        features = jax.tree.map(lambda x: known(x, weight), features)
        return EventBatch(features, known(parameters, weight), weight)


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
        if parameters.ndim != 2:
            raise ValueError(
                f"`prior` draws the shape {parameters.shape[1:]}, but parameters are "
                "an array with one axis, also if there is one only; write `x[None]`."
            )
        features = jax.vmap(self.vary)(batch.features, parameters)
        dtype = float_type(batch.parameters, parameters)
        columns = [x.astype(dtype) for x in (batch.parameters, parameters)]
        return EventBatch(features, jnp.concatenate(columns, axis=1), batch.weight)


def _check_weight(weight: Float[Array, " entries"] | None) -> None:
    # Under a transformation nobody knows the numbers yet.
    if weight is None or isinstance(weight, Tracer):
        return
    total = float(jnp.sum(weight))
    if total == 0 or not math.isfinite(total):
        raise ValueError(
            f"The weights add up to {total}, but what is learnt is a density, which "
            "adds up to one; leave out events whose weight is not finite, and look at "
            "the negative ones."
        )
