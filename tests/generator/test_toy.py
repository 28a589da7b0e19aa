import jax
import numpy as np
import pytest

from diffhep.generator import toy_events


def _toys(num_events=200, *, capacity=96):
    return toy_events(num_events, capacity=capacity, key=jax.random.key(3))


def test_toys_in_both_precisions(precision):
    events = _toys()
    assert events.particles.momentum.dtype == precision
    assert events.log_weight.dtype == precision
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(events))


def test_toys_look_like_events():
    events = _toys()
    particles, mask = events.particles, np.asarray(events.particles.mask)
    momentum = np.asarray(particles.momentum)
    pt = np.hypot(momentum[..., 0], momentum[..., 1])
    assert 40 < mask.sum(axis=1).mean() < 60
    assert pt[mask].min() > 1.0
    assert np.all(np.abs(momentum[..., 2]) <= pt * np.sinh(2.0))
    assert np.all(np.diff(pt, axis=1) <= 0)
    bottom = np.asarray(particles.origin) == 5
    flight = np.asarray(particles.vertex) - np.asarray(events.truth_vertex)[:, None]
    flight = np.sqrt(np.sum(flight**2, axis=-1))
    assert 1.0 < np.median(flight[bottom]) < 10.0
    assert np.all(flight[mask & ~bottom] == 0)
    label = np.asarray(events.label)
    np.testing.assert_array_equal(label, np.arange(200) % 2 == 0)
    # The hard particles of the signal have the Higgs boson's mass, less what is soft
    # or out of acceptance.
    hard = np.where((mask & (bottom | (pt > 3)))[..., None], momentum, 0).sum(axis=1)
    mass = np.sqrt(hard[:, 3] ** 2 - np.sum(hard[:, :3] ** 2, axis=1))
    assert 105 < np.median(mass[label == 1]) < 130
    assert np.median(mass[label == 0]) < 90


def test_toy_yields():
    for number in (7, 200):
        events = _toys(number)
        weight, label = np.exp(events.log_weight), np.asarray(events.label)
        assert weight[label == 1].sum() == pytest.approx(1000.0)
        assert weight[label == 0].sum() == pytest.approx(10_000.0)


def test_a_toy_depends_on_its_index_alone():
    few, many = _toys(7), _toys(200)
    for a, b in zip(
        jax.tree.leaves(few.particles), jax.tree.leaves(many.particles), strict=True
    ):
        # Compiled for another batch size, sums may be rounded differently.
        np.testing.assert_allclose(a, b[:7], rtol=1e-12, atol=1e-12)


def test_small_capacity():
    events = _toys(7, capacity=8)
    assert events.particles.mask.shape == (7, 8)
    assert np.asarray(events.particles.mask).any(axis=1).all()
    assert np.all(np.asarray(events.status) == 0)


def test_bad_sizes():
    with pytest.raises(ValueError, match=r"`num_events` must be positive"):
        _toys(0)
    with pytest.raises(ValueError, match=r"`capacity` must be at least 4"):
        _toys(7, capacity=3)
