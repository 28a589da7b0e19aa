"""The pieces of `benchmarks/pattern.py`, on a few tracks."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from benchmarks import _pattern_events as events, _pattern_networks as networks
from diffhep.optimise import train


_BARREL = events.barrel()
_LOW, _HIGH = jnp.asarray(1.0), jnp.asarray(10.0)


@pytest.fixture(scope="module")
def tracks():
    keys = jax.random.split(jax.random.key(3), 2000)
    draw = jax.jit(jax.vmap(events.draw, in_axes=(0, None, None, None)))
    return draw(keys, _BARREL, _LOW, _HIGH)


def test_the_units_are_those_of_the_fit_to_the_true_hits(tracks):
    pulls = np.asarray((tracks.best - tracks.truth) / tracks.sigma)
    # 4 standard errors of 2000.
    assert abs(pulls.mean()) < 4 / np.sqrt(2000)
    assert abs(pulls.std() - 1) < 4 / np.sqrt(4000)
    # The seed's errors are those that its covariance says.
    shift = np.asarray(jax.vmap(events.inverse_momentum)(tracks.seed.parameters))
    spread = (shift - np.asarray(tracks.truth)).std() / events.SEED_ERRORS[4]
    assert abs(spread - 1) < 4 / np.sqrt(4000)


def test_there_is_one_true_hit_at_most_among_the_noise(tracks):
    true = np.asarray(tracks.is_true)
    assert true.sum(axis=2).max() == 1
    assert np.all(np.asarray(tracks.mask)[true])
    # The efficiency, but for the per cent that scatters out of the road.
    assert 0.95 < true.sum(axis=2).mean() < 0.97
    assert np.abs(np.asarray(tracks.road)[np.asarray(tracks.mask)]).max() <= 1
    noise = np.asarray(tracks.mask) & ~true
    # Of a Poisson distribution with this mean, more than 3 are cut to 3.
    number = np.random.default_rng(0).poisson(events.NOISE, 1_000_000)
    cut = np.minimum(number, events.CANDIDATES - 1).mean()
    assert abs(noise.sum(axis=2).mean() - cut) < 0.03


def test_training_through_the_fit_lowers_the_loss():
    loss = networks.Loss(_BARREL, "joint", 32, _LOW, _HIGH)
    network = networks.build(jax.random.key(0))
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        result = train(
            loss,
            network,
            optimiser=optax.adam(3e-3),
            num_steps=40,
            key=jax.random.key(1),
        )
    assert np.all(np.isfinite(result.losses))
    assert np.mean(result.losses[-5:]) < 0.7 * np.mean(result.losses[:5])
