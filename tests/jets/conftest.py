import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffhep.jets import cluster, history_log_prob, sample_history


def _momenta(rng, shape, *, num_axes=4, mass=0.14):
    """Constituents of a few jets and some in between, not massless, on no grid."""
    events = shape[:-1]
    axis = rng.integers(0, num_axes, shape)
    centre_y = np.take_along_axis(rng.uniform(-1.5, 1.5, (*events, num_axes)), axis, -1)
    centre = np.take_along_axis(
        rng.uniform(0, 2 * np.pi, (*events, num_axes)), axis, -1
    )
    spread = np.where(axis < 2, 0.2, 1.5)
    y = centre_y + spread * rng.normal(size=shape)
    phi = centre + spread * rng.normal(size=shape)
    pt = 1 + rng.exponential(np.where(axis < 2, 10.0, 2.0))
    mt = np.hypot(pt, mass)
    components = [pt * np.cos(phi), pt * np.sin(phi), mt * np.sinh(y), mt * np.cosh(y)]
    return np.stack(components, axis=-1)


def _settings(radius, power, sharpness=None):
    names = {"radius": radius, "power": power}
    if sharpness is not None:
        names["sharpness"] = sharpness
    # Not weakly typed, which would be another compilation.
    return {name: jnp.asarray(value, float) for name, value in names.items()}


def _sample(momentum, mask, key, settings):
    return sample_history(momentum, mask, **settings, key=key)


def _cluster(momentum, mask, settings):
    return cluster(momentum, mask, **settings)


def _replay(momentum, settings, history, mask):
    return history_log_prob(history, momentum, mask, **settings)


def _members(keep, take):
    """The sets of slots that are a jet each."""
    inside = {slot: {slot} for slot in range(len(keep))}
    found = set()
    for one, other in zip(np.asarray(keep), np.asarray(take), strict=True):
        if other >= 0:
            inside[one] |= inside.pop(other)
        elif other == -1:
            found.add(frozenset(map(int, inside.pop(one))))
    return found


@pytest.fixture(scope="session")
def toys():
    """Random events, and the functions under test in batches.

    Each shape is a compilation of several seconds: most tests use `events`.
    """
    batch = functools.partial(jax.vmap, in_axes=(0, 0, 0, None))
    value_and_grad = jax.value_and_grad(_replay, argnums=(0, 1))
    rng = np.random.default_rng(1)
    mask = rng.random((16, 20)) < 0.8
    # One event that fills more than a tile; and events of no, one and three.
    mask[0] = True
    mask[1], mask[2] = False, np.arange(20) == 5
    mask[3] = np.arange(20) % 7 == 3
    momentum = np.where(mask[..., None], _momenta(rng, mask.shape), np.nan)
    keys = jax.random.split(jax.random.key(5), 16)
    return types.SimpleNamespace(
        events=(jnp.asarray(momentum), jnp.asarray(mask), keys),
        momenta=_momenta,
        members=_members,
        settings=_settings,
        sample=jax.jit(batch(_sample)),
        cluster=jax.jit(jax.vmap(_cluster, in_axes=(0, 0, None))),
        replay=jax.jit(jax.vmap(value_and_grad, in_axes=(0, None, 0, 0))),
    )
