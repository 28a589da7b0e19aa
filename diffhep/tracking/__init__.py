"""Tracks from hits."""

from ._arms import ArmsFit as ArmsFit, fit_arms as fit_arms
from ._candidates import nearest_clusters as nearest_clusters
from ._combine import combine_hits as combine_hits
from ._competition import (
    AbstractCompetition as AbstractCompetition,
    HitPicksTrack as HitPicksTrack,
    TrackPicksHits as TrackPicksHits,
)
from ._fit import (
    TrackFit as TrackFit,
    TrackStatus as TrackStatus,
    fit_track as fit_track,
)
from ._hit_covariance import hit_covariance as hit_covariance
from ._model import (
    predict as predict,
    resolution as resolution,
    scattering_kicks as scattering_kicks,
)
from ._prior import TrackPrior as TrackPrior
from ._resolution import expected_covariance as expected_covariance
from ._seed import seed_track as seed_track
from ._smooth import SmoothedTrack as SmoothedTrack, smooth_track as smooth_track
from ._stage import FitTracks as FitTracks
