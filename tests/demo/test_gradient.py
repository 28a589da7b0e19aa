"""The gradient of the whole chain, from particles to the uncertainty."""

from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffhep.demo import (
    PROBES,
    build_pipeline,
    check_fixed,
    check_free,
    with_estimator,
)
from diffhep.estimators import Detached, Gradient
from diffhep.event import Constituents
from diffhep.generator import toy_events
from diffhep.inference import Analysis, EstimateRatio, SelectEvents, SoftBins
from diffhep.jets import ClusterJets, MeasureMissingMomentum
from diffhep.pipeline import AbstractStage, Pipeline, Replicate


KEY = jax.random.key(7)
CAPACITY = 32
# Wide bins around the ratios that untrained networks give.
ANALYSIS = Analysis(SoftBins.uniform(4, low=-0.4, high=0.4, bandwidth=0.05))


@pytest.fixture(scope="module")
def pipeline():
    return build_pipeline(replicas=1, num_jets=4, key=jax.random.key(1))


def test_pathwise_gradient_agrees_to_many_digits(pipeline):
    events = toy_events(24, capacity=CAPACITY, key=jax.random.key(2))
    rows = check_fixed(pipeline, events, analysis=ANALYSIS, key=KEY)
    assert {row.name for row in rows} == set(PROBES)
    for row in rows:
        assert row.deviation < 1e-5, row
    moved = {row.name for row in rows if abs(row.difference) > 1e-9}
    # With the outcomes held fixed, what only decides about outcomes has no effect.
    assert set(PROBES) - moved == {
        "efficiency of layer 1",
        "jet radius",
        "clustering sharpness",
    }


class NoTags(AbstractStage):
    reads: ClassVar[frozenset[str]] = frozenset({"jets"})
    writes: ClassVar[frozenset[str]] = frozenset({"tags"})
    gradient: ClassVar[Gradient] = Gradient.EXACT

    def __call__(self, event, *, key):
        del key
        return event.replace(tags=jnp.zeros((event.jets.mask.shape[0], 1)))


def _jet_chain():
    cluster = ClusterJets(
        radius=jnp.asarray(0.5),
        power=jnp.asarray(-1.0),
        sharpness=jnp.asarray(10.0),
        num_jets=4,
    )
    ratio = EstimateRatio.init(num_tags=1, key=jax.random.key(4))
    stages = [cluster, NoTags(), SelectEvents(), ratio]
    return Pipeline(
        [MeasureMissingMomentum(), Replicate.around(stages, num=8)],
        inputs=["constituents"],
    )


def test_without_the_score_the_check_fails():
    events = toy_events(768, capacity=CAPACITY, key=jax.random.key(3))
    particles = events.particles
    constituents = jax.vmap(Constituents)(
        particles.momentum, particles.charge != 0, particles.mask
    )
    events = events.replace(constituents=constituents)
    chain = _jet_chain()
    rows = [
        check_free(pipeline, events, names=("jet radius",), analysis=ANALYSIS, key=KEY)[
            0
        ]
        for pipeline in (chain, with_estimator(chain, Detached()))
    ]
    good, bad = rows
    assert abs(good.pull) < 4, good
    assert good.relative_error < 0.25, good
    # The same values, but nothing of their dependence on the radius.
    assert bad.difference == pytest.approx(good.difference, rel=1e-9)
    assert bad.gradient == 0.0
    assert abs(bad.pull) > 4, bad


def test_full_derivative_of_the_whole_chain():
    names = (
        "radius of layer 1",
        "azimuthal pitch of layer 1",
        "efficiency of layer 1",
        "jet radius",
    )
    events = toy_events(256, capacity=CAPACITY, key=jax.random.key(5))
    chain = build_pipeline(replicas=4, num_jets=4, key=jax.random.key(1))
    for row in check_free(chain, events, names=names, analysis=ANALYSIS, key=KEY):
        assert abs(row.pull) < 4, row
        assert row.deviation_error > 0, row


def test_probes_move_every_copy_of_a_parameter(pipeline):
    for name, probe in PROBES.items():
        moved = probe.shift(pipeline, jnp.asarray(1e-3))
        change = float(probe.read(moved) - probe.read(pipeline))
        assert np.isclose(change, 1e-3), name
    moved = PROBES["width of the jet energy scale"].shift(pipeline, 0.01)
    assert moved["SelectEvents"].jes_width == moved["EstimateRatio"].jes_width
