import numpy as np

from ..event import Event, Jets
from ._style import CYCLE


def jet_colour(jet: int | np.integer) -> str:
    """The colour of a jet's slot; -1 is no jet."""
    return "#9aa3ad" if jet < 0 else CYCLE[jet % len(CYCLE)]


def live_jets(jets: Jets) -> np.ndarray:
    """Which slots hold a jet above the threshold."""
    weight = np.asarray(jets.weight, float)
    return np.asarray(jets.mask) & np.where(np.isnan(weight), False, weight > 0)


def owner_of_slots(event: Event, num_slots: int) -> np.ndarray:
    """The jet to which each slot belongs.

    Args:
        event: One event.
        num_slots: Number of slots on the axis of particles.

    Returns:
        The slot of the jet for each slot; -1 where there is none.
    """
    if event.jets is None:
        return np.full(num_slots, -1)
    member = np.asarray(event.jets.membership) & live_jets(event.jets)[:, None]
    return np.where(member.any(axis=0), member.argmax(axis=0), -1)


def live_slots(event: Event) -> list[int]:
    """The slots that hold a track.

    Args:
        event: One event.

    Returns:
        Slots; those outside jets come first, so that they are drawn below the others.
    """
    if event.tracks is None:
        return []
    mask = np.asarray(event.tracks.mask)
    owner = owner_of_slots(event, mask.size)
    live = [int(slot) for slot in np.flatnonzero(mask)]
    return sorted(live, key=lambda slot: owner[slot] >= 0)
