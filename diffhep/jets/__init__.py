"""Jets: generalised-kt clustering, deterministic and probabilistic."""

from ._constituents import (
    CollectConstituents as CollectConstituents,
    MeasureMissingMomentum as MeasureMissingMomentum,
    track_momentum as track_momentum,
)
from ._engine import (
    AbstractEngine as AbstractEngine,
    AbstractHostEngine as AbstractHostEngine,
    CompiledEngine as CompiledEngine,
    FastjetEngine as FastjetEngine,
    JaxEngine as JaxEngine,
    cluster as cluster,
)
from ._enumerate import enumerate_histories as enumerate_histories
from ._jets import jets_from_history as jets_from_history
from ._replay import history_log_prob as history_log_prob
from ._search import (
    HistoryScore as HistoryScore,
    sample_history as sample_history,
)
from ._stage import ClusterJets as ClusterJets
