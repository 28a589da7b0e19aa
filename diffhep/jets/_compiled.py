"""Sequential recombination compiled for a CPU, one event after another.

The algorithm is fastjet's N2Plain (Cacciari, Salam, hep-ph/0512210): each pseudojet
knows its nearest neighbour in the plane, and a step costs a few passes over those that
are left. In double precision, with fastjet's formulas in fastjet's order, so that the
outcome is the same.
"""

import math
from typing import NamedTuple, no_type_check

import numba
import numpy as np

from ._compiled_scheme import merge, plane_of, prepare


# Rows of `_Pseudojets`: those of its slots, and those of its table.
_NAME, _NEAREST = 0, 1
_FIRST, _SECOND, _THIRD, _WEIGHT, _APART, _DISTANCE, _ROW = range(7)
# What fastjet takes a smaller squared transverse momentum for, with a negative power.
_LEAST = 1e-300
# The place in `METRICS` of what measures angles between directions.
_DIRECTIONS = 1
_compiled = numba.njit(nogil=True, cache=True)


@no_type_check
class _Pseudojets(NamedTuple):
    """What is left of an event: the first so many of each array."""

    slots: np.ndarray
    """The lowest slot inside, where the momentum is; and the nearest other within the
    radius, itself if there is none."""
    table: np.ndarray
    """The place: rapidity and azimuth, or the components of the direction; the weight;
    how far the nearest is, squared, the square of the radius for itself; that times
    the smaller weight of the two; and room to work in. One array: what is passed on
    takes time."""
    half: float
    """Half a turn of the second coordinate; infinite if that is no angle."""


@_compiled
@no_type_check  # numba does that, and no wrapper may stand in between
def _coordinates(px, py, pz, energy, power):
    """Rapidity, azimuth in [0, 2 pi), nothing, and weight."""
    rapidity, phi = plane_of(px, py, pz, energy)
    return rapidity, phi, 0.0, _weight(px * px + py * py, power)


@_compiled
@no_type_check
def _direction(px, py, pz, energy, power):
    """The three components of the direction, and weight."""
    square = px * px + py * py + pz * pz
    weight = _weight(energy * energy, power)
    if square == 0.0:
        return 0.0, 0.0, 1.0, weight
    norm = 1.0 / math.sqrt(square)
    return px * norm, py * norm, pz * norm, weight


@_compiled
@no_type_check
def _weight(square, power):
    """A power of what has this square."""
    if power == 0.0:
        return 1.0
    if power == 1.0:
        return square
    if power == -1.0:
        return 1.0 / square if square > _LEAST else 1.0 / _LEAST
    return (_LEAST if power < 0.0 and square < _LEAST else square) ** power


@_compiled
@no_type_check
def _start(momentum, mask, power, limit, angular):
    """Each particle a pseudojet, and how many there are."""
    slots = len(mask)
    jets = _Pseudojets(
        np.empty((2, slots), np.int64),
        np.empty((7, slots)),
        math.inf if angular else math.pi,
    )
    left = 0
    for slot in range(slots):
        if mask[slot]:
            jets.slots[_NAME, left] = slot
            _place(jets, left, momentum[slot], power, limit)
            left += 1
    for k in range(1, left):
        _measure(jets, k, k)
        _offer(jets, k, k)
    for k in range(left):
        _weigh(jets, k)
    return jets, left


@_compiled
@no_type_check
def _place(jets, k, momentum, power, limit):
    """The coordinates of a pseudojet that knows no neighbour yet."""
    px, py, pz, energy = momentum[0], momentum[1], momentum[2], momentum[3]
    if jets.half == math.inf:
        found = _direction(px, py, pz, energy, power)
    else:
        found = _coordinates(px, py, pz, energy, power)
    (
        jets.table[_FIRST, k],
        jets.table[_SECOND, k],
        jets.table[_THIRD, k],
        jets.table[_WEIGHT, k],
    ) = found
    jets.table[_APART, k], jets.slots[_NEAREST, k] = limit, k


@_compiled
@no_type_check
def _measure(jets, k, number):
    """How far the first so many are from one of them, into `row`."""
    # No branch: this is the loop that a vector unit can do.
    first, second, third = jets.table[_FIRST], jets.table[_SECOND], jets.table[_THIRD]
    x, y, z, half, row = first[k], second[k], third[k], jets.half, jets.table[_ROW]
    turn = 2 * half
    for other in range(number):
        dx, dy, dz = first[other] - x, abs(second[other] - y), third[other] - z
        dy = dy if dy < half else turn - dy
        row[other] = dx * dx + dy * dy + dz * dz


@_compiled
@no_type_check
def _weigh(jets, k):
    weight = min(jets.table[_WEIGHT, k], jets.table[_WEIGHT, jets.slots[_NEAREST, k]])
    jets.table[_DISTANCE, k] = jets.table[_APART, k] * weight


@_compiled
@no_type_check
def _offer(jets, k, number):
    """A measured one as neighbour of the first so many, and they as its own."""
    for other in range(number):
        if other != k:
            if jets.table[_ROW, other] < jets.table[_APART, other]:
                jets.table[_APART, other], jets.slots[_NEAREST, other] = (
                    jets.table[_ROW, other],
                    k,
                )
                _weigh(jets, other)
            if jets.table[_ROW, other] < jets.table[_APART, k]:
                jets.table[_APART, k], jets.slots[_NEAREST, k] = (
                    jets.table[_ROW, other],
                    other,
                )


@_compiled
@no_type_check
def _search(jets, k, left, limit):
    """The nearest neighbour from scratch."""
    _measure(jets, k, left)
    jets.table[_APART, k], jets.slots[_NEAREST, k] = limit, k
    for other in range(left):
        if jets.table[_ROW, other] < jets.table[_APART, k] and other != k:
            jets.table[_APART, k], jets.slots[_NEAREST, k] = (
                jets.table[_ROW, other],
                other,
            )
    _weigh(jets, k)


@_compiled
@no_type_check
def _move(jets, source, target):
    jets.slots[_NAME, target] = jets.slots[_NAME, source]
    jets.table[_FIRST, target], jets.table[_SECOND, target] = (
        jets.table[_FIRST, source],
        jets.table[_SECOND, source],
    )
    jets.table[_THIRD, target] = jets.table[_THIRD, source]
    jets.table[_WEIGHT, target], jets.table[_APART, target] = (
        jets.table[_WEIGHT, source],
        jets.table[_APART, source],
    )
    jets.slots[_NEAREST, target] = jets.slots[_NEAREST, source]
    jets.table[_DISTANCE, target] = jets.table[_DISTANCE, source]


@_compiled
@no_type_check
def _closest(jets, left):
    """The pair with the least distance, the lower name first; or one, twice."""
    first = 0
    for k in range(1, left):
        if jets.table[_DISTANCE, k] < jets.table[_DISTANCE, first]:
            first = k
    other = jets.slots[_NEAREST, first]
    if jets.slots[_NAME, other] < jets.slots[_NAME, first]:
        return other, first
    return first, other


@_compiled
@no_type_check
def _close_ranks(jets, kept, gone, left, limit):
    """The pseudojets that are left after two merged, or one, named twice, is a jet."""
    # The last pseudojet takes the place of the one that is gone.
    _move(jets, left, gone)
    beam = kept == gone
    merged = -1 if beam else (gone if kept == left else kept)
    for k in range(left):
        if k != merged and (
            jets.slots[_NEAREST, k] == gone or jets.slots[_NEAREST, k] == kept
        ):
            _search(jets, k, left, limit)
        elif jets.slots[_NEAREST, k] == left:
            jets.slots[_NEAREST, k] = gone
    if not beam:
        jets.slots[_NEAREST, merged] = merged
        _measure(jets, merged, left)
        _offer(jets, merged, left)
        _weigh(jets, merged)


@_compiled
@no_type_check
def _limit_of(radius, angular):
    """The squared distance from which on the beam is nearer."""
    if not angular:
        return radius * radius
    if radius == math.inf:
        return 16.0
    if radius > math.pi:
        return 2.0 * (3.0 + math.cos(radius))
    return 4.0 * math.sin(0.5 * radius) ** 2


@_compiled
@no_type_check
def _cluster(kind, momentum, mask, settings, history):
    """The history of one event; its momenta become those of the jets."""
    (metric, scheme), (radius, power) = kind, settings
    angular = metric == _DIRECTIONS
    limit = _limit_of(radius, angular)
    prepare(scheme, momentum)
    jets, left = _start(momentum, mask, power, limit, angular)
    for step in range(left):
        kept, gone = _closest(jets, left)
        beam = kept == gone
        name = jets.slots[_NAME, kept]
        history[step, 0] = name
        history[step, 1] = -1 if beam else jets.slots[_NAME, gone]
        if not beam:
            merge(scheme, momentum[name], momentum[jets.slots[_NAME, gone]])
            _place(jets, kept, momentum[name], power, limit)
        left -= 1
        _close_ranks(jets, kept, gone, left, limit)


@_compiled
@no_type_check
def cluster_events(kind, momentum, mask, settings, history):
    """Cluster a batch of events, one after another. Releases the GIL.

    Args:
        kind: The places of metric and scheme in `METRICS` and `SCHEMES`.
        momentum: Four-momenta of shape (events, slots, 4), in GeV, in double precision.
            Overwritten.
        mask: Which slots hold a particle, of shape (events, slots).
        settings: Jet radius and power p, of shape (events, 2).
        history: Filled with `keep` and `take` of `MergeHistory` where a step is taken,
            of shape (events, slots, 2).
    """
    for event in range(len(mask)):
        _cluster(kind, momentum[event], mask[event], settings[event], history[event])
