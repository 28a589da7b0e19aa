"""The event: optional padded collections, one log-weight, one status."""

from ._collections import (
    Constituents as Constituents,
)
from ._collections import (
    Hits as Hits,
)
from ._collections import (
    Jets as Jets,
)
from ._collections import (
    MergeHistory as MergeHistory,
)
from ._collections import (
    Particles as Particles,
)
from ._collections import (
    Towers as Towers,
)
from ._collections import (
    Tracks as Tracks,
)
from ._collections import (
    Vertices as Vertices,
)
from ._event import Event as Event
from ._padding import (
    awkward_from_padded as awkward_from_padded,
)
from ._padding import (
    flatten_padded as flatten_padded,
)
from ._padding import (
    pad_awkward as pad_awkward,
)
from ._padding import (
    pad_jagged as pad_jagged,
)
from ._status import Status as Status
from ._status import explain_status as explain_status
