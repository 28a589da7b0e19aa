"""The training loop that benchmarks share."""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import numpy as np
import optax


def train(
    loss: Callable,
    network: Any,
    events: Sequence[Any],
    *,
    steps: int,
    batch: int,
    rate: float,
    key: Any,
) -> Any:
    """Adam on batches drawn from all events, with a cosine schedule.

    Args:
        loss: Of the network, a batch of each kind of events, and a random key.
        network: Where to begin.
        events: Arrays, one of each kind of events.
        steps: How many batches.
        batch: Events of each kind in one.
        rate: The first learning rate.
        key: Random key.

    Returns:
        The trained network.

    Raises:
        RuntimeError: The loss was not finite.
    """
    optimiser = optax.adam(optax.cosine_decay_schedule(rate, steps))
    arrays, static = eqx.partition(network, eqx.is_inexact_array)

    def step(carry: Any, key: Any) -> Any:
        arrays, state, events = carry
        keys = jax.random.split(key, len(events) + 1)
        drawn = tuple(
            x[jax.random.randint(k, (batch,), 0, len(x))]
            for x, k in zip(events, keys[:-1], strict=True)
        )
        value, gradient = eqx.filter_value_and_grad(loss)(
            eqx.combine(arrays, static), *drawn, keys[-1]
        )
        updates, state = optimiser.update(gradient, state)
        return (eqx.apply_updates(arrays, updates), state, events), value

    @jax.jit
    def run(arrays: Any, state: Any, events: Any, keys: Any) -> Any:
        (arrays, _, _), losses = jax.lax.scan(step, (arrays, state, events), keys)
        return arrays, losses

    keys = jax.random.split(key, steps)
    arrays, losses = run(arrays, optimiser.init(arrays), tuple(events), keys)
    if not np.isfinite(losses).all():
        raise RuntimeError("The training diverged.")
    return eqx.combine(arrays, static)
