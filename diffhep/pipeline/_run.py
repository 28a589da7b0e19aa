from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import PRNGKeyArray, PyTree

from ..event import Event
from ..numerics import recompute
from ._pipeline import Pipeline


def run(
    pipeline: Pipeline,
    events: Event,
    *,
    keep: Sequence[str],
    block_size: int | None = None,
    mesh: Mesh | None = None,
    key: PRNGKeyArray,
) -> Event:
    """A batch of events through a pipeline, in blocks of bounded memory.

    The random numbers of an event depend on `key` and on its `index` alone: not on the
    batch, the block or the device that it falls into. In reverse mode each block is
    computed again instead of stored, but for what a stage marks by `numerics.store`.

    Args:
        pipeline: The pipeline.
        events: A batch of events (a leading axis on each array).
        keep: Fields to return; all others are dropped.
        block_size: Events that go through together. The memory is proportional to it:
            3 MiB an event in the demo's gradient. Unless given 64 on a CPU, and 4096 on
            an accelerator, which smaller blocks leave idle.
        mesh: Devices over which to spread the events, along its single axis. Their
            number must divide the number of events.
        key: Random key.

    Returns:
        A batch of events with the fields in `keep`.

    Raises:
        ValueError: The events lack a field that the pipeline reads, or do not divide
            over the mesh.
    """
    for name in sorted(pipeline.reads):
        if getattr(events, name) is None:
            raise ValueError(
                f"The pipeline reads {name!r}, but the events do not have it; fill it, "
                "or add the stage that writes it."
            )

    def one(pipeline: Pipeline, event: Event, key: PRNGKeyArray) -> Event:
        return pipeline(event, key=key).keep(*keep)

    return map_events(one, pipeline, events, block_size=block_size, mesh=mesh, key=key)


def map_events(
    function: Callable[[Any, Event, PRNGKeyArray], PyTree],
    parameters: PyTree,
    events: Event,
    *,
    block_size: int | None = None,
    mesh: Mesh | None = None,
    key: PRNGKeyArray,
) -> PyTree:
    """The results of a function of one event over a batch, as `run` does it.

    Args:
        function: From parameters, ONE event and its random key to arrays.
        parameters: A pytree that all events share: a pipeline, say.
        events: A batch of events.
        block_size: Events that are computed together, as in `run`.
        mesh: Devices over which to spread the events.
        key: Random key.

    Returns:
        The results, with a leading axis `events`.

    Raises:
        ValueError: The events do not divide over the mesh.
    """
    if block_size is None:
        block_size = _default_block_size(mesh)
    dynamic, static = eqx.partition(parameters, eqx.is_array)

    def one(dynamic: PyTree, event: Event, key: PRNGKeyArray) -> PyTree:
        key = jax.random.fold_in(key, event.index)
        return function(eqx.combine(dynamic, static), event, key)

    def batch(dynamic: PyTree, events: Event, key: PRNGKeyArray) -> PyTree:
        # Blocks of equal size: a last block of another size would be compiled anew.
        number = events.log_weight.shape[0]
        blocks = -(-number // block_size)
        size = -(-number // max(blocks, 1))
        place = jnp.minimum(jnp.arange(blocks * size), number - 1)
        filled = jax.tree.map(
            lambda x: jnp.reshape(x[place], (blocks, size, *x.shape[1:])), events
        )
        again = recompute(jax.vmap(one, in_axes=(None, 0, None)))
        results = jax.lax.map(lambda block: again(dynamic, block, key), filled)
        return jax.tree.map(
            lambda x: jnp.reshape(x, (-1, *x.shape[2:]))[:number], results
        )

    if mesh is None:
        return batch(dynamic, events, key)
    number = events.log_weight.shape[0]
    if number % mesh.size:
        raise ValueError(
            f"{number} events cannot be spread over {mesh.size} devices; leave out "
            f"{number % mesh.size} of them."
        )
    (axis,) = mesh.axis_names
    spread = jax.shard_map(
        batch,
        mesh=mesh,
        in_specs=(PartitionSpec(), PartitionSpec(axis), PartitionSpec()),
        out_specs=PartitionSpec(axis),
        check_vma=False,
    )
    return spread(dynamic, events, key)


def _default_block_size(mesh: Mesh | None) -> int:
    platform = jax.default_backend() if mesh is None else mesh.devices.flat[0].platform
    return 64 if platform == "cpu" else 4096
