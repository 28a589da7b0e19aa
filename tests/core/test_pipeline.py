import os
import subprocess
import sys
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array, Float

from diffhep.estimators import AbstractSampler, Gradient, Score
from diffhep.event import Event
from diffhep.generator import toy_events
from diffhep.pipeline import (
    AbstractStage,
    Pipeline,
    Replicate,
    Sample,
    run,
    weighted_mean,
)
from diffhep.testing import check_unbiased


class Toss(AbstractStage):
    """A coin with a parameter: the missing momentum is the event's number, or zero."""

    logit: Float[Array, ""]
    estimator: AbstractSampler = Score()
    reads: ClassVar[frozenset[str]] = frozenset({"label"})
    writes: ClassVar[frozenset[str]] = frozenset({"missing_momentum"})

    @property
    def gradient(self):
        return self.estimator.gradient

    def __call__(self, event: Event, *, key) -> Event:
        log_prob = jax.nn.log_sigmoid(self.logit)
        head = jax.random.bernoulli(key, jnp.exp(jax.lax.stop_gradient(log_prob)))
        term = jnp.where(head, log_prob, jax.nn.log_sigmoid(-self.logit))
        value = jnp.where(head, event.label, 0.0) * jnp.ones(2)
        event = event.replace(missing_momentum=value)
        return event.add_log_weight(self.estimator.term(term))


class Draw(AbstractStage):
    """A random label."""

    reads: ClassVar[frozenset[str]] = frozenset()
    writes: ClassVar[frozenset[str]] = frozenset({"label"})
    gradient: ClassVar[Gradient] = Gradient.EXACT

    def __call__(self, event: Event, *, key) -> Event:
        return event.replace(label=jax.random.normal(key))


class Double(AbstractStage):
    """A deterministic stage between the two."""

    reads: ClassVar[frozenset[str]] = frozenset({"label"})
    writes: ClassVar[frozenset[str]] = frozenset({"truth_vertex"})
    gradient: ClassVar[Gradient] = Gradient.EXACT

    def __call__(self, event: Event, *, key) -> Event:
        del key
        return event.replace(truth_vertex=event.label * jnp.ones(3))


KEY = jax.random.key(5)
LOGIT = 0.3


def _events(number):
    return jax.vmap(
        lambda i: Event(label=1.0 + i.astype(float) % 3, index=i.astype(jnp.int32))
    )(jnp.arange(number))


def _toss():
    return Toss(jnp.asarray(LOGIT))


def test_wiring_is_checked():
    with pytest.raises(ValueError, match=r"Toss reads \['label'\], which no earlier"):
        Pipeline([_toss()])
    assert Pipeline([Draw(), _toss()], inputs=()).reads == frozenset()
    with pytest.raises(ValueError, match="Two stages are named 'Draw'"):
        Pipeline([Draw(), Draw()])
    with pytest.raises(ValueError, match="2 stages but 1 names"):
        Pipeline([Draw(), Double()], names=["one"])


def test_reads_writes_and_gradient():
    pipeline = Pipeline([Double(), _toss()], inputs=["label"])
    assert pipeline.reads == {"label"}
    assert pipeline.writes == {"truth_vertex", "missing_momentum"}
    assert pipeline.gradient is Gradient.UNBIASED
    assert Pipeline([Draw(), Double()]).gradient is Gradient.EXACT


def test_describe():
    lines = Pipeline([Draw(), Double(), _toss()]).describe().splitlines()
    assert lines[0].split() == ["stage", "reads", "writes", "gradient", "parameters"]
    assert lines[2].split() == ["Draw", "-", "label", "exact", "0"]
    assert lines[4].split() == ["Toss", "label", "missing_momentum", "unbiased", "1"]


def test_stages_by_name():
    pipeline = Pipeline([Draw(), _toss()], names=["first", "second"])
    assert isinstance(pipeline["second"], Toss)
    with pytest.raises(KeyError, match="No stage is named 'third'"):
        pipeline["third"]


def test_adding_a_stage_does_not_reshuffle_the_others():
    short = Pipeline([Draw(), _toss()])(Event(), key=KEY)
    long = Pipeline([Draw(), Double(), _toss()])(Event(), key=KEY)
    renamed = Pipeline([Draw(), _toss()], names=["Other", "Toss"])(Event(), key=KEY)
    assert float(short.label) == float(long.label)
    np.testing.assert_array_equal(short.missing_momentum, long.missing_momentum)
    assert float(short.label) != float(renamed.label)


def test_gradient_is_a_pipeline():
    def loss(pipeline):
        return pipeline(Event(label=jnp.asarray(2.0)), key=KEY).log_weight

    gradient = eqx.filter_grad(loss)(Pipeline([_toss()], inputs=["label"]))
    assert isinstance(gradient, Pipeline)
    assert gradient["Toss"].logit.shape == ()
    assert float(gradient["Toss"].logit) != 0.0


def _mean(pipeline, events, key):
    sample = Sample.from_events(
        run(pipeline, events, keep=("missing_momentum",), key=key)
    )
    weight = jnp.exp(sample.log_weight)
    # An offset has no derivative, but makes noise where there is no baseline.
    return jnp.sum(weight * (sample.events.missing_momentum[:, 0] + 1.0))


def _gradients(stage):
    # Not self-normalised, and of one event: exactly unbiased, and without the help of a
    # batch baseline.
    pipeline = Pipeline([stage], inputs=["label"])
    gradient = eqx.filter_jit(
        jax.vmap(lambda key: eqx.filter_grad(_mean)(pipeline, _events(1), key))
    )(jax.random.split(KEY, 4000))
    return np.asarray(jax.tree.leaves(gradient)[0])


def test_replicate_is_unbiased_and_quieter():
    exact = jax.nn.sigmoid(LOGIT) * jax.nn.sigmoid(-LOGIT)
    inner = Pipeline([_toss()], inputs=["label"])
    plain = _gradients(_toss())
    check_unbiased(plain, exact)
    replicated = _gradients(Replicate(inner, num=4))
    check_unbiased(replicated, exact)
    # Four draws alone would halve the spread; the baselines do much better.
    assert np.std(replicated) < 0.3 * np.std(plain)


def test_replicate_weights_add_up():
    replicate = Replicate(Pipeline([_toss()], inputs=["label"]), num=4)
    event = Event(label=jnp.asarray(1.0), log_weight=jnp.asarray(0.7))
    replicas = replicate(event, key=KEY)
    assert replicas.log_weight.shape == (4,)
    total = jax.scipy.special.logsumexp(replicas.log_weight)
    np.testing.assert_allclose(total, 0.7, rtol=1e-12)
    assert replicate.reads == {"label"}
    assert replicate.writes == {"missing_momentum"}
    assert replicate.gradient is Gradient.UNBIASED
    with pytest.raises(ValueError, match="at least 2"):
        Replicate(Pipeline([_toss()], inputs=["label"]), num=1)


def test_run_does_not_depend_on_blocks_or_on_the_batch():
    pipeline = Pipeline([_toss()], inputs=["label"])
    whole = run(pipeline, _events(12), keep=("missing_momentum",), key=KEY)
    for block in (1, 5, 64):
        blocks = run(
            pipeline,
            _events(12),
            keep=("missing_momentum",),
            block_size=block,
            key=KEY,
        )
        np.testing.assert_array_equal(whole.missing_momentum, blocks.missing_momentum)
    part = jax.tree.map(lambda x: x[3:7], _events(12))
    alone = run(pipeline, part, keep=("missing_momentum",), key=KEY)
    np.testing.assert_array_equal(whole.missing_momentum[3:7], alone.missing_momentum)
    assert whole.label is None


def test_run_names_the_missing_field():
    events = toy_events(2, capacity=8, key=KEY)
    events = events.keep("particles")
    with pytest.raises(ValueError, match="reads 'label', but the events do not have"):
        run(Pipeline([_toss()], inputs=["label"]), events, keep=(), key=KEY)


def test_sample_flattens_replicas_and_means_are_normalised():
    replicate = Replicate(Pipeline([_toss()], inputs=["label"]), num=4)
    pipeline = Pipeline([replicate], inputs=["label"])
    events = run(pipeline, _events(6), keep=("missing_momentum",), key=KEY)
    sample = Sample.from_events(events)
    assert sample.log_weight.shape == (24,)
    assert sample.events.missing_momentum.shape == (24, 2)
    ones = weighted_mean(jnp.ones(24), sample.log_weight)
    np.testing.assert_allclose(ones, 1.0, rtol=1e-12)


_TWO_DEVICES = """
import jax
jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_enable_x64", True)
import jax.numpy as jnp, numpy as np
from diffhep.event import Event
from diffhep.generator import toy_events
from diffhep.pipeline import Pipeline, run
from typing import ClassVar
from diffhep.pipeline import AbstractStage

class Smear(AbstractStage):
    reads: ClassVar = frozenset({"truth_vertex"})
    writes: ClassVar = frozenset({"missing_momentum"})
    gradient: ClassVar = None
    def __call__(self, event, *, key):
        noise = jax.random.normal(key, (2,))
        return event.replace(missing_momentum=event.truth_vertex[:2] + noise)

events = toy_events(6, capacity=4, key=jax.random.key(0))
pipeline = Pipeline([Smear()], inputs=["truth_vertex"])
auto = (jax.sharding.AxisType.Auto,)
mesh = jax.make_mesh((2,), ("events",), axis_types=auto)
key, keep = jax.random.key(1), ("missing_momentum",)
one = run(pipeline, events, keep=keep, key=key)
two = run(pipeline, events, keep=keep, key=key, mesh=mesh)
assert len(two.missing_momentum.sharding.device_set) == 2
# To rounding: the compiler vectorises blocks of different sizes differently.
np.testing.assert_allclose(one.missing_momentum, two.missing_momentum, rtol=1e-13)
try:
    odd = jax.tree.map(lambda x: x[:5], events)
    run(pipeline, odd, keep=keep, key=key, mesh=mesh)
except ValueError as error:
    print(error)
"""


def test_run_does_not_depend_on_the_devices():
    # The number of devices is fixed when JAX starts, hence another process.
    result = subprocess.run(
        [sys.executable, "-c", _TWO_DEVICES],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
    )
    assert result.returncode == 0, result.stderr
    assert "5 events cannot be spread over 2 devices" in result.stdout
