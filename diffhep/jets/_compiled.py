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


_TURN = 2 * math.pi
# What fastjet takes a smaller squared transverse momentum for, with a negative power.
_LEAST = 1e-300
# And the rapidity of a particle along the beam, to which |pz| is added.
_FAR = 1e5
_compiled = numba.njit(nogil=True, cache=True)


@no_type_check
class _Pseudojets(NamedTuple):
    """What is left of an event: the first so many of each array."""

    name: np.ndarray
    """The lowest slot inside, where the momentum is."""
    rapidity: np.ndarray
    phi: np.ndarray
    weight: np.ndarray
    nearest: np.ndarray
    """The nearest other within the radius; itself if there is none."""
    apart: np.ndarray
    """How far that is in the plane, squared; the square of the radius for itself."""
    distance: np.ndarray
    """`apart` times the smaller weight of the two."""
    row: np.ndarray
    """Room to work in."""


@_compiled
@no_type_check  # numba does that, and no wrapper may stand in between
def _coordinates(px, py, pz, energy, power):
    """Rapidity, azimuth in [0, 2 pi), and weight."""
    pt2 = px * px + py * py
    phi = 0.0 if pt2 == 0.0 else math.atan2(py, px)
    if phi < 0.0:
        phi += _TURN
    if phi >= _TURN:
        phi -= _TURN
    if energy == abs(pz) and pt2 == 0.0:
        rapidity = _FAR + abs(pz)
        rapidity = rapidity if pz >= 0.0 else -rapidity
    else:
        mass2 = max(0.0, (energy + pz) * (energy - pz) - pt2)
        total = energy + abs(pz)
        rapidity = 0.5 * math.log((pt2 + mass2) / (total * total))
        rapidity = -rapidity if pz > 0.0 else rapidity
    if power == 0.0:
        weight = 1.0
    elif power == 1.0:
        weight = pt2
    elif power == -1.0:
        weight = 1.0 / pt2 if pt2 > _LEAST else 1.0 / _LEAST
    else:
        weight = (_LEAST if power < 0.0 and pt2 < _LEAST else pt2) ** power
    return rapidity, phi, weight


@_compiled
@no_type_check
def _start(momentum, mask, power, limit):
    """Each particle a pseudojet, and how many there are."""
    slots = len(mask)
    floats = np.empty((6, slots))
    jets = _Pseudojets(
        np.empty(slots, np.int64),
        floats[0],
        floats[1],
        floats[2],
        np.empty(slots, np.int64),
        floats[3],
        floats[4],
        floats[5],
    )
    left = 0
    for slot in range(slots):
        if mask[slot]:
            jets.name[left] = slot
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
    jets.rapidity[k], jets.phi[k], jets.weight[k] = _coordinates(
        momentum[0], momentum[1], momentum[2], momentum[3], power
    )
    jets.apart[k], jets.nearest[k] = limit, k


@_compiled
@no_type_check
def _measure(jets, k, number):
    """How far the first so many are from one of them, into `row`."""
    # No branch: this is the loop that a vector unit can do.
    rapidity, phi, row = jets.rapidity, jets.phi, jets.row
    y, f = rapidity[k], phi[k]
    for other in range(number):
        dy = rapidity[other] - y
        df = abs(phi[other] - f)
        df = df if df < math.pi else _TURN - df
        row[other] = dy * dy + df * df


@_compiled
@no_type_check
def _weigh(jets, k):
    weight = min(jets.weight[k], jets.weight[jets.nearest[k]])
    jets.distance[k] = jets.apart[k] * weight


@_compiled
@no_type_check
def _offer(jets, k, number):
    """A measured one as neighbour of the first so many, and they as its own."""
    for other in range(number):
        if other != k:
            if jets.row[other] < jets.apart[other]:
                jets.apart[other], jets.nearest[other] = jets.row[other], k
                _weigh(jets, other)
            if jets.row[other] < jets.apart[k]:
                jets.apart[k], jets.nearest[k] = jets.row[other], other


@_compiled
@no_type_check
def _search(jets, k, left, limit):
    """The nearest neighbour from scratch."""
    _measure(jets, k, left)
    jets.apart[k], jets.nearest[k] = limit, k
    for other in range(left):
        if jets.row[other] < jets.apart[k] and other != k:
            jets.apart[k], jets.nearest[k] = jets.row[other], other
    _weigh(jets, k)


@_compiled
@no_type_check
def _move(jets, source, target):
    jets.name[target] = jets.name[source]
    jets.rapidity[target], jets.phi[target] = jets.rapidity[source], jets.phi[source]
    jets.weight[target], jets.apart[target] = jets.weight[source], jets.apart[source]
    jets.nearest[target] = jets.nearest[source]
    jets.distance[target] = jets.distance[source]


@_compiled
@no_type_check
def _closest(jets, left):
    """The pair with the least distance, the lower name first; or one, twice."""
    first = 0
    for k in range(1, left):
        if jets.distance[k] < jets.distance[first]:
            first = k
    other = jets.nearest[first]
    if jets.name[other] < jets.name[first]:
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
        if k != merged and (jets.nearest[k] == gone or jets.nearest[k] == kept):
            _search(jets, k, left, limit)
        elif jets.nearest[k] == left:
            jets.nearest[k] = gone
    if not beam:
        jets.nearest[merged] = merged
        _measure(jets, merged, left)
        _offer(jets, merged, left)
        _weigh(jets, merged)


@_compiled
@no_type_check
def _cluster(momentum, mask, settings, history):
    """The history of one event; its momenta become those of the jets."""
    radius, power = settings
    limit = radius * radius
    jets, left = _start(momentum, mask, power, limit)
    for step in range(left):
        kept, gone = _closest(jets, left)
        beam = kept == gone
        name = jets.name[kept]
        history[step, 0] = name
        history[step, 1] = -1 if beam else jets.name[gone]
        if not beam:
            momentum[name] += momentum[jets.name[gone]]
            _place(jets, kept, momentum[name], power, limit)
        left -= 1
        _close_ranks(jets, kept, gone, left, limit)


@_compiled
@no_type_check
def cluster_events(momentum, mask, settings, history):
    """Cluster a batch of events, one after another. Releases the GIL.

    Args:
        momentum: Four-momenta of shape (events, slots, 4), in GeV, in double precision.
            Overwritten.
        mask: Which slots hold a particle, of shape (events, slots).
        settings: Jet radius and power of the transverse momentum, of shape (events, 2).
        history: Filled with `keep` and `take` of `MergeHistory` where a step is taken,
            of shape (events, slots, 2).
    """
    for event in range(len(mask)):
        _cluster(momentum[event], mask[event], settings[event], history[event])
