"""Events through the chain without a gradient, by one compiled program."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import PRNGKeyArray

from ..estimators import Detached
from ..event import Event
from ..optimise import progress_bar
from ..pipeline import Pipeline, run
from ._batches import take
from ._variants import with_estimator, without_replicas


CHUNK = 512
"""Events that go through together: every call has this size, so that one program,
which takes a minute to compile, does for all."""


def reconstruct(
    pipeline: Pipeline,
    events: Event,
    *,
    keep: tuple[str, ...],
    draws: int = 1,
    mesh: Mesh | None = None,
    description: str | None = None,
    key: PRNGKeyArray,
) -> Event:
    """The events with each discrete choice drawn a number of times.

    Args:
        pipeline: The pipeline. Its replicas are ignored.
        events: A batch of events.
        keep: Fields to return.
        draws: How many times every event goes through. The weights add up to the
            event's weight.
        mesh: Devices to spread the events over.
        description: Text beside the progress bar; None for no bar.
        key: Random key.

    Returns:
        A batch of `draws` times as many events, one draw after the other.
    """
    single = with_estimator(without_replicas(pipeline), Detached())
    number = events.log_weight.shape[0]
    starts = range(0, number, CHUNK)
    kept = []
    with progress_bar(description, total=draws * len(starts)) as bar:
        for draw in range(draws):
            for start in starts:
                # The last chunk repeats the last event.
                place = jnp.minimum(jnp.arange(start, start + CHUNK), number - 1)
                chunk = take(events, place)
                out = _chunk(single, chunk, mesh, key=jax.random.fold_in(key, draw))
                size = min(CHUNK, number - start)
                kept.append(jax.tree.map(lambda x, n=size: x[:n], out.keep(*keep)))
                bar("")
    joined = jax.tree.map(lambda *x: jnp.concatenate(x), *kept)
    share = jnp.log(jnp.asarray(draws, joined.log_weight.dtype))
    return joined.replace(log_weight=joined.log_weight - share)


@eqx.filter_jit
def _chunk(
    pipeline: Pipeline, events: Event, mesh: Mesh | None, *, key: PRNGKeyArray
) -> Event:
    return run(pipeline, events, keep=EVERYTHING, mesh=mesh, key=key)


EVERYTHING = (
    "particles",
    "truth_vertex",
    "label",
    "detector",
    "hits",
    "tracks",
    "towers",
    "constituents",
    "primary_vertex",
    "jets",
    "secondary_vertices",
    "missing_momentum",
    "tags",
    "log_ratio",
    "pass_weight",
)
