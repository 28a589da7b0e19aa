"""The score of a clustering among nearest neighbours, added up as it goes.

The derivatives to the distance of a slot and its neighbour add up in the slot for as
long as both stay what they are, and are handed on to the coordinates of both when one
of them ends, or when the slot gets another neighbour. The formulas are those of
`_derivative`.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ..numerics import wrap_angle
from ._distance import pair_distance
from ._lanes import at
from ._neighbour_state import (
    Draw,
    Lanes,
    Parameters,
    Record,
    Slots,
    State,
    add_slot,
    ends_of,
    is_slot,
    jet_of,
)


def add_shares(state: State, draw: Draw) -> State:
    """The state with the derivatives of a step's log-probability to all distances."""
    # That of the normalisation to each, of the numerator to the chosen one, and of the
    # least distance in all terms.
    density = draw.scale / draw.norm
    to_chosen = -draw.scale
    to_least = _excess(draw) * draw.scale
    share, beam = density[None] * draw.pair, density[None] * draw.beam
    for slot, merges, more in (
        (draw.slot, draw.merges, to_chosen),
        (draw.least_slot, draw.least_merges, to_least),
    ):
        share = add_slot(share, slot, jnp.where(merges, more, 0.0))
        beam = add_slot(beam, slot, jnp.where(merges, 0.0, more))
    rapidity, azimuth, weight, radius = state.gradient
    _, _, own_weight, own_radius = state.jet
    gradient = (
        rapidity,
        azimuth,
        weight + beam * own_radius**2,
        radius + beam * 2 * own_radius * own_weight,
    )
    return eqx.tree_at(
        lambda s: (s.share, s.gradient), state, (state.share + share, gradient)
    )


def _excess(draw: Draw) -> Lanes:
    # In units of the least distance.
    floor = jnp.finfo(draw.least.dtype).tiny ** 0.75
    return (draw.distance - draw.mean) / jnp.maximum(draw.least, floor)


def note(state: State, record: Record, draw: Draw) -> Record:
    """The record with a step, its log-probability, and the derivative to sharpness."""
    active = draw.scale > 0
    low, high = ends_of(state, draw)
    neighbour = at(state.neighbour, draw.slot)
    mutual = draw.merges & (at(state.neighbour, neighbour) == draw.slot)
    twice = mutual & (at(draw.pair, neighbour) > 0)
    log_prob = (draw.least - draw.distance) * draw.scale - jnp.log(draw.norm)
    log_prob = log_prob + jnp.where(twice, jnp.log(2.0).astype(log_prob.dtype), 0.0)
    take = jnp.where(draw.merges, high, -1)
    write = jax.lax.dynamic_update_index_in_dim
    sharpness = record.score.sharpness - jnp.where(active, _excess(draw), 0.0)
    return eqx.tree_at(
        lambda r: (r.keep, r.take, r.log_prob, r.score.sharpness),
        record,
        (
            write(record.keep, jnp.where(active, low, 0), record.step, axis=0),
            write(record.take, jnp.where(active, take, -2), record.step, axis=0),
            record.log_prob + jnp.where(active, log_prob, 0.0),
            sharpness,
        ),
    )


def end(state: State, draw: Draw) -> tuple[State, Float[Array, "4 2 lanes"]]:
    """The state in which the slots that end have handed on all shares.

    Args:
        state: The pseudojets before the step.
        draw: The step.

    Returns:
        The pseudojets, and the derivatives to the coordinates of the two that end.
    """
    low, high = ends_of(state, draw)
    active = draw.scale > 0
    known = state.alive & active[None]
    is_low = (state.neighbour == low[None]) & known
    is_high = (state.neighbour == high[None]) & known & ~is_low
    more, back = _to_others(state, is_low, is_high, low, high)
    gradient = (
        *(x + y for x, y in zip(state.gradient[:3], more, strict=True)),
        state.gradient[3],
    )
    share = jnp.where(is_low | is_high, 0.0, state.share)
    to_ends, handed = [], []
    for place, mask, on in (
        (low, is_low, active),
        (high, is_high, active & draw.merges),
    ):
        own = [at(x, place) for x in gradient]
        sums = (jnp.sum(jnp.where(mask, x, 0.0), axis=0) for x in back)
        neighbour = at(state.neighbour, place)
        to_here, to_there = to_both(
            state, place, neighbour, jnp.where(on, at(share, place), 0.0)
        )
        for k, (x, y) in enumerate(zip(sums, to_here, strict=True)):
            own[k] = own[k] + x + y
        to_ends.append(jnp.stack(own))
        handed.append((neighbour, to_there))
    for neighbour, to_there in handed:
        pieces = zip(gradient[:3], to_there, strict=True)
        gradient = (*(add_slot(x, neighbour, y) for x, y in pieces), gradient[3])
    ended = is_slot(share, low) | is_slot(share, high)
    gradient = tuple(jnp.where(ended, 0.0, x) for x in gradient)
    share = jnp.where(ended, 0.0, share)
    state = eqx.tree_at(lambda s: (s.gradient, s.share), state, (gradient, share))
    return state, jnp.stack(to_ends, axis=1)


def _to_others(
    state: State,
    is_low: Bool[Array, "slots lanes"],
    is_high: Bool[Array, "slots lanes"],
    low: Int[Array, " lanes"],
    high: Int[Array, " lanes"],
) -> tuple[tuple[Slots, Slots, Slots], tuple[Slots, Slots, Slots]]:
    # From the shares of those whose neighbour is one of two: to their coordinates; and
    # what is, summed over them, to their neighbour's. By hand, and not by `jax.vjp`: a
    # quarter off the time of the whole search.
    rapidity, azimuth, weight, _ = state.jet
    share = jnp.where(is_low | is_high, state.share, 0.0)
    moment = 2 * share * jnp.minimum(weight, state.other)
    there = (
        jnp.where(is_low, at(x, low)[None], at(x, high)[None])
        for x in (rapidity, azimuth)
    )
    to_rapidity = moment * (rapidity - next(there))
    to_azimuth = moment * wrap_angle(azimuth - next(there))
    to_weight = share * state.apart
    lighter = weight < state.other
    return (
        (to_rapidity, to_azimuth, jnp.where(lighter, to_weight, 0.0)),
        (-to_rapidity, -to_azimuth, jnp.where(lighter, 0.0, to_weight)),
    )


def to_both(
    state: State,
    slot: Int[Array, " lanes"],
    other: Int[Array, " lanes"],
    share: Lanes,
) -> tuple[Float[Array, "3 lanes"], Float[Array, "3 lanes"]]:
    """From the share of a slot to its coordinates, and to those of its neighbour."""
    here, there = (
        jnp.stack([at(x, place) for x in state.jet[:3]]) for place in (slot, other)
    )
    _, pull = jax.vjp(pair_distance, here, there)
    return pull(share)


def hand_down(
    state: State,
    record: Record,
    draw: Draw,
    to_ends: Float[Array, "4 2 lanes"],
    parameters: Parameters,
) -> Record:
    """The record with the derivatives to momenta that end, and to the parameters."""
    # Two end, or one, which stands there twice and counts once.
    low, high = ends_of(state, draw)
    active = draw.scale > 0
    counts = jnp.stack([active, active & draw.merges])
    momentum = jnp.stack([at(state.momentum, low), at(state.momentum, high)], axis=1)
    _, pull = jax.vjp(lambda p, q: jnp.stack(jet_of(p, q)), momentum, parameters)
    to_momentum, to_parameters = pull(jnp.where(counts[None], to_ends, 0.0))
    return eqx.tree_at(
        lambda r: (r.step, r.momentum, r.score),
        record,
        (
            record.step + 1,
            jax.lax.dynamic_update_index_in_dim(
                record.momentum, to_momentum, record.step, axis=0
            ),
            jax.tree.map(jnp.add, record.score, to_parameters),
        ),
    )
