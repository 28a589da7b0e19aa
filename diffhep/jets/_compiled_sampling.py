"""Probabilistic clustering among nearest neighbours, compiled for a CPU.

The algorithm of `_compiled`, but that a step draws among all neighbours and beams, or
among those of the least distance, and adds up the score. See `_neighbours` for the same
in JAX.
"""
# Arrays of different shapes go to numba one by one.
# ruff: noqa: PLR0917

import math
from typing import NamedTuple, no_type_check

import numba
import numpy as np

from ._compiled import (
    _APART,
    _DISTANCE,
    _FIRST,
    _LEAST,
    _NAME,
    _NEAREST,
    _SECOND,
    _WEIGHT,
    _close_ranks,
    _place,
    _start,
)


# A neighbour at any distance.
_ANY = 1e300
# Beyond this the probability of a candidate is below the rounding error of one.
_NEVER = 40.0
_TURN = 2 * math.pi
# Rows of the table of `_Work`.
_TO_FIRST, _TO_SECOND, _TO_WEIGHT, _TO_RADIUS, _RADIUS = range(5)
_TO_PAIR, _TO_BEAM, _PAIR, _BEAM = range(5, 9)
_compiled = numba.njit(nogil=True, cache=True)


@no_type_check
class _Parameters(NamedTuple):
    """Parameters of the distribution."""

    power: float
    """Power p of the transverse momentum."""
    sharpness: float
    """Inverse temperature."""
    kind: int
    """What the radius is: 0 constant, 1 a function of log pt, 2 of the absolute
    rapidity."""
    knots: np.ndarray
    """Where it is given; logarithms for the second kind."""
    values: np.ndarray
    """What it is there."""


@no_type_check
class _Work(NamedTuple):
    """What an event's clustering adds up, and room to work in."""

    table: np.ndarray
    """Derivatives to the first and second coordinate, the weight and the radius of each
    pseudojet; the radius; distances of each neighbour and beam, and unnormalised
    probabilities. One array: what is passed on takes time."""
    slots: np.ndarray
    """Which have a chance to be drawn, in this step."""
    ended: np.ndarray
    """Derivatives to the momenta of the two that end in each step."""


@_compiled
@no_type_check
def _radius_of(momentum, rapidity, given):
    """The radius, its slope, the knot below, and how far from that to the next."""
    kind, knots, values = given.kind, given.knots, given.values
    if kind == 0:
        return values[0], 0.0, 0, 0.0
    if kind == 1:
        pt2 = momentum[0] * momentum[0] + momentum[1] * momentum[1]
        x = 0.5 * math.log(max(pt2, _LEAST))
    else:
        x = abs(rapidity)
    last = len(knots) - 1
    if x <= knots[0]:
        return values[0], 0.0, 0, 0.0
    if x >= knots[last]:
        return values[last], 0.0, last - 1, 1.0
    k = 0
    while x >= knots[k + 1]:
        k += 1
    width = knots[k + 1] - knots[k]
    share = (x - knots[k]) / width
    slope = (values[k + 1] - values[k]) / width
    if kind == 2 and rapidity < 0.0:
        slope = -slope
    return values[k] + (values[k + 1] - values[k]) * share, slope, k, share


@_compiled
@no_type_check
def _apart(jets, a, b):
    dy = jets.table[_FIRST, a] - jets.table[_FIRST, b]
    df = jets.table[_SECOND, a] - jets.table[_SECOND, b]
    if df > math.pi:
        df -= _TURN
    elif df < -math.pi:
        df += _TURN
    return dy, df


@_compiled
@no_type_check
def _to_pair(jets, work, a, factor):
    """Adds the derivative to the distance of a slot and its neighbour."""
    b = jets.slots[_NEAREST, a]
    dy, df = _apart(jets, a, b)
    light = a if jets.table[_WEIGHT, a] < jets.table[_WEIGHT, b] else b
    twice = 2.0 * factor * jets.table[_WEIGHT, light]
    work.table[_TO_FIRST, a] += twice * dy
    work.table[_TO_FIRST, b] -= twice * dy
    work.table[_TO_SECOND, a] += twice * df
    work.table[_TO_SECOND, b] -= twice * df
    work.table[_TO_WEIGHT, light] += factor * jets.table[_APART, a]


@_compiled
@no_type_check
def _to_beam(jets, work, a, factor):
    """Adds the derivative to the distance of a slot and the beam."""
    radius = work.table[_RADIUS, a]
    work.table[_TO_WEIGHT, a] += factor * radius * radius
    work.table[_TO_RADIUS, a] += factor * 2.0 * radius * jets.table[_WEIGHT, a]


@_compiled
@no_type_check
def _hand_down(jets, work, momentum, k, step, side, given, score):
    """The derivatives of an ending pseudojet, to its momentum and the parameters."""
    power, kind = given.power, given.kind
    p = momentum[jets.slots[_NAME, k]]
    px, py, pz, energy = p[0], p[1], p[2], p[3]
    to_y, to_phi = work.table[_TO_FIRST, k], work.table[_TO_SECOND, k]
    to_weight, to_radius = work.table[_TO_WEIGHT, k], work.table[_TO_RADIUS, k]
    pt2 = px * px + py * py
    _, slope, low, share = _radius_of(p, jets.table[_FIRST, k], given)
    score[2 + low] += to_radius * (1.0 - share)
    if kind != 0:
        score[3 + low] += to_radius * share
    out = work.ended[step, side]
    out[:] = 0.0
    if kind == 2:
        to_y += to_radius * slope
    if pt2 <= 0.0:
        return
    score[0] += to_weight * jets.table[_WEIGHT, k] * math.log(pt2)
    to_pt2 = to_weight * power * jets.table[_WEIGHT, k] / pt2
    if kind == 1:
        to_pt2 += to_radius * slope * 0.5 / pt2
    out[0] = 2.0 * px * to_pt2 - to_phi * py / pt2
    out[1] = 2.0 * py * to_pt2 + to_phi * px / pt2
    # Rapidity, with the mass taken as zero where its square is negative.
    if (energy + pz) * (energy - pz) > pt2:
        mt2 = (energy + pz) * (energy - pz)
        out[2] += to_y * energy / mt2
        out[3] -= to_y * pz / mt2
    else:
        sign = -1.0 if pz < 0.0 else 1.0
        total = energy + abs(pz)
        out[2] += to_y / total
        out[3] += to_y * sign / total
        out[0] -= to_y * sign * px / pt2
        out[1] -= to_y * sign * py / pt2


@_compiled
@no_type_check
def _least(jets, work, left):
    """The least distance, whose it is, and whether it is that to the neighbour."""
    least, best, best_pair = 2 * _ANY, 0, False
    own = 2 * _ANY
    for k in range(left):
        radius, weight = work.table[_RADIUS, k], jets.table[_WEIGHT, k]
        # A lone one has no neighbour.
        pair = jets.table[_DISTANCE, k] if left > 1 else _ANY
        beam = radius * radius * weight
        work.table[_TO_PAIR, k], work.table[_TO_BEAM, k] = pair, beam
        # Of two that are nearest to one another the lighter one counts.
        mine = min(beam, weight * jets.table[_APART, k] if left > 1 else _ANY)
        if mine < own:
            own, best, best_pair = mine, k, pair <= beam
        least = min(least, pair, beam)
    return least, best, best_pair


@_compiled
@no_type_check
def _draw(jets, work, left, sharpness, uniform, only):
    """A candidate, its distance, the least one, and the distribution."""
    least, best, best_pair = _least(jets, work, left)
    scale = sharpness / max(least, 1e-230)
    far = least + _NEVER / scale
    norm, moment, number = 0.0, 0.0, 0
    for k in range(left):
        pair, beam = work.table[_TO_PAIR, k], work.table[_TO_BEAM, k]
        work.table[_PAIR, k] = work.table[_BEAM, k] = 0.0
        if (pair >= far and beam >= far) or (only and k != best):
            continue
        work.slots[number] = k
        number += 1
        if pair < far:
            share = math.exp((least - pair) * scale)
            work.table[_PAIR, k] = share
            norm += share
            moment += share * pair
        if beam < far:
            share = math.exp((least - beam) * scale)
            work.table[_BEAM, k] = share
            norm += share
            moment += share * beam
    target, chosen, chosen_pair = uniform * norm, best, best_pair
    for place in range(number):
        chosen = work.slots[place]
        pair, beam = work.table[_PAIR, chosen], work.table[_BEAM, chosen]
        chosen_pair = beam == 0.0 or target < pair
        if target < pair + beam:
            break
        target -= pair + beam
    distance = work.table[_TO_PAIR if chosen_pair else _TO_BEAM, chosen]
    rest = (best, best_pair, least, scale, norm, moment / norm, number)
    return chosen, chosen_pair, distance, rest


@_compiled
@no_type_check
def _note(jets, work, drawn, score):
    """Adds a step to the log-probability and its derivatives."""
    chosen, chosen_pair, distance, rest = drawn
    best, best_pair, least, scale, norm, mean, number = rest
    density = scale / norm
    for place in range(number):
        k = work.slots[place]
        if work.table[_PAIR, k] > 0.0:
            _to_pair(jets, work, k, density * work.table[_PAIR, k])
        if work.table[_BEAM, k] > 0.0:
            _to_beam(jets, work, k, density * work.table[_BEAM, k])
    excess = (distance - mean) / max(least, 1e-230)
    for slot, pair, factor in (
        (chosen, chosen_pair, -scale),
        (best, best_pair, excess * scale),
    ):
        if pair:
            _to_pair(jets, work, slot, factor)
        else:
            _to_beam(jets, work, slot, factor)
    score[1] -= excess
    log_prob = (least - distance) * scale - math.log(norm)
    if chosen_pair:
        other = jets.slots[_NEAREST, chosen]
        if jets.slots[_NEAREST, other] == chosen and work.table[_PAIR, other] > 0.0:
            log_prob += math.log(2.0)
    return log_prob


@_compiled
@no_type_check
def _sample(given, only, momentum, mask, uniforms, history, score, to_momentum):
    """The log-probability of the history of one event."""
    jets, left = _start(momentum, mask, given.power, _ANY, False)
    slots = len(mask)
    work = _Work(
        np.zeros((9, slots)), np.empty(slots, np.int64), np.zeros((slots, 2, 4))
    )
    for k in range(left):
        p = momentum[jets.slots[_NAME, k]]
        work.table[_RADIUS, k] = _radius_of(p, jets.table[_FIRST, k], given)[0]
    log_prob = 0.0
    for step in range(left):
        drawn = _draw(jets, work, left, given.sharpness, uniforms[step], only)
        log_prob += _note(jets, work, drawn, score)
        kept = drawn[0]
        gone = jets.slots[_NEAREST, kept] if drawn[1] else kept
        if jets.slots[_NAME, gone] < jets.slots[_NAME, kept]:
            kept, gone = gone, kept
        beam = kept == gone
        name = jets.slots[_NAME, kept]
        history[step, 0] = name
        history[step, 1] = -1 if beam else jets.slots[_NAME, gone]
        _hand_down(jets, work, momentum, kept, step, 0, given, score)
        work.table[:_RADIUS, kept] = 0.0
        if not beam:
            _hand_down(jets, work, momentum, gone, step, 1, given, score)
            momentum[name] += momentum[jets.slots[_NAME, gone]]
            _place(jets, kept, momentum[name], given.power, _ANY)
            work.table[_RADIUS, kept] = _radius_of(
                momentum[name], jets.table[_FIRST, kept], given
            )[0]
        left -= 1
        _close_ranks(jets, kept, gone, left, _ANY)
        for row in range(_RADIUS + 1):
            work.table[row, gone] = work.table[row, left]
        work.table[:_RADIUS, left] = 0.0
    # The derivative to a sum is that to each of its terms: down from the jets.
    for step in range(slots - 1, -1, -1):
        name, other = history[step]
        if other > -2:
            if other >= 0:
                to_momentum[other] = to_momentum[name] + work.ended[step, 1]
            to_momentum[name] += work.ended[step, 0]
    return log_prob


@_compiled
@no_type_check
def sample_events(
    kind, knots, momentum, mask, parameters, uniforms, history, found, slopes
):
    """Cluster a batch of events at random, one after another. Releases the GIL.

    Args:
        kind: What the radius is (0 constant, 1 a function of log pt, 2 of the absolute
            rapidity), and whether only the nearest is a candidate.
        knots: Of the radius, of shape (knots,); logarithms for the second kind.
        momentum: Four-momenta of shape (events, slots, 4), in GeV, in double precision.
            Overwritten.
        mask: Which slots hold a particle, of shape (events, slots).
        parameters: Power, sharpness, and the radius at each knot, of shape
            (events, 2 + knots).
        uniforms: Random numbers in [0, 1), of shape (events, slots).
        history: Filled with `keep` and `take` of `MergeHistory` where a step is taken,
            of shape (events, slots, 2).
        found: Filled with the log-probability and its derivatives to the parameters, of
            shape (events, 3 + knots); zero before.
        slopes: Filled with those to the momenta, of shape (events, slots, 4); zero
            before.
    """
    for event in range(len(mask)):
        power, sharpness = parameters[event, 0], parameters[event, 1]
        values = parameters[event, 2:]
        found[event, 0] = _sample(
            _Parameters(power, sharpness, kind[0], knots, values),
            kind[1],
            momentum[event],
            mask[event],
            uniforms[event],
            history[event],
            found[event, 1:],
            slopes[event],
        )
