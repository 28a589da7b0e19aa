"""Jets and distances of histories, compiled for a CPU."""

import math
from typing import no_type_check

import numba
import numpy as np

from ._compiled import _DIRECTIONS, _coordinates, _direction, _limit_of
from ._compiled_scheme import merge, prepare


_compiled = numba.njit(nogil=True, cache=True)


@_compiled
@no_type_check
def _place(angular, p, power):
    if angular:
        return _direction(p[0], p[1], p[2], p[3], power)
    return _coordinates(p[0], p[1], p[2], p[3], power)


@_compiled
@no_type_check
def _apart2(angular, one, other):
    between = abs(one[1] - other[1])
    if not angular and between > math.pi:
        between = 2 * math.pi - between
    return (one[0] - other[0]) ** 2 + between**2 + (one[2] - other[2]) ** 2


@_compiled
@no_type_check
def replay_distances(kind, momentum, settings, history, distance):
    """Fill in the distances of all steps; momenta become those of the jets.

    Args:
        kind: The places of metric and scheme in `METRICS` and `SCHEMES`.
        momentum: Four-momenta of shape (events, slots, 4), in GeV. Overwritten.
        settings: Jet radius and power p.
        history: `keep` and `take` of `MergeHistory`, of shape (events, slots, 2).
        distance: Filled with d_ij or d_iB in GeV^2p, of shape (events, slots), where a
            step is taken.
    """
    (metric, scheme), (radius, power) = kind, settings
    angular = metric == _DIRECTIONS
    limit = _limit_of(radius, angular)
    unit = 1.0 if radius == math.inf else limit
    for event in range(len(momentum)):
        p = momentum[event]
        prepare(scheme, p)
        for step in range(len(p)):
            keep, take = history[event, step]
            if take < -1:
                break
            one = _place(angular, p[keep], power)
            found = limit * one[3]
            if take >= 0:
                other = _place(angular, p[take], power)
                found = min(one[3], other[3]) * _apart2(angular, one, other)
                merge(scheme, p[keep], p[take])
            distance[event, step] = found / unit


@_compiled
@no_type_check
def stop_events(scheme, momentum, history, stop, order):
    """Fill in what is left after some steps, in fastjet's order.

    Args:
        scheme: Its place in `SCHEMES`.
        momentum: Four-momenta of shape (events, slots, 4), in GeV. Become those of what
            is left.
        history: `keep` and `take` of `MergeHistory`, of shape (events, slots, 2).
        stop: After how many steps, for each event.
        order: Filled with the slots that are left, of shape (events, slots).
    """
    slots = momentum.shape[1]
    born = np.empty(slots, np.int64)
    for event in range(len(momentum)):
        prepare(scheme, momentum[event])
        # fastjet numbers particles, then steps.
        for slot in range(slots):
            born[slot] = slot - slots
        found = 0
        for step in range(slots):
            keep, take = history[event, step]
            if take < -1:
                break
            if step < stop[event]:
                if take >= 0:
                    merge(scheme, momentum[event, keep], momentum[event, take])
            else:
                low, high = keep, take
                if take >= 0 and born[take] < born[keep]:
                    low, high = take, keep
                if born[low] < stop[event]:
                    order[event, found] = low
                    found += 1
                if high >= 0 and born[high] < stop[event]:
                    order[event, found] = high
                    found += 1
            born[keep] = step
