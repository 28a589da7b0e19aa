"""Loops of many inputs in lanes, and branches that few lanes of a batch take."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffhep.numerics import cond_few, map_loop


def _begin(length):
    # Index of the step, and what grows with the steps.
    return jnp.zeros_like(length), jnp.ones((2,)) * length


def _proceed(state, length):
    return state[0] < length


def _advance(state, length):
    index, total = state
    return index + 1, total + jnp.sqrt(index) / length


def _alone(length):
    index, total = _begin(jnp.asarray(length))
    for _ in range(int(length)):
        index, total = _advance((index, total), length)
    return total


def _run(lengths, lanes):
    loop = jax.jit(lambda x: map_loop(_begin, _proceed, _advance, x, lanes=lanes))
    return loop(jnp.asarray(lengths, float))


@pytest.mark.parametrize("lanes", [1, 3, 8, 100])
@pytest.mark.parametrize("number", [1, 8, 29])
def test_each_loop_runs_to_its_end(number, lanes):
    lengths = np.random.default_rng(number).integers(0, 12, number)
    found = _run(lengths, lanes)
    np.testing.assert_array_equal(found.states[0], lengths)
    wanted = np.stack([_alone(x) for x in lengths.tolist()])
    np.testing.assert_allclose(found.states[1], wanted, rtol=1e-14)


def test_no_input():
    found = _run(np.zeros(0, int), 4)
    assert found.states[1].shape == (0, 2)
    assert found.num_iterations == 0


def test_no_lane():
    with pytest.raises(ValueError, match="There are 0 lanes"):
        _run([1], 0)


def test_nobody_waits_for_a_long_loop():
    lengths = np.full(200, 5)
    lengths[3] = 200
    found = _run(lengths, 8)
    np.testing.assert_array_equal(found.states[0], lengths)
    # The long one has a lane of its own, and the others share seven.
    assert found.num_iterations == 200
    lengths[3] = 5
    assert _run(lengths, 8).num_iterations == 200 * 5 // 8
    # At worst the longest begins last.
    lengths[-1] = 60
    assert _run(lengths, 8).num_iterations <= 200 * 5 // 8 + 60


def test_steps_taken_in_vain_are_few():
    calls = []
    lengths = np.random.default_rng(0).geometric(0.15, 300)

    def advance(state, length):
        jax.debug.callback(lambda index: calls.append(int(index)), state[0])
        return _advance(state, length)

    found = map_loop(_begin, _proceed, advance, jnp.asarray(lengths, float), lanes=10)
    jax.effects_barrier()
    # The body runs once for each lane in each iteration.
    assert len(calls) == 10 * found.num_iterations
    assert found.num_iterations <= lengths.sum() / 10 + lengths.max()


def test_a_broken_loop_spoils_no_other():
    # One is NaN at once, another never ends by itself; idle lanes go on with them.
    starts = jnp.asarray([1.0, jnp.nan, 3.0, jnp.inf, 5.0, 0.5, 2.0])

    def proceed(state, _):
        return (state[0] < 50) & ~(state[1] < 1e-3)

    def advance(state, start):
        return state[0] + 1, state[1] / 2 + 0 * start / start

    found = jax.jit(lambda x: map_loop(lambda s: (0, s), proceed, advance, x, lanes=3))(
        starts
    )
    good = np.isfinite(starts)
    steps = np.ceil(np.log2(np.asarray(starts)[good] / 1e-3))
    np.testing.assert_array_equal(found.states[0][good], steps)
    assert np.all(np.isfinite(found.states[1][good]))
    np.testing.assert_array_equal(found.states[0][~good], 50)


def test_keys_are_inputs():
    keys = jax.random.split(jax.random.key(0), 7)

    def advance(state, key):
        return state[0] + 1, state[1] + jax.random.uniform(key)

    begin = lambda key: (0, jax.random.uniform(key))  # noqa: E731
    found = map_loop(begin, lambda s, _: s[1] < 3, advance, keys, lanes=3)
    assert np.all(found.states[1] >= 3)


@pytest.mark.parametrize("size", [1, 5, 40])
def test_branch_of_few_lanes(size):
    taken = []

    def rare(x, scale):
        jax.debug.callback(lambda x: taken.append(float(x)), x)
        return jnp.sqrt(x) * scale

    def choose(x, scale):
        return cond_few(x > 0.5, rare, lambda x, scale: -x * scale, x, scale)

    x = jax.random.uniform(jax.random.key(size), (size,))
    scale = jnp.asarray(3.0)
    wanted = np.where(x > 0.5, np.sqrt(x) * 3, -3 * x)
    alone = jnp.stack([choose(y, scale) for y in x])
    np.testing.assert_allclose(alone, wanted, rtol=1e-14)
    jax.effects_barrier()
    assert len(taken) == np.sum(x > 0.5)
    taken.clear()
    together = jax.jit(jax.vmap(choose, in_axes=(0, None)))(x, scale)
    np.testing.assert_allclose(together, wanted, rtol=1e-14)
    jax.effects_barrier()
    # In whole groups.
    group = max(size // 8, 1)
    assert len(taken) == -(-np.sum(x > 0.5) // group) * group
