"""Which events go into a training step."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

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
    events: Event,
    preference: Float[Array, " events"],
    *,
    num_each: int,
    key: PRNGKeyArray,
) -> Event:
    """A random part of a batch, as many events of signal as of background.

    Importance sampling: an event that is drawn more often than another of its process
    weighs less, so that every weighted mean has the same expectation. Events may be
    drawn more than once.

    Args:
        events: A batch of events.
        preference: How often to draw each event, relative to others of its process;
            above zero.
        num_each: How many events of each process.
        key: Random key.

    Returns:
        The events, dealt by multiplicity: see `deal`.
    """
    assert events.label is not None
    chosen, shares = [], []
    keys = jax.random.split(key)
    for process, part in enumerate(keys):
        share = jnp.where(jnp.round(events.label) == process, preference, 0.0)
        share = share / jnp.sum(share)
        some = jax.random.choice(part, share.shape[0], (num_each,), p=share)
        chosen.append(some)
        shares.append(share[some])
    batch = take(events, jnp.concatenate(chosen))
    log_share = jnp.log(num_each * jnp.concatenate(shares))
    # Not `replace`, which is for one event and checks its shapes.
    return deal(
        eqx.tree_at(lambda e: e.log_weight, batch, batch.log_weight - log_share)
    )


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
