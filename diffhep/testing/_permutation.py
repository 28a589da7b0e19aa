import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PRNGKeyArray

from ..event import Event, Jets, MergeHistory, Vertices
from ..pipeline import AbstractStage
from ._forward import forward
from ._padding import compare, live


_SHARED = ("particles", "hits", "tracks", "towers", "constituents", "detected")


def permute(event: Event, order: Int[Array, " particles"]) -> Event:
    """The event with the particle slots in another order, in every collection.

    Args:
        event: One event.
        order: Slot i of the result is slot `order[i]` of the event.

    Returns:
        An event that means the same.
    """
    replaced = {
        name: jax.tree.map(lambda x: x[order], getattr(event, name))
        for name in _SHARED
        if getattr(event, name) is not None
    }
    if isinstance(event.jets, Jets):
        membership = event.jets.membership[:, order]
        replaced["jets"] = dataclasses.replace(event.jets, membership=membership)
    for name in ("primary_vertex", "collision_vertices", "secondary_vertices"):
        vertices = getattr(event, name)
        if isinstance(vertices, Vertices):
            weight = vertices.track_weight[:, order]
            replaced[name] = dataclasses.replace(vertices, track_weight=weight)
    if isinstance(event.history, MergeHistory):
        new_slot = jnp.argsort(order)
        replaced["history"] = jax.tree.map(
            # Negative numbers are marks and not slots.
            lambda x: jnp.where(x >= 0, new_slot[x].astype(x.dtype), x),
            event.history,
        )
    return event.replace(**replaced)


def check_equivariant(
    stage: AbstractStage, event: Event, *, key: PRNGKeyArray, rtol: float = 1e-8
) -> None:
    """Asserts that the order of the particle slots does not matter to a stage.

    Not for a stage that draws a random number for each slot: there, another order means
    other numbers.

    Args:
        stage: The stage.
        event: One event with everything that the stage reads.
        key: Random key; seed of the permutation too.
        rtol: Allowed difference, relative to the largest number in each array.

    Raises:
        AssertionError: Permuting before the stage differs from permuting after it.
        ValueError: The event has no collection of particle slots.
    """
    shared = [getattr(event, n) for n in _SHARED if getattr(event, n) is not None]
    if not shared:
        raise ValueError(
            f"The event has none of {list(_SHARED)}, so there is nothing to permute; "
            "fill one."
        )
    slots = jax.tree.leaves(shared[0])[0].shape[0]
    order = jnp.asarray(np.random.default_rng(0).permutation(slots))
    event = event.keep(*stage.reads)
    after = permute(forward(stage, event, key), order)
    before = forward(stage, permute(event, order), key)
    compare(
        live(after), live(before), "the order of the particle slots matters", rtol=rtol
    )
