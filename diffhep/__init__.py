"""Differentiable high-energy physics: one gradient from collisions to the result.

The names that a user composes; everything else is in the packages.
"""

import importlib
from typing import TYPE_CHECKING, Any

from ._version import __version__ as __version__


if TYPE_CHECKING:
    from .detector import (
        DetectHits as DetectHits,
        MeasureTowers as MeasureTowers,
        PlaceDetector as PlaceDetector,
        SimulateHits as SimulateHits,
    )
    from .estimators import (
        AbstractEstimator as AbstractEstimator,
        Detached as Detached,
        Enumerate as Enumerate,
        Gradient as Gradient,
        Recorded as Recorded,
        Score as Score,
    )
    from .event import (
        Event as Event,
        Status as Status,
        explain_status as explain_status,
    )
    from .generator import toy_events as toy_events
    from .geometry import Barrel as Barrel, default_barrel as default_barrel
    from .inference import (
        EstimateRatio as EstimateRatio,
        SelectEvents as SelectEvents,
        SelectHard as SelectHard,
        expected_uncertainty as expected_uncertainty,
    )
    from .jets import (
        ClusterJets as ClusterJets,
        CollectConstituents as CollectConstituents,
        MeasureMissingMomentum as MeasureMissingMomentum,
    )
    from .pipeline import (
        AbstractStage as AbstractStage,
        Pipeline as Pipeline,
        Replicate as Replicate,
        Sample as Sample,
        run as run,
        weighted_mean as weighted_mean,
    )
    from .tagging import TagJets as TagJets
    from .tracking import FitTracks as FitTracks
    from .vertexing import (
        FindPrimaryVertices as FindPrimaryVertices,
        FitPrimaryVertex as FitPrimaryVertex,
        FitSecondaryVertices as FitSecondaryVertices,
    )

# The package of each name. Loaded at its first use, so that `diffhep --help` does not
# wait for JAX.
_HOMES = {
    "AbstractEstimator": "estimators",
    "AbstractStage": "pipeline",
    "Barrel": "geometry",
    "ClusterJets": "jets",
    "CollectConstituents": "jets",
    "Detached": "estimators",
    "DetectHits": "detector",
    "Enumerate": "estimators",
    "EstimateRatio": "inference",
    "Event": "event",
    "FindPrimaryVertices": "vertexing",
    "FitPrimaryVertex": "vertexing",
    "FitSecondaryVertices": "vertexing",
    "FitTracks": "tracking",
    "Gradient": "estimators",
    "MeasureMissingMomentum": "jets",
    "MeasureTowers": "detector",
    "Pipeline": "pipeline",
    "PlaceDetector": "detector",
    "Recorded": "estimators",
    "Replicate": "pipeline",
    "Sample": "pipeline",
    "Score": "estimators",
    "SelectEvents": "inference",
    "SelectHard": "inference",
    "SimulateHits": "detector",
    "Status": "event",
    "TagJets": "tagging",
    "default_barrel": "geometry",
    "expected_uncertainty": "inference",
    "explain_status": "event",
    "run": "pipeline",
    "toy_events": "generator",
    "weighted_mean": "pipeline",
}

__all__ = sorted(_HOMES)  # pyright: ignore[reportUnsupportedDunderAll] # noqa: PLE0605


def __getattr__(name: str) -> Any:
    """A name of the short list."""
    if name not in _HOMES:
        raise AttributeError(f"module 'diffhep' has no attribute {name!r}.")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return [*globals(), *_HOMES]
