import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffhep.jets import (
    CompiledEngine,
    FastjetEngine,
    JaxEngine,
    RadiusInPt,
    RadiusInRapidity,
    cluster,
)


HOST = [CompiledEngine(), CompiledEngine(num_threads=1), FastjetEngine()]


def _names(engine):
    return type(engine).__name__


@pytest.mark.parametrize("engine", HOST, ids=_names)
def test_few_particles_and_dead_slots(toys, engine):
    # Among the events are such of no, one and three particles; dead slots hold NaN.
    momentum, mask, _ = toys.events
    settings = toys.settings(0.6, -1.0)
    expected = toys.cluster(momentum, mask, settings)
    run = jax.vmap(lambda p, m: cluster(p, m, **settings, engine=engine))
    jax.tree.map(np.testing.assert_array_equal, run(momentum, mask), expected)
    assert np.all(np.asarray(run(momentum, mask).take)[1] == -2)


def test_any_nesting_of_vmap(toys):
    momentum, mask, _ = toys.events
    radii = jnp.asarray([0.4, 1.0])

    def histories(engine):
        def one(p, m, radius):
            return cluster(p, m, radius=radius, power=jnp.asarray(-1.0), engine=engine)

        over_radii = jax.vmap(one, (None, None, 0))
        return jax.jit(jax.vmap(over_radii, (0, 0, None)))(momentum, mask, radii)

    expected = histories(JaxEngine())
    assert expected.keep.shape == (16, 2, 20)
    found = histories(CompiledEngine())
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    single = cluster(
        momentum[0],
        mask[0],
        radius=radii[1],
        power=jnp.asarray(-1.0),
        engine=CompiledEngine(),
    )
    np.testing.assert_array_equal(single.keep, expected.keep[0, 1])


def test_the_order_of_particles_does_not_matter(toys):
    momentum, mask, _ = toys.events
    settings = toys.settings(0.6, -1.0)
    order = np.random.default_rng(3).permutation(20)

    def jets(momentum, mask):
        history = jax.vmap(
            lambda p, m: cluster(p, m, **settings, engine=CompiledEngine())
        )(momentum, mask)
        pairs = zip(np.asarray(history.keep), np.asarray(history.take), strict=True)
        return [toys.members(keep, take) for keep, take in pairs]

    for one, other in zip(
        jets(momentum, mask), jets(momentum[:, order], mask[:, order]), strict=True
    ):
        assert one == {frozenset(int(order[i]) for i in jet) for jet in other}


def test_single_precision_is_computed_in_double(toys):
    momentum, mask, _ = toys.events
    settings = toys.settings(0.5, -1.0)
    run = jax.vmap(lambda p, m: cluster(p, m, **settings, engine=CompiledEngine()))
    with jax.enable_x64(False):
        rounded = momentum.astype(jnp.float32)
        found = jax.vmap(
            lambda p, m: cluster(
                p,
                m,
                radius=jnp.float32(0.5),
                power=jnp.float32(-1.0),
                engine=CompiledEngine(),
            )
        )(rounded, mask)
    expected = run(rounded.astype(float), mask)
    assert found.keep.dtype == jnp.int32
    np.testing.assert_array_equal(found.take, expected.take)


def test_a_missing_package_is_named(monkeypatch):
    # This is how Python marks a package that cannot be imported.
    monkeypatch.setitem(sys.modules, "numba", None)
    with pytest.raises(ImportError, match=r"diffhep\[jets\]"):
        CompiledEngine()


def test_no_threads_is_an_error():
    with pytest.raises(ValueError, match="num_threads"):
        CompiledEngine(num_threads=0)


@pytest.mark.parametrize("power", [-1.0, 0.0, 1.0])
def test_particles_along_the_beam_and_along_each_other(toys, power):
    momentum, mask, _ = toys.events
    full = mask.sum(axis=1) >= 15
    momentum, mask = np.array(momentum[full]), np.array(mask[full])
    for event, alive in enumerate(mask):
        slots = np.flatnonzero(alive)
        momentum[event, slots[1]] = 2 * momentum[event, slots[0]]
        # Massless in both directions, massive, and soft as a ghost.
        momentum[event, slots[2]] = 0.0, 0.0, 5.0, 5.0
        momentum[event, slots[3]] = 0.0, 0.0, -7.0, 7.0
        momentum[event, slots[4]] = 0.0, 0.0, 3.0, 5.0
        momentum[event, slots[5]] = 1e-9 * momentum[event, slots[6]]
    settings = toys.settings(0.6, power)
    found = []
    for engine in (JaxEngine(), CompiledEngine(), FastjetEngine()):
        history = jax.vmap(lambda p, m, e=engine: cluster(p, m, **settings, engine=e))(
            jnp.asarray(momentum), jnp.asarray(mask)
        )
        pairs = zip(np.asarray(history.keep), np.asarray(history.take), strict=True)
        found.append([toys.members(keep, take) for keep, take in pairs])
    assert found[0] == found[1] == found[2]


def test_gradients_along_the_beam_are_finite(toys):
    momentum, mask, keys = toys.events
    momentum = momentum.at[0, 0].set(jnp.asarray([0.0, 0.0, 5.0, 5.0]))
    settings = toys.settings(0.6, -1.0, 2.0)
    history, log_prob, score = toys.sample(momentum, mask, keys, settings)
    value, slopes = toys.replay(momentum, settings, history, mask)
    for leaf in jax.tree.leaves((log_prob, score, value, slopes)):
        assert np.isfinite(np.asarray(leaf)[0]).all()
    np.testing.assert_allclose(log_prob[0], value[0], rtol=1e-12)


def test_radius_as_a_function(toys):
    # Constant, it is a number; and of two halves of the rapidity each has its own.
    momentum, mask, _ = toys.events
    power = jnp.asarray(-1.0)

    def histories(radius):
        return jax.vmap(lambda p, m: cluster(p, m, radius=radius, power=power))(
            momentum, mask
        )

    flat = RadiusInPt(jnp.full(3, 0.6), (1.0, 10.0, 100.0))
    expected = histories(jnp.asarray(0.6))
    jax.tree.map(np.testing.assert_array_equal, histories(flat), expected)
    falling = RadiusInPt(jnp.asarray([1.0, 0.2]), (5.0, 50.0))
    assert (np.asarray(histories(falling).take) != np.asarray(expected.take)).any()
    with pytest.raises(ValueError, match="use `JaxEngine`"):
        cluster(momentum[0], mask[0], radius=flat, power=power, engine=CompiledEngine())
    with pytest.raises(ValueError, match="increase"):
        RadiusInPt(jnp.ones(2), (2.0, 1.0))
    with pytest.raises(ValueError, match="one value for each"):
        RadiusInRapidity(jnp.ones(3), (0.0, 1.0))
