import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffhep.event import Event, Status, explain_status
from diffhep.generator import toy_events


def test_empty_event_has_a_weight_of_one():
    event = Event()
    assert float(event.log_weight) == 0.0
    assert event.particles is None
    assert int(event.status) == int(Status.OK)


def test_replace_and_its_error():
    event = Event().replace(label=jnp.asarray(1.0))
    assert float(event.label) == 1.0
    with pytest.raises(ValueError, match="has no field 'lable'"):
        event.replace(lable=jnp.asarray(1.0))


def test_keep_and_its_error():
    events = toy_events(2, capacity=8, key=jax.random.key(0))
    event = jax.tree.map(lambda x: x[0], events)
    kept = event.keep("label")
    assert kept.particles is None
    assert kept.label is event.label
    assert kept.log_weight is event.log_weight
    assert kept.index is event.index
    with pytest.raises(ValueError, match="has no field 'trakcs'"):
        event.keep("trakcs")


def test_replace_and_keep_on_a_batch():
    events = toy_events(3, capacity=8, key=jax.random.key(0))
    weights = jnp.arange(3.0)
    np.testing.assert_array_equal(
        events.replace(log_weight=weights).log_weight, weights
    )
    kept = events.keep("label")
    assert kept.particles is None
    np.testing.assert_array_equal(kept.label, events.label)


def test_flags_add_up():
    event = Event().flag(Status.JET_OVERFLOW, jnp.asarray(True))
    event = event.flag(Status.TRACK_FIT_FAILED, jnp.asarray(False))
    event = event.flag(Status.PARTICLE_OVERFLOW, jnp.asarray(True))
    assert Status(int(event.status)) == Status.JET_OVERFLOW | Status.PARTICLE_OVERFLOW


def test_every_status_has_a_sentence_with_a_remedy():
    for status in Status:
        sentences = explain_status(jnp.array([0, int(status), int(status)]))
        if status is Status.OK:
            assert sentences == {}
            continue
        ((sentence, count),) = sentences.items()
        assert count == 2
        assert ";" in sentence or "," in sentence
    both = int(Status.JET_OVERFLOW | Status.VERTEX_FIT_FAILED)
    assert len(explain_status(jnp.array([both, 0]))) == 2


def test_add_log_weight_is_differentiable():
    term = jax.grad(lambda x: Event().add_log_weight(x).log_weight)(2.0)
    np.testing.assert_array_equal(term, 1.0)


def test_wrong_shapes_are_caught():
    # The run-time check that is on in all tests: a weight is a scalar.
    with pytest.raises(TypeError, match="log_weight"):
        Event(log_weight=jnp.zeros(3))
