"""What the second training moves, how fast, and within which bounds."""

from collections.abc import Callable
from typing import Any, NamedTuple

from ..geometry import Barrel
from ..optimise import AbstractConstraint, Box, Increasing
from ..pipeline import Pipeline
from ._probes import stage


class Tunable(NamedTuple):
    """A part of the pipeline that the second training moves."""

    where: Callable[[Pipeline], Any]
    """From the pipeline to the part: an array or a network."""
    scale: float
    """Its natural size: Adam's step is the learning rate times this."""
    constraint: AbstractConstraint | None = None
    """What can be built, or where the model holds."""


def barrel_of(pipeline: Pipeline) -> Barrel:
    """The detector of a pipeline."""
    return stage(pipeline, "PlaceDetector").detector


TUNABLES: dict[str, Tunable] = {
    "layer radii": Tunable(
        lambda p: barrel_of(p).radii, 100.0, Increasing(25.0, 1100.0, 20.0)
    ),
    "azimuthal pitch": Tunable(
        lambda p: barrel_of(p).pitch_azimuth, 0.05, Box(0.015, 0.4)
    ),
    "longitudinal pitch": Tunable(lambda p: barrel_of(p).pitch_z, 0.25, Box(0.03, 2.0)),
    "thickness": Tunable(lambda p: barrel_of(p).thickness, 0.015, Box(0.005, 0.05)),
    "efficiency": Tunable(lambda p: barrel_of(p).efficiency, 0.05, Box(0.85, 0.995)),
    "field": Tunable(lambda p: barrel_of(p).field, 2.0, Box(1.0, 4.0)),
    "primary vertex cutoff": Tunable(
        lambda p: stage(p, "FitPrimaryVertex").cutoff, 1.0, Box(1.5, 6.0)
    ),
    "displaced-track threshold": Tunable(
        lambda p: stage(p, "FitSecondaryVertices").threshold, 1.0, Box(0.0, 8.0)
    ),
    "displaced-track softness": Tunable(
        lambda p: stage(p, "FitSecondaryVertices").softness, 0.5, Box(0.2, 3.0)
    ),
    "jet radius": Tunable(lambda p: stage(p, "ClusterJets").radius, 0.5, Box(0.2, 1.2)),
    "missing-momentum cut": Tunable(
        lambda p: stage(p, "SelectEvents").cut, 50.0, Box(160.0, 300.0)
    ),
    "tagger": Tunable(lambda p: stage(p, "TagJets").network, 0.05),
    "pair score": Tunable(lambda p: stage(p, "EstimateRatio").score, 0.2),
    "ratio network": Tunable(lambda p: stage(p, "EstimateRatio").network, 0.05),
}
"""Everything that is optimised together. Not the systematic uncertainties, which are
not ours to choose, and not the calorimeter, which has no price here."""
