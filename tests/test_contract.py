"""The zoo: every stage keeps the contract that `diffhep.testing.check_stage` states.

The stages form the demo's pipeline, on small toy events; each is given what the stages
before it made. A stage that a package exports and that is missing here fails a test.
"""

import importlib
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffhep
from diffhep.detector import (
    AddNoise,
    DetectHits,
    MeasureTowers,
    PlaceDetector,
    SimulateHits,
)
from diffhep.estimators import Detached, Gradient
from diffhep.generator import toy_events
from diffhep.geometry import default_barrel
from diffhep.helix import Ionisation
from diffhep.inference import EstimateRatio, SelectEvents, SelectHard
from diffhep.jets import (
    ClusterJets,
    CollectConstituents,
    MeasureMissingMomentum,
    NearestNeighbours,
    RadiusInPt,
)
from diffhep.pipeline import AbstractStage, Pipeline, Replicate
from diffhep.tagging import TagFlavours, TagJets
from diffhep.testing import check_equivariant, check_stage
from diffhep.testing._forward import forward
from diffhep.tracking import FitTracks
from diffhep.vertexing import (
    FindPrimaryVertices,
    FitPrimaryVertex,
    FitSecondaryVertices,
)


KEY = jax.random.key(11)
CAPACITY = 16
NUM_JETS = 5
NUM_TAGS = 2

PIPELINE = Pipeline(
    [
        PlaceDetector(default_barrel()),
        SimulateHits(),
        MeasureTowers(),
        DetectHits(),
        AddNoise(jnp.asarray(1e-8), capacity=48),
        FitTracks(),
        FitPrimaryVertex(),
        CollectConstituents(),
        MeasureMissingMomentum(),
        ClusterJets(
            radius=jnp.asarray(0.5),
            power=jnp.asarray(-1.0),
            sharpness=jnp.asarray(20.0),
            num_jets=NUM_JETS,
        ),
        FitSecondaryVertices(),
        TagJets.init(num_tags=NUM_TAGS, width=4, depth=1, key=KEY),
        SelectEvents(),
        EstimateRatio.init(num_tags=NUM_TAGS, key=KEY),
    ]
)

# Other stages, and other values of a knob: the name before the comma says whose inputs
# they are given.
VARIANTS = {
    "SimulateHits, energy loss": SimulateHits(ionisation=Ionisation()),
    "FitTracks, energy loss": FitTracks(ionisation=Ionisation()),
    "FitPrimaryVertex, among several": FindPrimaryVertices(num_vertices=3),
    "DetectHits, detached": DetectHits(estimator=Detached()),
    "DetectHits, replicated": Replicate.around([DetectHits()], num=2),
    "TagJets, by a transformer": TagFlavours.init(
        num_tracks=4, width=4, num_heads=1, num_blocks=1, key=KEY
    ),
    "ClusterJets, neighbours and a function": ClusterJets(
        radius=RadiusInPt(jnp.asarray([0.8, 0.4]), (5.0, 50.0)),
        power=jnp.asarray(-1.0),
        sharpness=jnp.asarray(2.0),
        num_jets=NUM_JETS,
        candidates=NearestNeighbours(),
    ),
    "SelectEvents, hard": SelectHard(jnp.asarray(100.0), jnp.asarray(0.03)),
}
ZOO = {**dict(zip(PIPELINE.names, PIPELINE.stages, strict=True)), **VARIANTS}

# Without a random number per slot, the order of the slots may not matter.
EQUIVARIANT = [
    "FitTracks",
    "FitPrimaryVertex",
    "FitPrimaryVertex, among several",
    "CollectConstituents",
    "MeasureMissingMomentum",
    "FitSecondaryVertices",
    "TagJets",
    "TagJets, by a transformer",
    "SelectEvents",
    "EstimateRatio",
]


@pytest.fixture(scope="module", autouse=True)
def quick_compilation():
    """Compilation in half the time; the code is slow, but the events are three."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module")
def history(quick_compilation):
    """The events before each stage of the pipeline, by the stage's name; and after."""

    events = toy_events(3, capacity=CAPACITY, key=KEY)
    events = [jax.tree.map(lambda x, i=i: x[i], events) for i in range(3)]
    before = {}
    for number, (name, stage) in enumerate(PIPELINE.walk()):
        before[name] = _stack(events)
        # The call that `check_stage` will make again, so that it is compiled once.
        outputs = [
            forward(stage, event.keep(*stage.reads), jax.random.key(number))
            for event in events
        ]
        written = (*stage.writes, "log_weight", "status")
        events = [
            event.replace(**{field: getattr(output, field) for field in written})
            for event, output in zip(events, outputs, strict=True)
        ]
    return before | {"end": _stack(events)}


def _stack(events):
    # Through numpy: types as an array read from a file has, none of them weak.
    return jax.tree.map(lambda *x: jnp.asarray(np.stack(x)), *events)


def _before(history, name):
    return history[name.split(",")[0]]


def test_the_toy_events_are_not_trivial(history):
    # Something alive to compute with, and something dead to poison.
    end = history["end"]
    for field in ("particles", "tracks", "towers", "constituents", "jets"):
        mask = np.asarray(getattr(end, field).mask)
        assert mask.any(axis=1).all(), field
        assert not mask.all(), field
    assert (np.asarray(end.tracks.mask).sum(axis=1) >= 2).all()
    assert (np.asarray(end.status) == 0).all()


@pytest.mark.parametrize("name", [name for name in ZOO if "replicated" not in name])
def test_contract(name, history):
    check_stage(ZOO[name], _before(history, name), key=KEY)


@pytest.mark.parametrize("name", EQUIVARIANT)
def test_order_of_slots_does_not_matter(name, history):
    event = jax.tree.map(lambda x: x[0], _before(history, name))
    check_equivariant(ZOO[name], event, key=KEY)


def test_every_stage_is_in_the_zoo():
    tested = {type(stage) for stage in ZOO.values()}
    for package in sorted(set(diffhep._HOMES.values())):
        module = importlib.import_module(f"diffhep.{package}")
        for name, value in vars(module).items():
            if not inspect.isclass(value) or not issubclass(value, AbstractStage):
                continue
            if not inspect.isabstract(value):
                assert value in tested, f"add {package}.{name} to the zoo"


def test_gradient_promises():
    promises = {name: stage.gradient for name, stage in ZOO.items()}
    # Every discrete choice is unbiased, and nothing else is random.
    unbiased = {name for name, p in promises.items() if p is Gradient.UNBIASED}
    choices = {"DetectHits", "AddNoise", "ClusterJets"}
    assert unbiased == choices | {"DetectHits, replicated"}
    biased = {name for name, p in promises.items() if p is Gradient.BIASED}
    assert biased == {
        "DetectHits, detached",
        "ClusterJets, neighbours and a function",
        "SelectEvents, hard",
    }
    assert PIPELINE.gradient is Gradient.UNBIASED
