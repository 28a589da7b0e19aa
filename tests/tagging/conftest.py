"""Toy jets: tracks from the collision, and in bottom jets from a decay in flight."""

import jax
import jax.numpy as jnp
import pytest

from diffhep.helix import perigee_from_point
from diffhep.tagging import BOTTOM, FROM_BOTTOM, LIGHT, PRIMARY, JetTracks, JetTruth


SLOTS = 8
FIELD = 2.0
WIDTHS = (0.02, 0.03, 5e-4, 5e-4, 1e-3)


def _toy_jet(key):
    """A light or a bottom jet of 3 to 8 tracks, of which half come from the decay."""
    keys = jax.random.split(key, 8)
    bottom = jax.random.bernoulli(keys[0])
    azimuth = jax.random.uniform(keys[1], minval=-3.0, maxval=3.0)
    polar = jax.random.uniform(keys[2], minval=0.7, maxval=2.4)
    across, along = jnp.cos(azimuth), jnp.sin(azimuth)
    sine, cosine = jnp.sin(polar), jnp.cos(polar)
    axis = jnp.stack([across * sine, along * sine, cosine])
    flight = jnp.where(bottom, 1.0, 0.0) * jax.random.exponential(keys[3]) * 4 * axis
    slot = jnp.arange(SLOTS)
    heavy = (slot % 2 == 0) & bottom
    vertex = jnp.where(heavy[:, None], flight[None], 0.0)
    swing = 0.15 * jax.random.normal(keys[4], (2, SLOTS))
    size = jnp.exp(0.5 + 0.7 * jax.random.normal(keys[5], (SLOTS,)))
    sign = jnp.where(slot % 3 == 0, -1.0, 1.0)
    exact = jax.vmap(perigee_from_point, (0, 0, 0, 0, None))(
        vertex, azimuth + swing[0], polar + swing[1], sign / size, jnp.asarray(FIELD)
    )
    width = jnp.asarray(WIDTHS)[None] * jnp.ones((SLOTS, 1))
    mixing = 0.3 * jnp.tril(jax.random.normal(keys[6], (SLOTS, 5, 5)), -1)
    root = width[:, :, None] * (jnp.eye(5)[None] + mixing)
    noise, number = jax.random.split(keys[7])
    shift = jnp.einsum("nab,nb->na", root, jax.random.normal(noise, (SLOTS, 5)))
    jet = JetTracks(
        parameters=exact + shift,
        covariance=jnp.einsum("nab,ncb->nac", root, root),
        mask=slot < jax.random.randint(number, (), 3, SLOTS + 1),
        momentum=60 * jnp.append(axis, 1.02),
        primary_covariance=jnp.diag(jnp.asarray([1e-4, 1e-4, 4e-4])),
        field=jnp.asarray(FIELD),
    )
    truth = JetTruth(
        flavour=jnp.where(bottom, BOTTOM, LIGHT),
        origin=jnp.where(heavy, FROM_BOTTOM, PRIMARY),
        vertex=vertex,
        flight=flight,
    )
    return jet, truth


@pytest.fixture(scope="session")
def toy_jets():
    """A function from a key and a number to as many jets and the truth about them."""

    def make(key, number):
        return jax.jit(jax.vmap(_toy_jet))(jax.random.split(key, number))

    return make
