"""The recombination schemes of `_scheme`, compiled for a CPU."""

import math
from typing import no_type_check

import numba


_TURN = 2 * math.pi
# The rapidity of a particle along the beam, to which |pz| is added.
_FAR = 1e5
# Places in `SCHEMES`.
_E, _PT, _WINNER_PT = 0, 1, 2
_compiled = numba.njit(nogil=True, cache=True)


@_compiled
@no_type_check  # numba does that, and no wrapper may stand in between
def plane_of(px, py, pz, energy):
    """Rapidity and azimuth in [0, 2 pi).

    Args:
        px: Momentum along x, in GeV.
        py: Along y.
        pz: Along the beam.
        energy: Energy, in GeV.

    Returns:
        The two, by fastjet's formulas.
    """
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
    return rapidity, phi


@_compiled
@no_type_check
def prepare(scheme, momentum):
    """What constituents are taken for, in place.

    Args:
        scheme: Its place in `SCHEMES`.
        momentum: Four-momenta of shape (slots, 4), in GeV.
    """
    if scheme == _PT:
        for p in momentum:
            p[3] = math.sqrt(p[0] * p[0] + p[1] * p[1] + p[2] * p[2])


@_compiled
@no_type_check
def merge(scheme, one, other):
    """What two pseudojets become, in place of the first one.

    Args:
        scheme: Its place in `SCHEMES`.
        one: Four-momentum, in GeV.
        other: That of the one that is merged with it.
    """
    if scheme == _E:
        for k in range(4):
            one[k] += other[k]
    elif scheme == _PT:
        _weighted(one, other)
    elif scheme == _WINNER_PT:
        _winner_pt(one, other)
    else:
        _winner_momentum(one, other)


@_compiled
@no_type_check
def _weighted(one, other):
    pt, more = math.hypot(one[0], one[1]), math.hypot(other[0], other[1])
    total = pt + more
    if total == 0.0:
        one[:] = 0.0
        return
    # Massless: without the cancellation between energy and momentum.
    y = 0.0 if pt == 0.0 else math.asinh(one[2] / pt)
    y_other = 0.0 if more == 0.0 else math.asinh(other[2] / more)
    phi, phi_other = math.atan2(one[1], one[0]), math.atan2(other[1], other[0])
    if phi - phi_other > math.pi:
        phi_other += _TURN
    elif phi_other - phi > math.pi:
        phi_other -= _TURN
    y = (pt * y + more * y_other) / total
    phi = (pt * phi + more * phi_other) / total
    one[0], one[1] = total * math.cos(phi), total * math.sin(phi)
    one[2], one[3] = total * math.sinh(y), total * math.cosh(y)


@_compiled
@no_type_check
def _winner_pt(one, other):
    pt, more = math.hypot(one[0], one[1]), math.hypot(other[0], other[1])
    most = max(pt, more)
    if most == 0.0:
        for k in range(4):
            one[k] += other[k]
        return
    if more > pt:
        one[:] = other
    pt2 = one[0] * one[0] + one[1] * one[1]
    mass2 = (one[3] + one[2]) * (one[3] - one[2]) - pt2
    across = (pt + more) / most
    mt2 = most * most + max(0.0, mass2)
    along = math.sqrt(((pt + more) ** 2 + abs(mass2)) / mt2)
    one[0], one[1] = one[0] * across, one[1] * across
    one[2], one[3] = one[2] * along, one[3] * along


@_compiled
@no_type_check
def _winner_momentum(one, other):
    size = math.sqrt(one[0] ** 2 + one[1] ** 2 + one[2] ** 2)
    more = math.sqrt(other[0] ** 2 + other[1] ** 2 + other[2] ** 2)
    most = max(size, more)
    if more > size:
        one[:] = other
    if most == 0.0:
        return
    total = size + more
    factor = total / most
    one[3] = math.sqrt(max(0.0, one[3] ** 2 + total**2 - most**2))
    one[0], one[1], one[2] = one[0] * factor, one[1] * factor, one[2] * factor
