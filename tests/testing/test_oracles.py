import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffhep.event import Event, Jets, MergeHistory, Vertices
from diffhep.generator import toy_events
from diffhep.numerics import sanitise
from diffhep.testing import (
    check_gradient,
    check_padding_inert,
    check_unbiased,
    live,
    permute,
    poison,
)


def _one(capacity=8):
    events = toy_events(2, capacity=capacity, key=jax.random.key(0))
    return jax.tree.map(lambda x: x[0], events)


def test_check_gradient_passes_on_mixed_scales():
    args = ({"mm": jnp.array([1e3, 0.0]), "per GeV": jnp.array(1e-4)}, "static", 3)

    def function(tree, name, power):
        assert name == "static"
        return {
            "a": jnp.sin(tree["mm"] / 500) ** power,
            "b": jnp.exp(tree["per GeV"] * 1e4) * tree["mm"][1],
        }

    assert check_gradient(function, args) < 1e-8


@pytest.mark.parametrize("mode", ["Forward", "Reverse"])
def test_check_gradient_fails(mode):
    def broken(x):
        return x * jax.lax.stop_gradient(x)

    flags = {"forward": mode == "Forward", "reverse": mode == "Reverse"}
    with pytest.raises(AssertionError, match=f"{mode} mode"):
        check_gradient(broken, (jnp.array([1.0, 2.0]),), **flags)


def test_check_gradient_fails_on_nan():
    with pytest.raises(AssertionError, match="Reverse mode is nan"):
        check_gradient(
            lambda x: jnp.where(x > 2, jnp.sqrt(x - 2), 0.0), (jnp.array([1.0]),)
        )


def test_check_gradient_moves_each_argument_on_its_own():
    def broken(large, small):
        return 1e9 * large + jax.lax.stop_gradient(small) ** 2

    args = (jnp.array([1.0, 2.0]), jnp.array([3.0, 4.0]))
    check_gradient(broken, args)
    with pytest.raises(AssertionError, match="Forward mode"):
        check_gradient(broken, args, separately=True)


def test_check_gradient_of_a_higher_order():
    args = (jnp.array([0.3]),)
    # A large step: 0.03 periods.
    options = {"eps": 0.5, "rtol": 1e-6}
    with pytest.raises(AssertionError, match="Forward mode"):
        check_gradient(jnp.sin, args, **options)
    assert check_gradient(jnp.sin, args, order=8, **options) < 1e-6
    with pytest.raises(ValueError, match="take one of"):
        check_gradient(jnp.sin, args, order=5)


def test_check_gradient_allows_rounding_as_the_condition_says():
    def rough(x):
        # Rounds to 1e-9.
        return x + jax.lax.stop_gradient(jnp.round(x * 1e9) / 1e9 - x)

    args = (jnp.array([0.3]),)
    with pytest.raises(AssertionError):
        check_gradient(rough, args)
    check_gradient(rough, args, condition=1e6)


def test_check_gradient_wants_float64():
    with pytest.raises(ValueError, match="float32"):
        check_gradient(jnp.sin, (jnp.ones(2, jnp.float32),))
    with pytest.raises(ValueError, match="no floating-point array"):
        check_gradient(jnp.sin, (jnp.arange(2),))


def test_check_unbiased():
    estimates = np.random.default_rng(0).normal(2.0, 0.5, size=(1000, 3))
    result = check_unbiased(estimates, np.full(3, 2.0))
    np.testing.assert_allclose(result.standard_error, 0.5 / np.sqrt(1000), rtol=0.1)
    assert result.pull < 4
    with pytest.raises(AssertionError, match="standard errors from the exact 2"):
        check_unbiased(estimates, np.full(3, 2.1))
    with pytest.raises(AssertionError, match="not finite"):
        check_unbiased(np.array([1.0, np.nan]), 1.0)
    with pytest.raises(ValueError, match="leading axis"):
        check_unbiased(np.array([1.0]), 1.0)


def test_check_unbiased_without_variance():
    # Exact estimates are right to rounding, and one that is off is caught.
    check_unbiased(np.array([0.3, 0.1 + 0.2]), 0.3)
    with pytest.raises(AssertionError, match="standard errors"):
        check_unbiased(np.array([0.3, 0.3]), 0.3001)


def test_poison_reaches_dead_slots_only():
    event = _one()
    dead = ~np.asarray(event.particles.mask)
    assert dead.any()
    bad = poison(event)
    assert np.isnan(bad.particles.momentum[dead]).all()
    assert (np.asarray(bad.particles.pdg_id)[dead] > 1e6).all()
    np.testing.assert_array_equal(
        live(bad).particles.momentum, live(event).particles.momentum
    )
    np.testing.assert_array_equal(bad.particles.mask, event.particles.mask)


def test_check_padding_inert():
    event = _one()

    def good(event):
        particles = sanitise(event.particles, event.particles.mask)
        return jnp.sum(particles.momentum) ** 2

    def late(event):
        roots = jnp.sqrt(event.particles.momentum**2)
        return jnp.sum(jnp.where(event.particles.mask[:, None], roots, 0.0))

    check_padding_inert(good, event)
    with pytest.raises(AssertionError, match="changes the value"):
        check_padding_inert(lambda e: jnp.sum(e.particles.momentum), event)
    with pytest.raises(AssertionError, match="gradient"):
        check_padding_inert(late, event)
    with pytest.raises(AssertionError, match="has a gradient"):
        check_padding_inert(
            lambda e: jnp.sum(e.particles.momentum), event, poison_value=0.0
        )


def test_permute_moves_cross_references():
    slots, steps = 4, 3
    order = jnp.array([2, 0, 3, 1])
    jets = Jets(
        momentum=jnp.ones((2, 4)),
        membership=jnp.arange(8).reshape(2, slots) % 3 == 0,
        weight=jnp.ones(2),
        mask=jnp.ones(2, bool),
    )
    history = MergeHistory(keep=jnp.array([0, 2, 1]), take=jnp.array([3, -1, -2]))
    vertex = Vertices(
        position=jnp.zeros((1, 3)),
        covariance=jnp.ones((1, 3, 3)),
        track_weight=jnp.arange(4.0)[None, :],
        chi2=jnp.ones(1),
        ndf=jnp.ones(1),
        mask=jnp.ones(1, bool),
    )
    event = Event(jets=jets, history=history, primary_vertex=vertex)
    moved = permute(event, order)
    np.testing.assert_array_equal(moved.jets.membership, jets.membership[:, order])
    np.testing.assert_array_equal(moved.primary_vertex.track_weight[0], [2, 0, 3, 1])
    # Old slot s now sits where `order` names it.
    np.testing.assert_array_equal(order[moved.history.keep], history.keep)
    np.testing.assert_array_equal(moved.history.take, [2, -1, -2])
    assert moved.history.keep.shape == (steps,)
    assert dataclasses.is_dataclass(moved)
