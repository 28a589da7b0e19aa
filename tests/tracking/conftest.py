"""Tracks that several tests fit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffhep.detector import simulate_hits
from diffhep.geometry import default_barrel
from diffhep.helix import PION_MASS, perigee_from_momentum


def _pions(key, number, low, high):
    # Hits of pions in the default barrel, and their true parameters.
    barrel = default_barrel()
    keys = jax.random.split(key, 4)
    span = jnp.log(jnp.asarray([low, high]))
    transverse = jnp.exp(
        jax.random.uniform(keys[0], (number,), minval=span[0], maxval=span[1])
    )
    phi = jax.random.uniform(keys[1], (number,), minval=-np.pi, maxval=np.pi)
    eta = jax.random.uniform(keys[2], (number,), minval=-1.0, maxval=1.0)
    momentum = transverse[:, None] * jnp.stack(
        [jnp.cos(phi), jnp.sin(phi), jnp.sinh(eta)], axis=1
    )
    energy = jnp.sqrt(jnp.sum(momentum**2, axis=1) + PION_MASS**2)
    charge = jnp.where(jnp.arange(number) % 2 == 0, 1.0, -1.0)
    noise = jax.random.normal(keys[3], (number, barrel.radii.shape[0], 4))
    hits = jax.vmap(simulate_hits, in_axes=(None, 0, 0, None, 0))(
        jnp.zeros(3),
        jnp.concatenate([momentum, energy[:, None]], axis=1),
        charge,
        barrel,
        noise,
    )
    truth = jax.vmap(perigee_from_momentum, in_axes=(None, 0, 0, None))(
        jnp.zeros(3), momentum, charge, barrel.field
    )
    return hits.position, truth


@pytest.fixture(scope="session")
def pions():
    return _pions
