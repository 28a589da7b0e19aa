"""Taggers: from jets, tracks and vertices to flavour."""

from ._features import (
    FEATURES as FEATURES,
    NUM_FEATURES as NUM_FEATURES,
    JetVertex as JetVertex,
    jet_features as jet_features,
    track_momenta as track_momenta,
)
from ._flavour_stage import TagFlavours as TagFlavours
from ._jet_tracks import (
    AMBIGUOUS as AMBIGUOUS,
    BOTTOM as BOTTOM,
    CHARM as CHARM,
    DISPLACED as DISPLACED,
    FROM_BOTTOM as FROM_BOTTOM,
    FROM_CHARM as FROM_CHARM,
    LIGHT as LIGHT,
    NUM_FLAVOURS as NUM_FLAVOURS,
    NUM_ORIGINS as NUM_ORIGINS,
    PRIMARY as PRIMARY,
    JetTracks as JetTracks,
    JetTruth as JetTruth,
    jet_tracks as jet_tracks,
    jet_truth as jet_truth,
    same_vertex as same_vertex,
)
from ._losses import TaggerLoss as TaggerLoss, tagger_loss as tagger_loss
from ._metrics import (
    Rejection as Rejection,
    discriminant as discriminant,
    rejection as rejection,
    roc_curve as roc_curve,
)
from ._stage import TagJets as TagJets, features_of_jets as features_of_jets
from ._tagger import FlavourTagger as FlavourTagger, TaggerOutput as TaggerOutput
from ._vertexing import (
    AbstractVertexing as AbstractVertexing,
    FittedVertex as FittedVertex,
    NoVertex as NoVertex,
    TrackChoice as TrackChoice,
    adjusted_tracks as adjusted_tracks,
)
