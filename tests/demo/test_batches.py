import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffhep.demo._batches import deal, draw_batch
from diffhep.generator import toy_events


EVENTS = toy_events(40, capacity=16, key=jax.random.key(1))
PREFERENCE = jnp.linspace(0.2, 2.0, 40)


def _totals(events):
    weight = np.exp(np.asarray(events.log_weight))
    label = np.asarray(events.label)
    return np.asarray([np.sum(weight * (label == p)) for p in (0, 1)])


def test_a_batch_has_as_many_of_each_and_its_weights_are_unbiased():
    batch = jax.jit(lambda key: draw_batch(EVENTS, PREFERENCE, num_each=24, key=key))
    drawn = [batch(key) for key in jax.random.split(jax.random.key(2), 400)]
    for events in drawn[:3]:
        assert np.sum(np.asarray(events.label) == 1) == 24
        assert events.label.shape == (48,)
    totals = np.asarray([_totals(events) for events in drawn])
    error = totals.std(axis=0, ddof=1) / np.sqrt(len(totals))
    assert np.all(np.abs(totals.mean(axis=0) - _totals(EVENTS)) < 4 * error)


def test_what_is_preferred_comes_more_often_and_weighs_less():
    events = draw_batch(EVENTS, PREFERENCE, num_each=4000, key=jax.random.key(3))
    for process in (0, 1):
        chosen = np.asarray(EVENTS.label) == process
        wanted = np.asarray(PREFERENCE)[chosen] / np.sum(np.asarray(PREFERENCE)[chosen])
        mine = np.asarray(events.label) == process
        index = np.asarray(events.index)[mine]
        number = np.asarray([np.sum(index == i) for i in EVENTS.index[chosen]])
        assert np.allclose(number, 4000 * wanted, atol=5 * np.sqrt(4000 * wanted.max()))
        weight = np.exp(np.asarray(events.log_weight)[mine])
        each = np.asarray(PREFERENCE)[index] * weight
        assert np.ptp(each) == pytest.approx(0.0, abs=1e-9 * each.max())


def test_dealing_loses_nothing_and_shares_the_work():
    dealt = deal(EVENTS)
    assert sorted(np.asarray(dealt.index)) == list(range(40))
    count = np.asarray(dealt.particles.mask).sum(axis=1)
    hands = count.reshape(len(jax.devices()), -1)
    assert np.all(np.diff(hands, axis=1) >= 0)
    assert np.ptp(hands.sum(axis=1)) <= count.max()
