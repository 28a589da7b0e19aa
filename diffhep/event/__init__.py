"""The event: optional padded collections, one log-weight, one status."""

from ._collections import (
    Constituents as Constituents,
    Hits as Hits,
    Jets as Jets,
    MergeHistory as MergeHistory,
    Particles as Particles,
    Towers as Towers,
    Tracks as Tracks,
    Vertices as Vertices,
)
from ._event import Event as Event
from ._status import explain_status as explain_status, Status as Status
