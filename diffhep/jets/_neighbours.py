"""Probabilistic clustering among nearest neighbours, many events at once, lanes last.

As in `_greedy`, each slot keeps its nearest neighbour; here all have to be known before
a step draws.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ._derivative import to_constituents
from ._distance import largest_distance, plane_distance2
from ._draw import locate
from ._lanes import at, put, slot_numbers, total
from ._neighbour_scores import add_shares, end, hand_down, note, to_both
from ._neighbour_state import (
    Draw,
    Lanes,
    Parameters,
    Record,
    State,
    add_slot,
    ends_of,
    first_lowest,
    jet_of,
    set_slot,
    start,
)


def search_neighbours(
    mask: Bool[Array, "slots lanes"],
    uniforms: Float[Array, "steps lanes"],
    momentum: Float[Array, "4 slots lanes"],
    parameters: Parameters,
    *,
    only: bool,
) -> tuple[Array, Array, Lanes, Float[Array, "4 slots lanes"], Parameters]:
    """Histories at random, their log-probabilities and scores.

    Args:
        mask: Which slots hold a constituent.
        uniforms: One random number in [0, 1) per step.
        momentum: Four-momenta, in GeV, safe in dead slots.
        parameters: The parameters.
        only: Whether the only candidates are those of the least distance.

    Returns:
        `keep` and `take` of `MergeHistory`, the log-probability, and its derivatives to
        the momenta and to the parameters.
    """

    def step(work: tuple[State, Record]) -> tuple[State, Record]:
        state, record = work
        state = _look_for_neighbours(state)
        uniform = jax.lax.dynamic_index_in_dim(uniforms, record.step, keepdims=False)
        drawn = _draw(state, parameters.sharpness, uniform, only=only)
        state = add_shares(state, drawn)
        record = note(state, record, drawn)
        state, to_ends = end(state, drawn)
        record = hand_down(state, record, drawn, to_ends, parameters)
        return _merge(state, drawn, parameters), record

    work = start(mask, momentum, parameters)
    _, record = jax.lax.while_loop(lambda w: jnp.any(w[0].left > 0), step, work)
    gradient = to_constituents(record.keep, record.take, record.momentum)
    return record.keep, record.take, record.log_prob, gradient, record.score


def _look_for_neighbours(state: State) -> State:
    # One slot in each lane at a time.
    def look(state: State) -> State:
        number = slot_numbers(state.alive)
        slots = state.alive.shape[0]
        slot = jnp.min(jnp.where(state.stale, number, slots), axis=0)
        place = jnp.minimum(slot, slots - 1)
        old = at(state.neighbour, place)
        share = jnp.where(slot < slots, at(state.share, place), 0.0)
        to_here, to_there = to_both(state, place, old, share)
        gradient = tuple(
            add_slot(add_slot(x, slot, a), old, b)
            for x, a, b in zip(state.gradient[:3], to_here, to_there, strict=True)
        )
        here = tuple(at(x, place) for x in state.jet)
        row = plane_distance2(tuple(x[None] for x in here), state.jet)
        row = jnp.where(
            state.alive & (number != slot[None]), row, largest_distance(row)
        )
        nearest = first_lowest(row)
        values = (
            nearest,
            jnp.min(row, axis=0),
            at(state.jet[2], nearest),
            jnp.zeros_like(share),
            jnp.zeros_like(state.stale[0]),
        )
        where = lambda s: (s.neighbour, s.apart, s.other, s.share, s.stale)  # noqa: E731
        new = tuple(
            set_slot(a, slot, b) for a, b in zip(where(state), values, strict=True)
        )
        state = eqx.tree_at(where, state, new)
        gradient = (*gradient, state.gradient[3])
        return eqx.tree_at(lambda s: s.gradient, state, gradient)

    return jax.lax.while_loop(lambda s: jnp.any(s.stale), look, state)


def _draw(state: State, sharpness: Lanes, uniform: Lanes, *, only: bool) -> Draw:
    _, _, weight, radius = state.jet
    most = largest_distance(weight)
    known = state.alive & (state.apart < most)
    to_pair = jnp.where(known, jnp.minimum(weight, state.other) * state.apart, most)
    to_beam = jnp.where(state.alive, radius**2 * weight, most)
    both = jnp.minimum(to_pair, to_beam)
    least = jnp.min(both, axis=0)
    # Of two that are nearest to one another the lighter one counts.
    own = jnp.where(known, jnp.minimum(to_beam, weight * state.apart), to_beam)
    least_slot = first_lowest(own)
    pair_least, beam_least = at(to_pair, least_slot), at(to_beam, least_slot)
    # Two constituents in one direction merge for certain; the floor keeps the ratio
    # finite.
    floor = jnp.finfo(least.dtype).tiny ** 0.75
    scale = sharpness / jnp.maximum(least, floor)
    scale = jnp.where(state.left > 0, scale, 0.0)
    allowed = state.alive
    if only:
        allowed = allowed & (slot_numbers(allowed) == least_slot[None])
    pair, beam = (
        jnp.where(allowed, jnp.exp((least[None] - x) * scale[None]), 0.0)
        for x in (to_pair, to_beam)
    )
    pair = jnp.where(known, pair, 0.0)
    norm = total(pair + beam)
    norm = jnp.where(norm > 0, norm, 1.0)
    moment = total(pair * to_pair + beam * to_beam)
    slot, rest = locate(pair + beam, uniform * norm)
    # Rounding may leave the rest at the very end of the two.
    merges = (rest < at(pair, slot)) | (at(beam, slot) <= 0)
    return Draw(
        slot=slot,
        merges=merges,
        distance=jnp.where(merges, at(to_pair, slot), at(to_beam, slot)),
        least_slot=least_slot,
        least_merges=pair_least <= beam_least,
        least=least,
        pair=pair,
        beam=beam,
        scale=scale,
        norm=norm,
        mean=moment / norm,
    )


def _merge(state: State, draw: Draw, parameters: Parameters) -> State:
    low, high = ends_of(state, draw)
    active = state.left > 0
    merges = draw.merges & active
    number = slot_numbers(state.alive)
    momentum = at(state.momentum, low)
    momentum += jnp.where(merges[None], at(state.momentum, high), 0.0)
    new = jet_of(momentum, parameters)
    here = (number == low[None]) & merges[None]
    jet = tuple(
        jnp.where(here, a[None], b) for a, b in zip(new, state.jet, strict=True)
    )
    alive = state.alive & ~((number == high[None]) & active[None])
    row = plane_distance2(tuple(x[None] for x in new), jet)
    row = jnp.where(alive & ~here, row, largest_distance(row))
    nearer = (row < state.apart) & merges[None]
    orphan = (state.neighbour == low[None]) | (state.neighbour == high[None])
    orphan &= active[None]
    # What an orphan had to hand on is done. Another one keeps its neighbour until then.
    moves = nearer & orphan
    nearest = first_lowest(row)
    neighbour = jnp.where(moves, low[None], state.neighbour)
    apart = jnp.where(moves, row, state.apart)
    other = jnp.where(moves, new[2][None], state.other)
    return State(
        momentum=put(state.momentum, low, momentum),
        jet=jet,
        gradient=state.gradient,
        alive=alive,
        neighbour=jnp.where(here, nearest[None], neighbour),
        apart=jnp.where(here, jnp.min(row, axis=0)[None], apart),
        other=jnp.where(here, at(jet[2], nearest)[None], other),
        share=state.share,
        stale=alive & ~here & (nearer ^ orphan),
        left=jnp.maximum(state.left - 1, 0),
    )
