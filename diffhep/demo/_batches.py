"""Which events go into a training step."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PRNGKeyArray

from ..event import Event


def take(events: Event, chosen: Int[Array, " chosen"]) -> Event:
    """Some events of a batch.

    Args:
        events: A batch of events.
        chosen: Their places in the batch.

    Returns:
        A smaller batch.
    """
    return jax.tree.map(lambda x: x[chosen], events)


def draw_batch(
    events: Event, num_signal: int, num_background: int, *, key: PRNGKeyArray
) -> Event:
    """A random part of a batch, with fixed numbers of both processes.

    Args:
        events: A batch of events.
        num_signal: How many of signal.
        num_background: How many of background.
        key: Random key.

    Returns:
        The events, dealt by multiplicity: see `deal`.
    """
    assert events.label is not None
    label = events.label
    # A random order within each process: the smallest random numbers are chosen.
    rank = jax.random.uniform(key, label.shape)
    signal = jnp.argsort(jnp.where(label > 0.5, rank, 2.0))[:num_signal]
    background = jnp.argsort(jnp.where(label > 0.5, 2.0, rank))[:num_background]
    return deal(take(events, jnp.concatenate([signal, background])))


def deal(events: Event) -> Event:
    """The events, dealt like cards by multiplicity to as many hands as devices.

    Each device then has equal work, and blocks of events of similar size: clustering
    takes as many steps as the largest event of its block.

    Args:
        events: A batch of events, whose number the number of devices divides.

    Returns:
        The same events in another order.
    """
    assert events.particles is not None
    count = jnp.sum(events.particles.mask, axis=1)
    hands = len(jax.devices())
    return take(events, jnp.argsort(count).reshape(-1, hands).T.reshape(-1))
