from collections.abc import Sequence

import equinox as eqx
import jax
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import PRNGKeyArray

from ..event import Event
from ._pipeline import Pipeline


def run(
    pipeline: Pipeline,
    events: Event,
    *,
    keep: Sequence[str],
    block_size: int = 64,
    mesh: Mesh | None = None,
    key: PRNGKeyArray,
) -> Event:
    """A batch of events through a pipeline, in blocks of bounded memory.

    The random numbers of an event depend on `key` and on its `index` alone: not on the
    batch, the block or the device that it falls into. In reverse mode each block is
    computed again instead of stored.

    Args:
        pipeline: The pipeline.
        events: A batch of events (a leading axis on each array).
        keep: Fields to return; all others are dropped.
        block_size: Events that go through together. The memory is proportional to it.
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
    dynamic, static = eqx.partition(pipeline, eqx.is_array)

    def one(dynamic: Pipeline, event: Event, key: PRNGKeyArray) -> Event:
        stages = eqx.combine(dynamic, static)
        event = stages(event, key=jax.random.fold_in(key, event.index))
        return event.keep(*keep)

    def batch(dynamic: Pipeline, events: Event, key: PRNGKeyArray) -> Event:
        remake = jax.checkpoint(one)
        return jax.lax.map(
            lambda event: remake(dynamic, event, key), events, batch_size=block_size
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
