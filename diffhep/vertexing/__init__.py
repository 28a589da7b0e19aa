"""Vertex fits with exact derivatives."""

from ._adaptive import (
    AdaptiveWeights as AdaptiveWeights,
    adaptive_weight as adaptive_weight,
)
from ._constrained import (
    ConstrainedFit as ConstrainedFit,
    Constraint as Constraint,
    ConstraintStatus as ConstraintStatus,
    fit_constrained as fit_constrained,
)
from ._decay import (
    Decay as Decay,
    DecayFit as DecayFit,
    DecayTrack as DecayTrack,
    Origin as Origin,
    fit_decay as fit_decay,
)
from ._find_primary import (
    FindPrimaryVertices as FindPrimaryVertices,
    FoundVertices as FoundVertices,
    find_primary_vertices as find_primary_vertices,
)
from ._find_secondary import find_secondary_vertices as find_secondary_vertices
from ._fit import (
    VertexFit as VertexFit,
    fit_vertex as fit_vertex,
    fit_vertices as fit_vertices,
)
from ._impact import (
    Impact as Impact,
    TrackState as TrackState,
    chi2_of as chi2_of,
    impact_at as impact_at,
    track_state as track_state,
    with_vertex_covariance as with_vertex_covariance,
)
from ._multiple import (
    MultipleVertexFit as MultipleVertexFit,
    fit_multiple_vertices as fit_multiple_vertices,
)
from ._pair import PairFit as PairFit, fit_pair as fit_pair
from ._primary import (
    FitPrimaryVertex as FitPrimaryVertex,
    fit_primary_vertex as fit_primary_vertex,
)
from ._refit import RefittedTracks as RefittedTracks, refit_tracks as refit_tracks
from ._safe import safe_vertices as safe_vertices
from ._secondary import (
    DisplacementCut as DisplacementCut,
    FitSecondaryVertices as FitSecondaryVertices,
    displacement_weight as displacement_weight,
    fit_secondary_vertices as fit_secondary_vertices,
)
from ._status import VertexStatus as VertexStatus
from ._v0 import V0s as V0s, find_v0s as find_v0s
from ._v0_cut import (
    V0_HYPOTHESES as V0_HYPOTHESES,
    V0Cut as V0Cut,
)
