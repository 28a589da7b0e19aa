"""The steps of many clusterings at once."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ._derivative import add_step
from ._distance import beam_distance, coordinates_of, largest_distance, pair_distance
from ._draw import Choice, draw, nearest
from ._lanes import (
    Lanes,
    Record,
    Settings,
    at,
    living_first,
    put,
    slot_numbers,
)
from ._matrices import Matrices, no_matrices, rearrange
from ._tiles import SIDE, write_row


_Work = tuple[Lanes, Record, Matrices]


def search(
    state: Lanes,
    record: Record,
    uniforms: Float[Array, "steps lanes"],
    settings: Settings,
) -> Record:
    """Steps until nothing is left to do in any lane.

    Args:
        state: The pseudojets.
        record: An empty record.
        uniforms: One random number in [0, 1) per step.
        settings: The parameters.

    Returns:
        The record.
    """
    one_step = functools.partial(_step, settings=settings, uniforms=uniforms)

    def epoch(work: _Work) -> _Work:
        # As few blocks of slots as hold all pseudojets, until one block less will do.
        # Each step takes one pseudojet from each lane.
        state, record, matrices = work
        most = jnp.max(state.left)
        blocks = (most + SIDE - 1) // SIDE
        state, origin = living_first(state)
        matrices = rearrange(matrices, state, origin, blocks=blocks)
        return jax.lax.fori_loop(
            0,
            most - SIDE * (blocks - 1),
            lambda _, work: one_step(work, blocks=blocks),
            (state, record, matrices),
        )

    work = (state, record, no_matrices(state))
    return jax.lax.while_loop(lambda work: jnp.max(work[0].left) > 0, epoch, work)[1]


def _beam(state: Lanes, settings: Settings) -> Float[Array, "slots lanes"]:
    beam = beam_distance(state.jet, settings.radius[None])
    return jnp.where(state.alive, beam, largest_distance(beam))


def _step(
    work: _Work,
    *,
    settings: Settings,
    uniforms: Float[Array, "steps lanes"],
    blocks: Int[Array, ""],
) -> _Work:
    state, record, matrices = work
    beam = _beam(state, settings)
    closest = nearest(state, matrices, beam, blocks=blocks)
    drawn, matrices = draw(
        state,
        matrices,
        beam,
        least=closest.distance,
        sharpness=settings.sharpness,
        uniform=jax.lax.dynamic_index_in_dim(uniforms, record.step, keepdims=False),
        blocks=blocks,
    )
    state, record, matrices = add_step(
        state,
        record,
        matrices,
        nearest=closest,
        draw=drawn,
        settings=settings,
        blocks=blocks,
    )
    merged, matrices = _merge(state, matrices, drawn.choice, settings)
    return merged, _note(record, state, drawn.choice), matrices


def _merge(
    state: Lanes, matrices: Matrices, choice: Choice, settings: Settings
) -> tuple[Lanes, Matrices]:
    slots = state.alive.shape[0]
    pair = choice.keep != choice.take
    momentum = at(state.momentum, choice.keep)
    momentum += jnp.where(pair[None], at(state.momentum, choice.take), 0.0)
    new = coordinates_of(momentum, settings.power)
    # What lies beyond all slots is not written: finished lanes stay as they are.
    active = state.left > 0
    keep = jnp.where(active, choice.keep, slots)
    take = jnp.where(active, choice.take, slots)
    jet = put(state.jet, keep, new)
    alive = put(state.alive, take, jnp.zeros_like(active))
    others = alive & pair[None] & (slot_numbers(alive) != keep[None])
    fresh = pair_distance(new[:, None], jet)
    fresh = jnp.where(others, fresh, largest_distance(fresh))
    distance = write_row(matrices.distance, keep, fresh)
    distance = write_row(distance, take, jnp.full_like(fresh, largest_distance(fresh)))
    merged = Lanes(
        name=state.name,
        alive=alive,
        left=jnp.maximum(state.left - 1, 0),
        momentum=put(state.momentum, keep, momentum),
        jet=jet,
        gradient=state.gradient,
    )
    return merged, eqx.tree_at(lambda m: m.distance, matrices, distance)


def _note(record: Record, state: Lanes, choice: Choice) -> Record:
    active = state.left > 0
    keep, take = at(state.name, choice.keep), at(state.name, choice.take)
    take = jnp.where(choice.keep == choice.take, -1, take)
    write = jax.lax.dynamic_update_index_in_dim
    return eqx.tree_at(
        lambda r: (r.step, r.keep, r.take),
        record,
        (
            record.step + 1,
            write(record.keep, jnp.where(active, keep, 0), record.step, axis=0),
            write(record.take, jnp.where(active, take, -2), record.step, axis=0),
        ),
    )
