"""Seeds from hits alone, in double and in single precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffhep.geometry import build_barrel, default_barrel
from diffhep.tracking import predict, seed_track


_BARREL = default_barrel()
_LAYERS = 6


def _single(tree):
    return jax.tree.map(lambda x: x.astype(jnp.float32), tree)


def test_exact_hits_give_the_track_back():
    tracks = [[0.02, 5.0, 2.0, 1.2, 0.3], [-1.0, -40.0, -3.1, 2.0, -1.2]]
    for truth in jnp.asarray(tracks):
        hits = predict(truth, _BARREL)
        seed = seed_track(hits.position, jnp.ones(_LAYERS, bool), _BARREL)
        np.testing.assert_allclose(seed, truth, rtol=1e-7)


def test_three_neighbours_of_unequal_weight_in_single_precision():
    # The normal equations of these three are singular in single precision.
    layers = 10
    barrel = build_barrel(
        radii=list(np.linspace(30.0, 1020.0, layers)),
        pitch_azimuth=[0.05] * layers,
        pitch_z=[0.25] * layers,
        thickness=[0.015] * layers,
        efficiency=[0.97] * layers,
        field=2.0,
    )
    truth = jnp.array([0.05, 3.0, 0.6, 2.4, 0.15])
    hits = predict(truth, barrel).position
    weight = jnp.zeros(layers).at[-3:].set(jnp.array([3e-3, 8e-4, 0.5]))

    def seed(hits, weight, barrel):
        return seed_track(hits, weight > 0, barrel, weight=weight)

    single = _single((hits, weight, barrel))
    found = seed(*single)
    assert found.dtype == jnp.float32
    # A radian of 1e-7 at a metre is 0.1 micrometres, and the lever is ten layers long.
    tolerance = jnp.array([2.0, 0.1, 5e-3, 1e-5, 2e-3])
    np.testing.assert_array_less(jnp.abs(found.astype(float) - truth), tolerance)
    exact, rough = jax.jacrev(seed)(hits, weight, barrel), jax.jacrev(seed)(*single)
    size = jnp.max(jnp.abs(exact), axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(rough.astype(float) / size, exact / size, atol=0.01)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_hits_at_random_have_finite_seeds_and_derivatives(dtype):
    number = 2000
    keys = jax.random.split(jax.random.key(0), 4)
    azimuth = jax.random.uniform(keys[0], (number, _LAYERS), dtype, -np.pi, np.pi)
    z = jax.random.uniform(keys[1], (number, _LAYERS), dtype, -1e3, 1e3)
    hits = jnp.stack([azimuth, z], axis=2)
    # Three or more layers; weights over six orders of magnitude.
    order = jnp.argsort(jax.random.uniform(keys[2], (number, _LAYERS)), axis=1)
    mask = order < 3 + jnp.arange(number)[:, None] % 4
    weight = 10 ** jax.random.uniform(keys[3], (number, _LAYERS), dtype, -6, 0)
    barrel = jax.tree.map(lambda x: x.astype(dtype), _BARREL)

    def one(hits, mask, weight):
        seed = seed_track(hits, mask, barrel, weight=weight)
        return jnp.sum(jnp.tanh(seed)), seed

    graded = jax.value_and_grad(one, argnums=(0, 2), has_aux=True)
    (_, seeds), slopes = jax.jit(jax.vmap(graded))(hits, mask, weight)
    assert jnp.all(jnp.isfinite(seeds))
    assert all(jnp.all(jnp.isfinite(slope)) for slope in slopes)
