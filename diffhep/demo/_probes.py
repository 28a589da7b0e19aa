from collections.abc import Callable, Sequence
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
    where: Callable[[Pipeline], Sequence[Array]]
    """From the pipeline to the arrays that hold it: more than one where stages have
    copies of one parameter."""
    place: tuple[int, ...]
    """Its place in those arrays."""
    step: float
    """Step of the finite differences where choices respond, in `unit`."""

    def read(self, pipeline: Pipeline) -> Float[Array, ""]:
        """The parameter's value."""
        return self.where(pipeline)[0][self.place]

    def read_gradient(self, gradient: Pipeline) -> Float[Array, ""]:
        """The derivative to the parameter: the sum over its copies."""
        entries = [array[self.place] for array in self.where(gradient)]
        return sum(entries[1:], start=entries[0])

    def shift(self, pipeline: Pipeline, amount: Float[Array, ""] | float) -> Pipeline:
        """The pipeline with `amount` added to the parameter."""
        moved = [
            array.at[self.place].add(jnp.asarray(amount, array.dtype))
            for array in self.where(pipeline)
        ]
        return eqx.tree_at(self.where, pipeline, moved)


def stage(pipeline: Pipeline, name: str) -> Any:
    """The stage of a name, whatever its type."""
    return pipeline[name]


PROBES: dict[str, Probe] = {
    "radius of layer 1": Probe(
        "layer radius",
        "mm",
        lambda p: [stage(p, "PlaceDetector").detector.radii],
        (0,),
        1.0,
    ),
    "azimuthal pitch of layer 1": Probe(
        "pitch",
        "mm",
        lambda p: [stage(p, "PlaceDetector").detector.pitch_azimuth],
        (0,),
        0.005,
    ),
    "efficiency of layer 1": Probe(
        "efficiency",
        "",
        lambda p: [stage(p, "PlaceDetector").detector.efficiency],
        (0,),
        0.02,
    ),
    "magnetic field": Probe(
        "field", "T", lambda p: [stage(p, "PlaceDetector").detector.field], (), 0.02
    ),
    "displaced-track threshold": Probe(
        "vertexing parameter",
        "",
        lambda p: [stage(p, "FitSecondaryVertices").threshold],
        (),
        0.05,
    ),
    "jet radius": Probe(
        "jet radius", "", lambda p: [stage(p, "ClusterJets").radius], (), 0.02
    ),
    "clustering sharpness": Probe(
        "clustering temperature",
        "",
        lambda p: [stage(p, "ClusterJets").sharpness],
        (),
        0.5,
    ),
    "width of the soft cut": Probe(
        "cut temperature",
        "GeV",
        lambda p: [stage(p, "SelectEvents").temperature],
        (),
        0.5,
    ),
    "a weight of the tagger": Probe(
        "network weight",
        "",
        lambda p: [stage(p, "TagJets").network.layers[0].weight],
        (0, 0),
        0.01,
    ),
    "width of the jet energy scale": Probe(
        "nuisance width",
        "",
        lambda p: [stage(p, n).jes_width for n in ("EstimateRatio", "SelectEvents")],
        (),
        0.002,
    ),
}
"""One parameter of every kind."""
