"""The gradient of the whole chain, from particles to the uncertainty."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffhep.demo import PROBES, build_pipeline, check_fixed, check_free, with_estimator
from diffhep.estimators import Detached
from diffhep.generator import toy_events
from diffhep.inference import Analysis, SoftBins


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


def test_gradient_of_the_expectation_needs_the_score():
    names = ("jet radius", "efficiency of layer 1")
    chain = build_pipeline(replicas=8, num_jets=4, key=jax.random.key(1))
    events = toy_events(512, capacity=CAPACITY, key=jax.random.key(3))
    rows = check_free(chain, events, names=names, analysis=ANALYSIS, key=KEY)
    for row in rows:
        assert abs(row.pull) < 4, row
    radius = rows[0]
    assert radius.relative_error < 0.25
    without = check_free(
        with_estimator(chain, Detached()),
        events,
        names=names[:1],
        analysis=ANALYSIS,
        key=KEY,
    )[0]
    # Bit for bit the same values, but nothing of their dependence on the radius.
    assert without.difference == pytest.approx(radius.difference, rel=1e-9)
    assert without.gradient == 0.0
    assert abs(without.pull) > 4


def test_probes_move_every_copy_of_a_parameter(pipeline):
    for name, probe in PROBES.items():
        moved = probe.shift(pipeline, jnp.asarray(1e-3))
        change = float(probe.read(moved) - probe.read(pipeline))
        assert np.isclose(change, 1e-3), name
    moved = PROBES["width of the jet energy scale"].shift(pipeline, 0.01)
    assert moved["SelectEvents"].jes_width == moved["EstimateRatio"].jes_width
