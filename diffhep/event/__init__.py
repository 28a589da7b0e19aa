"""The event: optional padded collections, one log-weight, one status."""

from ._collections import (
    Clusters as Clusters,
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
from ._padding import (
    awkward_from_padded as awkward_from_padded,
    flatten_padded as flatten_padded,
    pad_awkward as pad_awkward,
    pad_jagged as pad_jagged,
)
from ._status import Status as Status, explain_status as explain_status
