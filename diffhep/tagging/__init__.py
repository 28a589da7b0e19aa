"""Taggers: from jets, tracks and vertices to flavour."""

from ._features import (
    FEATURES as FEATURES,
    NUM_FEATURES as NUM_FEATURES,
    JetVertex as JetVertex,
    jet_features as jet_features,
    track_momenta as track_momenta,
)
from ._stage import TagJets as TagJets, features_of_jets as features_of_jets
