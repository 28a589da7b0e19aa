from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..pipeline import Pipeline


class Probe(NamedTuple):
    """One scalar parameter of the pipeline, to compare its gradient with an oracle."""

    kind: str
    """What kind of parameter it stands for."""
    unit: str
    where: Callable[[Pipeline], Array]
    """From the pipeline to the array that holds it."""
    index: tuple[int, ...]
    """Its place in that array."""
    step: float
    """Step of the finite differences where choices respond, in `unit`."""

    def read(self, pipeline: Pipeline) -> Float[Array, ""]:
        """The parameter's entry in a pipeline, or in a gradient of one."""
        return self.where(pipeline)[self.index]

    def shift(self, pipeline: Pipeline, amount: Float[Array, ""] | float) -> Pipeline:
        """The pipeline with `amount` added to the parameter."""
        array = self.where(pipeline)
        moved = array.at[self.index].add(jnp.asarray(amount, array.dtype))
        return eqx.tree_at(self.where, pipeline, moved)


def _stage(pipeline: Pipeline, name: str) -> Any:
    return pipeline[name]


PROBES: dict[str, Probe] = {
    "radius of layer 1": Probe(
        "layer radius",
        "mm",
        lambda p: _stage(p, "PlaceDetector").barrel.radii,
        (0,),
        1.0,
    ),
    "azimuthal pitch of layer 1": Probe(
        "pitch",
        "mm",
        lambda p: _stage(p, "PlaceDetector").barrel.pitch_azimuth,
        (0,),
        0.005,
    ),
    "efficiency of layer 1": Probe(
        "efficiency",
        "",
        lambda p: _stage(p, "PlaceDetector").barrel.efficiency,
        (0,),
        0.02,
    ),
    "magnetic field": Probe(
        "field", "T", lambda p: _stage(p, "PlaceDetector").barrel.field, (), 0.02
    ),
    "displaced-track threshold": Probe(
        "vertexing parameter",
        "",
        lambda p: _stage(p, "FitSecondaryVertices").threshold,
        (),
        0.05,
    ),
    "jet radius": Probe(
        "jet radius", "", lambda p: _stage(p, "ClusterJets").radius, (), 0.02
    ),
    "clustering sharpness": Probe(
        "clustering temperature",
        "",
        lambda p: _stage(p, "ClusterJets").sharpness,
        (),
        0.5,
    ),
    "width of the soft cut": Probe(
        "cut temperature",
        "GeV",
        lambda p: _stage(p, "SelectEvents").temperature,
        (),
        0.5,
    ),
    "a weight of the tagger": Probe(
        "network weight",
        "",
        lambda p: _stage(p, "TagJets").network.layers[0].weight,
        (0, 0),
        0.01,
    ),
    "width of the jet energy scale": Probe(
        "nuisance width", "", lambda p: _stage(p, "EstimateRatio").jes_width, (), 0.002
    ),
}
"""One parameter of every kind."""
