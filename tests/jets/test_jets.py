import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffhep.estimators import Gradient, Recorded
from diffhep.event import Constituents, Event, Status, Towers, Tracks
from diffhep.jets import (
    ClusterJets,
    CollectConstituents,
    MeasureMissingMomentum,
    jets_from_history,
    track_momentum,
)
from diffhep.numerics import safe_norm
from diffhep.pipeline import Pipeline, Replicate
from diffhep.testing import check_gradient


KEY = jax.random.key(6)
SLOTS = 20


def _stage(**changes):
    values = {"radius": 0.6, "power": -1.0, "sharpness": 5.0}
    arrays = {k: jnp.asarray(changes.pop(k, v)) for k, v in values.items()}
    return ClusterJets(**arrays, num_jets=changes.pop("num_jets", 3), **changes)


@pytest.fixture(scope="module")
def events(toys):
    momentum, mask, _ = toys.events

    def one(momentum, mask, index):
        parts = Constituents(momentum, charged=mask, mask=mask)
        return Event(constituents=parts, index=index)

    return jax.vmap(one)(momentum, mask, jnp.arange(mask.shape[0], dtype=jnp.int32))


@pytest.fixture(scope="module")
def clustered(toys):
    """The history, momenta and mask of one event."""
    momentum, mask, _ = toys.events
    history = toys.cluster(momentum, mask, toys.settings(0.6, -1.0))
    return jax.tree.map(lambda x: x[4], (history, momentum, mask))


def _jets(history, momentum, mask, **changes):
    cuts = {"num_jets": 3, "threshold": 15.0, "width": 10.0} | changes
    return jets_from_history(history, momentum, mask, **cuts)


def test_jets_of_a_known_history(clustered):
    history, momentum, mask = clustered
    everything, _ = _jets(history, momentum, mask, num_jets=SLOTS)
    pt = np.hypot(*everything.momentum[:, :2].T)
    # Each constituent is in one jet, and the jets add up to the event.
    np.testing.assert_array_equal(everything.membership.sum(axis=0), mask)
    total = np.asarray(momentum)[np.asarray(mask)].sum(axis=0)
    np.testing.assert_allclose(
        everything.momentum.sum(axis=0), total, rtol=1e-12, atol=1e-12
    )
    number = int(everything.mask.sum())
    assert 1 < number < SLOTS
    assert (np.diff(pt[:number]) < 0).all()
    assert not everything.momentum[number:].any()
    # The weight: nothing below, one above.
    weight = np.asarray(everything.weight)
    assert ((weight > 0) == (pt > 15)).all()
    assert ((weight == 1) == (pt >= 25)).all()
    assert (weight > 0).sum() > 1
    # With fewer slots the hardest remain; with more, the rest is empty.
    few, overflow = _jets(history, momentum, mask, num_jets=1)
    for short, long in zip(*map(jax.tree.leaves, (few, everything)), strict=True):
        np.testing.assert_array_equal(short, long[:1])
    assert bool(overflow)
    many, overflow = _jets(history, momentum, mask, num_jets=SLOTS + 4)
    assert many.mask.shape == (SLOTS + 4,)
    assert int(many.mask.sum()) == number
    assert not overflow
    # Jets without weight do not count.
    assert not _jets(history, momentum, mask, num_jets=1, threshold=1e4)[1]


def test_jets_are_ordered_in_double_precision(toys):
    # Differences that single precision does not see.
    pt = 20 * (1 + np.array([0.0, 1e-10, 2e-10, -1e-10]))
    phi = np.array([0.1, 1.7, 3.3, 4.9])
    momentum = np.stack([pt * np.cos(phi), pt * np.sin(phi), 0 * pt, pt], axis=1)
    momentum, mask = jnp.asarray(momentum), jnp.ones(4, bool)
    history = toys.cluster(momentum[None], mask[None], toys.settings(0.6, -1.0))
    jets, _ = _jets(jax.tree.map(lambda x: x[0], history), momentum, mask, num_jets=4)
    np.testing.assert_allclose(jets.momentum, momentum[np.array([2, 1, 0, 3])])


def test_jets_that_single_precision_tells_apart_are_the_hardest(toys):
    pt = 20 * (1 + np.array([0.0, 1e-6, 2e-6, -1e-6]))
    phi = np.array([0.1, 1.7, 3.3, 4.9])
    momentum = np.stack([pt * np.cos(phi), pt * np.sin(phi), 0 * pt, pt], axis=1)
    momentum, mask = jnp.asarray(momentum), jnp.ones(4, bool)
    history = toys.cluster(momentum[None], mask[None], toys.settings(0.6, -1.0))
    jets, _ = _jets(jax.tree.map(lambda x: x[0], history), momentum, mask, num_jets=2)
    np.testing.assert_allclose(jets.momentum, momentum[np.array([2, 1])])


def test_jets_are_pathwise(clustered):
    history, momentum, mask = clustered
    momentum = jnp.where(mask[:, None], momentum, 0.0)

    def value(momentum):
        jets, _ = _jets(history, momentum, mask)
        return jnp.sum(jets.weight * jnp.log1p(jnp.abs(jets.momentum[:, 3])))

    check_gradient(value, (momentum,))


def test_track_momentum_is_that_of_a_pion():
    p = track_momentum(jnp.asarray([0.1, 5.0, 0.4, 1.1, -1 / 3]))
    np.testing.assert_allclose(jnp.linalg.norm(p[:3]), 3.0, rtol=1e-14)
    np.testing.assert_allclose(p[3] ** 2 - 9.0, 0.13957**2, rtol=1e-12)
    np.testing.assert_allclose(jnp.arctan2(p[1], p[0]), 0.4, rtol=1e-14)
    np.testing.assert_allclose(p[2] / 3.0, jnp.cos(1.1), rtol=1e-14)


@pytest.fixture(scope="module")
def measured():
    """Two events, each with two tracks, two towers and two empty slots."""
    rng = np.random.default_rng(0)
    slot = jnp.arange(6, dtype=jnp.int32)

    def one(phi, theta, momentum, flight, index):
        charge = jnp.where(slot % 2 == 0, 1.0, -1.0)
        parameters = jnp.stack([phi, theta, phi, theta, charge / momentum], axis=1)
        energy = jnp.linalg.norm(flight, axis=1, keepdims=True)
        is_tower = (slot == 2) | (slot == 4)
        return Event(
            tracks=Tracks(
                parameters,
                covariance=jnp.ones((6, 5, 5)),
                chi2=jnp.ones(6),
                ndf=jnp.ones(6),
                mask=slot < 2,
            ),
            towers=Towers(jnp.concatenate([flight, energy], axis=1), is_tower),
            index=index,
        )

    return jax.vmap(one)(
        jnp.asarray(rng.uniform(-3, 3, (2, 6))),
        jnp.asarray(rng.uniform(0.5, 2.5, (2, 6))),
        jnp.asarray(rng.uniform(1, 20, (2, 6))),
        jnp.asarray(rng.normal(size=(2, 6, 3)) * 5),
        jnp.arange(2, dtype=jnp.int32),
    )


def test_constituents_and_missing_momentum(measured):
    stages = Pipeline(
        [CollectConstituents(), MeasureMissingMomentum()], inputs=("tracks", "towers")
    )
    event = stages(jax.tree.map(lambda x: x[0], measured), key=KEY)
    parts = event.constituents
    np.testing.assert_array_equal(parts.mask, [1, 1, 1, 0, 1, 0])
    np.testing.assert_array_equal(parts.charged, [1, 1, 0, 0, 0, 0])
    np.testing.assert_array_equal(parts.momentum[2], measured.towers.momentum[0, 2])
    wanted = track_momentum(measured.tracks.parameters[0, 1])
    np.testing.assert_allclose(parts.momentum[1], wanted, rtol=1e-15)
    balance = event.missing_momentum + parts.momentum[parts.mask, :2].sum(axis=0)
    np.testing.assert_allclose(balance, 0.0, atol=1e-12)


def test_stages_say_what_they_lack():
    for stage in (CollectConstituents(), MeasureMissingMomentum(), _stage()):
        with pytest.raises(ValueError, match="The event lacks"):
            stage(Event(), key=KEY)
    with pytest.raises(ValueError, match="must be positive"):
        _stage(num_jets=0)


@eqx.filter_jit
def _weight_and_slope(event, stage, radius):
    def weight(radius):
        moved = eqx.tree_at(lambda s: s.radius, stage, radius)
        out = moved(event, key=KEY)
        return out.log_weight, out

    (_, out), slope = jax.value_and_grad(weight, has_aux=True)(radius)
    return out, slope


def test_estimators(events):
    event = jax.tree.map(lambda x: x[0], events)
    stage = _stage(num_jets=1)
    drawn, slope = _weight_and_slope(event, stage, jnp.asarray(0.6))
    assert float(drawn.log_weight) == 0.0
    assert abs(float(slope)) > 0
    assert stage.gradient is Gradient.UNBIASED
    assert int(drawn.status) == int(Status.JET_OVERFLOW)
    # Held fixed: the history is the one recorded, for any radius.
    fixed = _stage(estimator=Recorded())
    again, slope = _weight_and_slope(drawn, fixed, jnp.asarray(0.1))
    assert float(slope) == 0.0
    assert fixed.gradient is Gradient.BIASED
    np.testing.assert_array_equal(again.history.take, drawn.history.take)
    np.testing.assert_array_equal(again.jets.momentum[:1], drawn.jets.momentum)
    with pytest.raises(ValueError, match="needs the outcome"):
        fixed(event, key=KEY)


def test_leave_one_out_reduces_the_variance(events):
    replicas, repeats = 8, 100
    event = jax.tree.map(lambda x: x[4], events)
    alone = Pipeline([_stage()], inputs=("constituents",))
    together = Replicate.around([_stage()], num=replicas)

    def slopes(stage, keys):
        def value(radius, key):
            # The scalar sum of jet momenta: large, and little changed by clustering.
            out = _with_radius(stage, radius)(event, key=key)
            pt = safe_norm(out.jets.momentum[..., :2])
            total = jnp.sum(out.jets.weight * pt, axis=-1)
            return jnp.sum(jnp.exp(out.log_weight) * total)

        return jax.jit(jax.vmap(jax.grad(value), in_axes=(None, 0)))(
            jnp.asarray(0.6), keys
        )

    keys = jax.random.split(KEY, (repeats, replicas))
    plain = np.reshape(slopes(alone, keys.reshape(-1)), keys.shape).mean(axis=1)
    centred = np.asarray(slopes(together, keys[:, 0]))
    assert 3 * centred.std() < plain.std()
    error = np.hypot(centred.std(), plain.std()) / repeats**0.5
    assert abs(centred.mean() - plain.mean()) < 4 * error


def _with_radius(stage, radius):
    def where(stage):
        pipeline = stage.pipeline if isinstance(stage, Replicate) else stage
        return pipeline.stages[0].radius

    return eqx.tree_at(where, stage, radius)
