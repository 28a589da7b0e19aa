import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffhep.estimators import with_score
from diffhep.event import MergeHistory
from diffhep.jets import (
    HistoryScore,
    enumerate_histories,
    history_log_prob,
    sample_history,
)
from diffhep.testing import check_unbiased


EVENTS, SLOTS = 16, 20
SETTINGS = {"radius": 0.6, "power": -1.0, "sharpness": 2.0}


@pytest.fixture
def events(toys):
    """Momenta with NaN in dead slots, masks with holes, and keys."""
    return toys.events


def _assert_close(value, expected, rtol):
    value, expected = np.asarray(value), np.asarray(expected)
    np.testing.assert_allclose(value, expected, atol=rtol * np.abs(expected).max())


def _assert_score(score, momentum, settings, *, rtol=1e-10):
    # What dead slots hold is not NaN but zero: their gradient.
    _assert_close(score.momentum, momentum, rtol)
    for name in ("radius", "power", "sharpness"):
        _assert_close(getattr(score, name), settings[name], rtol)


@pytest.mark.parametrize("power", [-1.0, -0.5, 1.0])
@pytest.mark.parametrize("sharpness", [0.3, 20.0])
def test_score_in_closed_form_is_the_derivative_of_the_replay(
    toys, events, power, sharpness
):
    momentum, mask, keys = events
    settings = toys.settings(0.6, power, sharpness)
    history, log_prob, score = toys.sample(momentum, mask, keys, settings)
    value, (to_momentum, to_settings) = toys.replay(momentum, settings, history, mask)
    _assert_close(log_prob, value, 1e-13)
    assert (to_momentum[~mask] == 0).all()
    assert (score.momentum[~mask] == 0).all()
    assert np.abs(score.momentum).max() > 1
    _assert_score(score, to_momentum, to_settings)


def test_score_where_all_beams_tie(toys, events):
    # Cambridge/Aachen: the derivative to the power is undefined, all others are not.
    momentum, mask, keys = events
    settings = toys.settings(0.6, 0.0, 2.0)
    history, log_prob, score = toys.sample(momentum, mask, keys, settings)
    value, (to_momentum, to_settings) = toys.replay(momentum, settings, history, mask)
    _assert_close(log_prob, value, 1e-13)
    _assert_score(score, to_momentum, to_settings | {"power": score.power})
    assert np.isfinite(score.power).all()


def test_history_is_a_valid_one(toys, events):
    momentum, mask, keys = events
    history, _, _ = toys.sample(momentum, mask, keys, toys.settings(**SETTINGS))
    for keep, take, alive in zip(history.keep, history.take, mask, strict=True):
        living = set(np.flatnonzero(alive))
        for step, (kept, taken) in enumerate(zip(keep, take, strict=True)):
            if step >= alive.sum():
                assert (int(kept), int(taken)) == (0, -2)
                continue
            assert int(kept) in living
            assert int(taken) == -1 or int(kept) < int(taken)
            living.remove(int(kept) if taken == -1 else int(taken))
        assert not living


def test_empty_and_lonely_events(toys, events):
    momentum, mask, keys = events
    history, log_prob, score = toys.sample(
        momentum, mask, keys, toys.settings(**SETTINGS)
    )
    assert int(mask[1].sum()) == 0
    assert (history.take[1] == -2).all()
    assert (int(history.keep[2, 0]), int(history.take[2, 0])) == (5, -1)
    np.testing.assert_array_equal(log_prob[1:3], 0.0)
    for leaf in jax.tree.leaves(score):
        np.testing.assert_allclose(leaf[1:3], 0.0, atol=1e-14)
    assert int((history.take[3] > -2).sum()) == int(mask[3].sum()) == 3


def test_permutation(toys, events):
    # The probability of a history does not depend on how the slots are numbered.
    momentum, mask, keys = events
    settings = toys.settings(**SETTINGS)
    history, log_prob, score = toys.sample(momentum, mask, keys, settings)
    order = np.random.default_rng(2).permutation(SLOTS)
    inverse = jnp.asarray(np.argsort(order), jnp.int32)
    keep = inverse[history.keep]
    take = jnp.where(history.take < 0, history.take, inverse[history.take])
    moved = jax.vmap(MergeHistory)(keep, take)
    value, (to_momentum, to_settings) = toys.replay(
        momentum[:, order], settings, moved, mask[:, order]
    )
    _assert_close(value, log_prob, 1e-12)
    moved_score = types.SimpleNamespace(**vars(score))
    moved_score.momentum = score.momentum[:, order]
    _assert_score(moved_score, to_momentum, to_settings)


def test_nothing_depends_on_the_batch(toys, events):
    momentum, mask, keys = events
    settings = toys.settings(**SETTINGS)
    whole = toys.sample(momentum, mask, keys, settings)
    # More lanes than a block holds, nested, with an axis that only the keys have.
    many = jax.random.split(jax.random.key(8), (3, EVENTS))

    def one(momentum, mask, key):
        return sample_history(momentum, mask, **settings, key=key)

    inner = jax.vmap(jax.vmap(one), in_axes=(None, None, 0))
    nested = jax.jit(inner)(momentum, mask, many.at[1].set(keys))
    alone = jax.jit(one)(momentum[4], mask[4], keys[4])
    leaves = map(jax.tree.leaves, (whole, nested, alone))
    for batch, row, single in zip(*leaves, strict=True):
        if jnp.issubdtype(batch.dtype, jnp.integer):
            np.testing.assert_array_equal(batch, row[1])
            np.testing.assert_array_equal(batch[4], single)
        else:
            _assert_close(row[1], batch, 1e-12)
            _assert_close(single, batch[4], 1e-12)
    # Other keys, other histories.
    assert (np.asarray(nested[0].take[0]) != np.asarray(whole[0].take)).any()


def test_azimuth_wraps(toys, events):
    # Two constituents on either side of pi: turning the event changes nothing.
    mask = np.broadcast_to(np.arange(SLOTS) < 3, (EVENTS, SLOTS))
    momentum = np.zeros((EVENTS, SLOTS, 4))
    angle = np.linspace(0, 6, EVENTS)[:, None]
    phi = np.array([3.1, -3.1, 0.3]) + angle
    pt, y = np.array([20.0, 15.0, 12.0]), np.array([0.1, 0.2, -0.4])
    momentum[:, :3, 0], momentum[:, :3, 1] = pt * np.cos(phi), pt * np.sin(phi)
    momentum[:, :3, 2], momentum[:, :3, 3] = pt * np.sinh(y), 1.01 * pt * np.cosh(y)
    keys = jnp.broadcast_to(events[2][0], (EVENTS,))
    history, log_prob, score = toys.sample(
        jnp.asarray(momentum), jnp.asarray(mask), keys, toys.settings(0.6, -1.0, 0.2)
    )
    assert (int(history.keep[0, 0]), int(history.take[0, 0])) == (0, 1)
    assert float(log_prob[0]) < -1e-3
    np.testing.assert_array_equal(history.take, np.tile(history.take[:1], (EVENTS, 1)))
    np.testing.assert_allclose(log_prob, np.full(EVENTS, log_prob[0]), rtol=1e-10)
    np.testing.assert_allclose(
        score.radius, np.full(EVENTS, score.radius[0]), rtol=1e-8
    )


def test_constituents_in_one_direction_stay_finite(toys, events):
    momentum, mask, keys = events
    momentum = momentum.at[0, 2].set(2 * momentum[0, 1])
    history, log_prob, score = toys.sample(
        momentum, mask, keys, toys.settings(**SETTINGS)
    )
    assert (int(history.keep[0, 0]), int(history.take[0, 0])) == (1, 2)
    for leaf in (log_prob, *jax.tree.leaves(score)):
        assert np.isfinite(leaf).all()


def test_with_score_goes_through_vmap_grad_and_checkpoint(toys, events):
    momentum, mask, keys = events
    settings = toys.settings(**SETTINGS)
    names = ("radius", "power", "sharpness")

    def one(momentum, mask, key, settings):
        momentum = jnp.where(mask[:, None], momentum, 0.0)
        _, value, score = sample_history(momentum, mask, **settings, key=key)
        inputs = HistoryScore(momentum, *(settings[name] for name in names))
        return with_score(value, inputs, score)

    def total(momentum, settings):
        logs = jax.vmap(jax.checkpoint(one), in_axes=(0, 0, 0, None))(
            momentum, mask, keys, settings
        )
        return jnp.sum(logs)

    to_momentum, to_settings = jax.jit(jax.grad(total, argnums=(0, 1)))(
        momentum, settings
    )
    _, _, score = toys.sample(momentum, mask, keys, settings)
    _assert_close(to_momentum, score.momentum, 1e-14)
    for name in names:
        _assert_close(to_settings[name], jnp.sum(getattr(score, name)), 1e-12)


def test_single_precision(toys, events):
    momentum, mask, keys = events
    with jax.enable_x64(False):
        momentum = jnp.asarray(np.asarray(momentum, np.float32))
        settings = {k: jnp.asarray(v, jnp.float32) for k, v in SETTINGS.items()}
        history, log_prob, score = toys.sample(momentum, mask, keys, settings)
        value, (to_momentum, to_settings) = toys.replay(
            momentum, settings, history, mask
        )
    assert {x.dtype for x in jax.tree.leaves((log_prob, score))} == {
        jnp.dtype(jnp.float32)
    }
    # The score of a close pair is 1 / angle, of which rounding leaves few digits.
    _assert_close(log_prob, value, 1e-4)
    _assert_score(score, to_momentum, to_settings, rtol=1e-3)


@pytest.fixture(scope="module", params=[3, 4])
def small(request, toys):
    number = request.param
    rng = np.random.default_rng(number)
    momentum = jnp.asarray(toys.momenta(rng, (number,), num_axes=1))
    return momentum, jnp.ones(number, bool), enumerate_histories(number)


@jax.jit
def _all_log_probs(momentum, settings, mask, histories):
    return jax.vmap(
        lambda history: history_log_prob(history, momentum, mask, **settings)
    )(histories)


def test_number_of_histories():
    lengths = [enumerate_histories(n).keep.shape for n in (1, 2, 3, 4)]
    assert lengths == [(1, 1), (3, 2), (18, 3), (180, 4)]
    with pytest.raises(ValueError, match="1 to 6"):
        enumerate_histories(7)


@pytest.mark.parametrize("power", [-1.0, 0.0, 1.0])
def test_probabilities_add_up_to_one(toys, small, power):
    momentum, mask, histories = small
    settings = toys.settings(0.5, power, 0.4)
    log_prob = _all_log_probs(momentum, settings, mask, histories)
    np.testing.assert_allclose(np.exp(log_prob).sum(), 1.0, rtol=1e-12)


def _observable(history, momentum):
    # Depends on the outcome and on the momenta: the sum of squared jet momenta.
    number = jnp.arange(momentum.shape[0])

    def step(holder, merge):
        keep, take = merge
        return jnp.where(holder == take, keep, holder), None

    start = number.astype(history.keep.dtype)
    holder, _ = jax.lax.scan(step, start, (history.keep, history.take))
    jets = jnp.where((holder[:, None] == holder[None])[:, :, None], momentum[None], 0.0)
    return jnp.sum(jnp.sum(jets, axis=1)[:, :2] ** 2) / 100


def _exact(momentum, settings, mask, histories):
    log_prob = _all_log_probs(momentum, settings, mask, histories)
    values = jax.vmap(_observable, in_axes=(0, None))(histories, momentum)
    return jnp.sum(jnp.exp(log_prob) * values)


_exact_slopes = jax.jit(jax.value_and_grad(_exact, argnums=(0, 1)))


def _shift(momentum, settings, name, step):
    if name == "momentum":
        return momentum.at[1, 0].add(step), settings
    return momentum, settings | {name: settings[name] + step}


@pytest.mark.parametrize("name", ["radius", "power", "sharpness", "momentum"])
def test_exact_gradient_is_the_slope(toys, small, name):
    momentum, mask, histories = small
    settings = toys.settings(0.5, -1.0, 0.4)
    _, (to_momentum, to_settings) = _exact_slopes(momentum, settings, mask, histories)
    found = to_momentum[1, 0] if name == "momentum" else to_settings[name]
    # Fourth order: truncation and rounding are below 1e-10. The step is small because
    # the slope itself jumps where two distances swap.
    step = 1e-4
    up, down, up2, down2 = (
        _exact_slopes(*_shift(momentum, settings, name, k * step), mask, histories)[0]
        for k in (1, -1, 2, -2)
    )
    slope = (8 * (up - down) - (up2 - down2)) / (12 * step)
    np.testing.assert_allclose(found, slope, rtol=1e-8)


SAMPLES = 20_000


@pytest.fixture(scope="module")
def drawn(toys):
    """Many histories of one event of four, with their contributions to the slopes."""
    rng = np.random.default_rng(4)
    momentum = jnp.asarray(toys.momenta(rng, (4,), num_axes=1))
    mask = jnp.ones(4, bool)
    settings = toys.settings(0.5, -1.0, 0.4)

    @jax.jit
    @jax.vmap
    def one(key):
        history, _, score = sample_history(momentum, mask, **settings, key=key)
        value, path = jax.value_and_grad(_observable, argnums=1)(history, momentum)
        to_momentum = jnp.ravel(path + value * score.momentum)
        to_settings = jnp.stack([score.radius, score.power, score.sharpness])
        return history, value, jnp.concatenate([to_momentum, value * to_settings])

    keys = jax.random.split(jax.random.key(3), SAMPLES)
    return (momentum, settings, mask, enumerate_histories(4)), one(keys)


def test_sampled_score_is_unbiased(drawn):
    arguments, (_, values, gradients) = drawn
    exact, (to_momentum, to_settings) = _exact_slopes(*arguments)
    names = ("radius", "power", "sharpness")
    wanted = np.array([to_settings[name] for name in names])
    check_unbiased(values, exact)
    check_unbiased(gradients, np.concatenate([np.ravel(to_momentum), wanted]))
    # There is something to find.
    assert abs(wanted[0]) > 20 * np.std(gradients[:, -3]) / SAMPLES**0.5


def test_histories_come_with_their_probabilities(drawn):
    (momentum, settings, mask, histories), (found, _, _) = drawn
    names = np.stack([histories.keep, histories.take], axis=-1)
    table = {row.tobytes(): i for i, row in enumerate(names)}
    rows = np.stack([found.keep, found.take], axis=-1)
    counts = np.bincount([table[row.tobytes()] for row in rows], minlength=len(table))
    log_prob = _all_log_probs(momentum, settings, mask, histories)
    expected = SAMPLES * np.exp(np.asarray(log_prob))
    often = expected > 5
    chi2 = np.sum((counts - expected)[often] ** 2 / expected[often])
    assert often.sum() > 10
    assert abs(chi2 - often.sum()) < 5 * np.sqrt(2 * often.sum())


def test_common_random_numbers(toys, events):
    # A small change of the radius changes few histories.
    momentum, mask, keys = events
    moved = [
        toys.sample(momentum, mask, keys, toys.settings(radius, -1.0, 20.0))[0]
        for radius in (0.6, 0.6001)
    ]
    same = (moved[0].take == moved[1].take).all(axis=1)
    assert same.mean() > 0.8


def test_limit_of_large_sharpness(toys, events):
    momentum, mask, keys = events
    drawn, log_prob, _ = toys.sample(
        momentum, mask, keys, toys.settings(0.6, -1.0, 1e9)
    )
    certain = toys.cluster(momentum, mask, toys.settings(0.6, -1.0))
    np.testing.assert_array_equal(drawn.keep, certain.keep)
    np.testing.assert_array_equal(drawn.take, certain.take)
    assert np.abs(log_prob).max() < 1e-6
