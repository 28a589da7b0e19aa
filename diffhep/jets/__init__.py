"""Jets: generalised-kt clustering, deterministic and probabilistic."""

from ._algorithm import Algorithm as Algorithm
from ._association import (
    add_ghosts as add_ghosts,
    ghost_grid as ghost_grid,
    nearest_jet as nearest_jet,
)
from ._awkward import ClusterSequence as ClusterSequence
from ._candidates import (
    AbstractCandidates as AbstractCandidates,
    AllPairs as AllPairs,
    NearestNeighbours as NearestNeighbours,
    NearestOnly as NearestOnly,
)
from ._constituents import (
    CollectConstituents as CollectConstituents,
    MeasureMissingMomentum as MeasureMissingMomentum,
    track_momentum as track_momentum,
)
from ._correlations import (
    EnergyCorrelations as EnergyCorrelations,
    energy_correlations as energy_correlations,
)
from ._declustering import (
    Splittings as Splittings,
    separation as separation,
    splittings_of as splittings_of,
)
from ._definition import JetDefinition as JetDefinition
from ._engine import (
    AbstractEngine as AbstractEngine,
    AbstractHostEngine as AbstractHostEngine,
    CompiledEngine as CompiledEngine,
    FastjetEngine as FastjetEngine,
    JaxEngine as JaxEngine,
    cluster as cluster,
)
from ._enumerate import enumerate_histories as enumerate_histories
from ._exclusive import (
    exclusive_jets as exclusive_jets,
    exclusive_momenta as exclusive_momenta,
    exclusive_steps as exclusive_steps,
    step_distances as step_distances,
)
from ._grooming import (
    GroomedJet as GroomedJet,
    SoftDropJet as SoftDropJet,
    soft_drop as soft_drop,
    trim as trim,
)
from ._jets import jets_from_history as jets_from_history, recombine as recombine
from ._lund import LundPlane as LundPlane, lund_plane as lund_plane
from ._metric import (
    AbstractMetric as AbstractMetric,
    Coordinates as Coordinates,
    EnergyAngle as EnergyAngle,
    RapidityAzimuth as RapidityAzimuth,
)
from ._qjets import (
    Qjet as Qjet,
    mass_volatility as mass_volatility,
    prune as prune,
    sample_qjet as sample_qjet,
)
from ._radius import (
    AbstractRadius as AbstractRadius,
    ConstantRadius as ConstantRadius,
    RadiusInPt as RadiusInPt,
    RadiusInRapidity as RadiusInRapidity,
)
from ._replay import history_log_prob as history_log_prob
from ._scheme import (
    AbstractScheme as AbstractScheme,
    EScheme as EScheme,
    PtScheme as PtScheme,
    WinnerTakeAllMomentum as WinnerTakeAllMomentum,
    WinnerTakeAllPt as WinnerTakeAllPt,
)
from ._search import (
    HistoryScore as HistoryScore,
    sample_history as sample_history,
)
from ._stage import ClusterJets as ClusterJets
from ._subjettiness import kt_axes as kt_axes, n_subjettiness as n_subjettiness
