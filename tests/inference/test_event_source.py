"""Events for the training of density ratios, as they are drawn."""

import jax
import jax.numpy as jnp
import numpy as np

from diffhep.inference import StoredEvents, VariedEvents


NORMAL = jnp.asarray(np.random.default_rng(0).normal(size=(10, 1)))


def _prior(key):
    return jax.random.uniform(key, (1,), minval=-1.0, maxval=1.0)


def _shift(x, parameters):
    return x + parameters.astype(x.dtype)


def test_events_of_several_arrays():
    # A set of tracks, with a mask, say.
    features = {"tracks": jnp.zeros((5, 3, 2)), "mask": jnp.ones((5, 3))}
    batch = StoredEvents(features).draw(4, key=jax.random.key(0))
    assert batch.features["tracks"].shape == (4, 3, 2)
    assert batch.parameters.shape == (4, 0)
    np.testing.assert_array_equal(batch.weight, 1.0)


def test_weights_have_mean_one():
    weight = jnp.asarray([1.0, 2.0, 6.0])
    batch = StoredEvents(jnp.arange(3.0)[:, None], weight=weight).draw(
        30_000, key=jax.random.key(1)
    )
    index = batch.features[:, 0].astype(int)
    np.testing.assert_allclose(batch.weight, weight[index] / 3)
    np.testing.assert_allclose(jnp.bincount(index) / 30_000, 1 / 3, atol=0.011)


def test_parameters_of_stored_events_come_first():
    grid = jnp.full((10, 1), 7.0)
    events = StoredEvents(NORMAL, grid)
    moved = VariedEvents(events, _prior, _shift).draw(6, key=jax.random.key(2))
    assert moved.parameters.shape == (6, 2)
    np.testing.assert_array_equal(moved.parameters[:, 0], 7.0)
    # Of what remains without the shift, each is one of the stored events.
    left = moved.features - moved.parameters[:, 1:]
    distance = jnp.min(jnp.abs(left - NORMAL.T), axis=1)
    np.testing.assert_allclose(distance, 0.0, atol=1e-12)
    assert jnp.all(jnp.abs(moved.parameters[:, 1]) <= 1.0)


def test_moved_events_of_single_precision():
    # Their parameters are drawn in double precision.
    events = StoredEvents(NORMAL.astype(jnp.float32))
    moved = VariedEvents(events, _prior, _shift).draw(4, key=jax.random.key(3))
    assert moved.features.dtype == jnp.float32
    assert moved.parameters.dtype == NORMAL.dtype
    assert moved.parameters.shape == (4, 1)
