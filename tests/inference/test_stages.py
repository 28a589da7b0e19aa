import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from diffhep.event import Event, Jets
from diffhep.inference import (
    EstimateRatio,
    PairScore,
    SelectEvents,
    hard_selection,
    jet_weight,
    num_features,
    pair_probabilities,
    scale_jets,
    soft_selection,
    summarise,
)
from diffhep.testing import check_gradient, check_stage


NUM_JETS, NUM_TAGS = 5, 3
KEY = jax.random.key(0)


def _event(seed, *, alive=4):
    rng = np.random.default_rng(seed)
    transverse = np.sort(rng.uniform(14.0, 160.0, NUM_JETS))[::-1]
    azimuth, eta = rng.uniform(-3, 3, NUM_JETS), rng.normal(0, 1, NUM_JETS)
    px, py = transverse * np.cos(azimuth), transverse * np.sin(azimuth)
    pz, mass = transverse * np.sinh(eta), rng.uniform(2.0, 15.0, NUM_JETS)
    energy = np.sqrt(px**2 + py**2 + pz**2 + mass**2)
    momentum = jnp.asarray(np.stack([px, py, pz, energy], axis=1))
    mask = jnp.arange(NUM_JETS) < alive
    weight = jet_weight(momentum, mask, threshold=15.0, width=10.0)
    return Event(
        jets=Jets(momentum, jnp.zeros((NUM_JETS, 2), bool), weight, mask),
        missing_momentum=jnp.asarray(rng.normal(0, 70.0, 2)),
        tags=jnp.asarray(rng.normal(size=(NUM_JETS, NUM_TAGS))),
        label=jnp.asarray(1.0),
    )


EVENTS = jax.tree.map(lambda *x: jnp.stack(x), *(_event(seed) for seed in range(3)))


def _ratio():
    stage = EstimateRatio.init(num_tags=NUM_TAGS, width=8, key=KEY)
    return eqx.tree_at(lambda s: s.score.tags, stage, jnp.asarray([0.5, -0.3, 0.8]))


RATIO = _ratio()
SELECT = SelectEvents()
_call = eqx.filter_jit(lambda stage, event: stage(event, key=KEY))


@pytest.mark.parametrize(
    "stage", [SELECT, RATIO, SELECT.harden()], ids=lambda s: type(s).__name__
)
def test_contract(stage):
    check_stage(stage, EVENTS, key=KEY)


@settings(deadline=None, max_examples=30)
@given(st.permutations(range(NUM_JETS)), st.integers(0, 20))
def test_order_of_jets_does_not_matter(order, seed):
    event = _event(seed)
    order = jnp.asarray(order)
    shuffled = event.replace(
        jets=jax.tree.map(lambda x: x[order], event.jets), tags=event.tags[order]
    )
    for stage, name in ((RATIO, "log_ratio"), (SELECT, "pass_weight")):
        wanted, found = (getattr(_call(stage, e), name) for e in (event, shuffled))
        assert jnp.allclose(wanted, found, rtol=1e-10, atol=1e-13)


def test_variations_are_those_of_jets_scaled_by_hand():
    event = _event(1)
    jets, width = event.jets, float(RATIO.jes_width)
    varied = {}
    for factor in (1.0, 1 + width, 1 - width):
        scale = np.ones((NUM_JETS, 1)) * factor
        lost = (scale - 1) * np.asarray(jets.weight)[:, None] * jets.momentum[:, :2]
        lost = jnp.where(jets.mask[:, None], lost, 0.0)
        by_hand = event.replace(
            jets=eqx.tree_at(lambda j: j.momentum, jets, jets.momentum * scale),
            missing_momentum=event.missing_momentum - jnp.sum(lost, axis=0),
        )
        varied[factor] = (
            _call(RATIO, by_hand).log_ratio[0],
            _call(SELECT, by_hand).pass_weight[0],
        )
    wanted = jnp.asarray(list(varied.values()))
    found = (_call(RATIO, event).log_ratio, _call(SELECT, event).pass_weight)
    assert jnp.allclose(jnp.stack(found, axis=1), wanted, rtol=1e-12)
    assert jnp.unique(found[0]).shape == (3,)


def test_missing_momentum_loses_what_the_jets_gain():
    event = _event(2, alive=NUM_JETS)
    ones = jnp.ones(NUM_JETS)
    factor = jnp.asarray(1.1)
    scaled, missing = scale_jets(
        event.jets.momentum, ones, event.missing_momentum, factor
    )
    before = jnp.sum(event.jets.momentum[:, :2], axis=0) + event.missing_momentum
    after = jnp.sum(scaled[:, :2], axis=0) + missing
    assert jnp.allclose(before, after)


def test_a_jet_below_the_threshold_is_as_good_as_none():
    event = _event(3)
    soft = eqx.tree_at(
        lambda e: e.jets.momentum,
        event,
        event.jets.momentum.at[3].set(jnp.asarray([10.0, -9.0, 4.0, 15.0])),
    )
    gone = eqx.tree_at(lambda e: e.jets.mask, soft, soft.jets.mask.at[3].set(False))
    assert jnp.array_equal(_call(RATIO, soft).log_ratio, _call(RATIO, gone).log_ratio)


@eqx.filter_jit
@eqx.filter_value_and_grad
def _total(stage, event):
    return jnp.sum(stage(event, key=KEY).log_ratio)


def test_one_jet_or_none_has_finite_values_and_gradients():
    for alive in (0, 1):
        event = _event(4, alive=alive)
        assert jnp.all(_call(SELECT, event).pass_weight == 0)
        outputs = eqx.filter(_total(RATIO, event), eqx.is_inexact_array)
        assert all(jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(outputs))


def test_the_pair_of_a_resonance_is_found_and_measured():
    # Two back-to-back b jets of mass 125 in their sum, and one more jet.
    momentum = jnp.asarray(
        [
            [62.5, 0.0, 0.0, 62.5],
            [-62.5, 0.0, 0.0, 62.5],
            [0.0, 40.0, 10.0, np.hypot(40.0, 10.0)],
        ]
    )
    tags = jnp.asarray([[1.0], [1.0], [0.0]])
    score = PairScore(jnp.asarray([40.0]), jnp.asarray(0.0), jnp.asarray(-60.0))
    features = jax.jit(summarise)(
        score, momentum, jnp.ones(3), tags, jnp.asarray([0.0, -40.0])
    )
    assert features.shape == (num_features(1),)
    # probability, mass / 125, tanh(4 (mass / 125 - 1)), pT, along MET, distance
    assert jnp.allclose(features[:6], jnp.asarray([1, 1, 0, 0, 0, np.pi]), atol=1e-8)
    # MET / 100, H_T / 200, jets / 2; then the pair's tags and all tags.
    wanted = jnp.asarray([0.4, 165 / 200, 1.5])
    assert jnp.allclose(features[6:9], wanted)
    assert jnp.allclose(features[11:], jnp.asarray([2.0, 2.0]))


def test_pair_probabilities_are_the_softmax_with_no_pair():
    score = PairScore(jnp.asarray([0.7]), jnp.asarray(1.5), jnp.asarray(-0.4))
    transverse = jnp.asarray([80.0, 50.0, 20.0])
    weight = jnp.asarray([1.0, 0.6, 0.0])
    tags = jnp.asarray([[1.0], [-1.0], [900.0]])
    found = pair_probabilities(score, transverse, weight, tags)
    odds = 0.6 * np.exp(-0.4 + 1.5 * np.log(80 / 30) + 1.5 * np.log(50 / 30))
    assert jnp.allclose(found[0, 1], odds / (1 + odds))
    assert jnp.sum(found) == found[0, 1]


def test_gradient_of_the_summary_to_everything():
    event = _event(5)
    arguments = (RATIO.score, event.jets.momentum, event.tags, event.missing_momentum)

    def function(score, momentum, tags, missing):
        weight = jet_weight(momentum, event.jets.mask, threshold=15.0, width=10.0)
        return summarise(score, momentum, weight, tags, missing)

    check_gradient(function, arguments, rtol=1e-6, eps=1e-5, forward=False)


def test_soft_selection_becomes_the_hard_one():
    hard = SELECT.harden()
    assert hard.threshold == 20.0
    sharp = eqx.tree_at(lambda s: s.temperature, SELECT, jnp.asarray(1e-6))
    sharp = SelectEvents(
        sharp.cut, sharp.temperature, sharp.jes_width, threshold=19.999, width=0.002
    )
    for seed in range(30):
        event = _event(seed)
        found, wanted = _call(sharp, event), _call(hard, event)
        assert jnp.allclose(found.pass_weight, wanted.pass_weight, atol=1e-6)


def test_hard_selection_at_its_edges():
    momentum = jnp.asarray([[30.0, 0, 0, 30.0], [0, 21.0, 0, 21.0], [90.0, 0, 0, 90.0]])
    cut = jnp.asarray(100.0)

    def passes(mask, missing):
        return bool(
            hard_selection(momentum, jnp.asarray(mask), jnp.asarray(missing), cut=cut)
        )

    assert passes([True, True, False], [80.0, 61.0])
    assert not passes([True, True, False], [80.0, 59.0])
    assert not passes([True, False, False], [80.0, 61.0])


def test_soft_selection_wants_two_jets():
    missing, cut = jnp.asarray([100.0, 0.0]), jnp.asarray(100.0)

    def soft(*weight):
        return soft_selection(
            jnp.asarray(weight), missing, cut=cut, temperature=jnp.asarray(5.0)
        )

    assert soft(1.0, 0.0) == 0.0
    assert soft(1.0, 1.0) == 0.5
    assert soft(1.0, 1.0, 0.7) == 0.5
    assert 0 < soft(1.0, 0.5) < 0.5


def test_missing_fields_are_sentences():
    with pytest.raises(ValueError, match="lacks `jets` or `missing_momentum`"):
        SELECT(_event(0).replace(jets=None), key=KEY)
    with pytest.raises(ValueError, match="lacks `tags`"):
        RATIO(_event(0).replace(tags=None), key=KEY)


def test_a_network_of_lower_precision_keeps_the_event_in_double():
    low = eqx.tree_at(
        lambda s: s.network,
        RATIO,
        jax.tree.map(
            lambda x: x.astype(jnp.float32) if eqx.is_inexact_array(x) else x,
            RATIO.network,
        ),
    )
    found = _call(low, _event(0)).log_ratio
    assert found.dtype == jnp.float64
    assert jnp.allclose(found, _call(RATIO, _event(0)).log_ratio, atol=1e-5)
