import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from ..detector import DetectHits, MeasureTowers, PlaceDetector, SimulateHits
from ..estimators import AbstractSampler, Score
from ..geometry import Barrel, default_barrel
from ..inference import EstimateRatio, SelectEvents
from ..jets import ClusterJets, CollectConstituents, MeasureMissingMomentum
from ..pipeline import AbstractStage, Pipeline, Replicate
from ..tagging import TagJets
from ..tracking import FitTracks
from ..vertexing import FitPrimaryVertex, FitSecondaryVertices


NUM_TAGS = 4
KEEP = ("log_ratio", "pass_weight", "label")
"""What a measurement needs of the events that come out."""


def build_pipeline(
    *,
    barrel: Barrel | None = None,
    replicas: int = 2,
    num_jets: int = 6,
    estimator: AbstractSampler | None = None,
    key: PRNGKeyArray,
) -> Pipeline:
    """The whole chain, from generated particles to the likelihood ratio.

    Args:
        barrel: The detector; the default layout unless given.
        replicas: How many times everything is drawn on each event, found hits and
            clusterings: the leave-one-out baselines of the gradient. 1 for no replicas.
        num_jets: Jet slots.
        estimator: How gradients cross found hits and clusterings; `Score()` unless
            given.
        key: Random key of the networks' initial weights.

    Returns:
        The pipeline. It reads `particles`; everything from the detector on is a
        parameter.
    """
    estimator = Score() if estimator is None else estimator
    tag_key, ratio_key = jax.random.split(key)
    simulation: list[AbstractStage] = [
        PlaceDetector(default_barrel() if barrel is None else barrel),
        SimulateHits(),
        MeasureTowers(),
    ]
    drawn: list[AbstractStage] = [
        DetectHits(estimator=estimator),
        FitTracks(),
        FitPrimaryVertex(),
        CollectConstituents(),
        MeasureMissingMomentum(),
        ClusterJets(
            radius=jnp.asarray(0.5),
            power=jnp.asarray(-1.0),
            sharpness=jnp.asarray(20.0),
            num_jets=num_jets,
            estimator=estimator,
        ),
        FitSecondaryVertices(),
        TagJets.init(num_tags=NUM_TAGS, key=tag_key),
        # Well above the generator's cut on the same quantity.
        SelectEvents(cut=jnp.asarray(180.0)),
        EstimateRatio.init(num_tags=NUM_TAGS, key=ratio_key),
    ]
    if replicas > 1:
        drawn = [Replicate.around(drawn, num=replicas)]
    pipeline = Pipeline(simulation + drawn)
    # JAX types a number that was written down more weakly than the result of a
    # training step, and would compile everything again at the second step.
    return jax.tree.map(lambda x: x.astype(x.dtype) if eqx.is_array(x) else x, pipeline)
