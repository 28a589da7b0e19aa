import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffhep.event import Event
from diffhep.inference import (
    Analysis,
    HardBins,
    SoftBins,
    bootstrap,
    compare,
    cross_entropy,
    expected_uncertainty,
    fill_histogram,
    find_contributions,
    sample_uncertainty,
    templates,
)
from diffhep.pipeline import Sample
from diffhep.testing import check_gradient


KEY = jax.random.key(5)
BINS = SoftBins.uniform(4, low=-2.0, high=2.0)


def _sample(num_events=200, *, replicas=1, seed=0, shift=1.0):
    rng = np.random.default_rng(seed)
    number = num_events * replicas
    label = np.repeat(rng.random(num_events) < 0.4, replicas).astype(float)
    ratio = rng.normal(shift * (2 * label - 1), 1.0)
    ratio = ratio[:, None] + np.asarray([0.0, 0.1, -0.12])
    passing = rng.random(number)[:, None] * np.asarray([1.0, 1.02, 0.97])
    weight = np.where(label > 0, 60.0 / label.sum(), 900.0 / (1 - label).sum())
    fields = {
        "label": jnp.asarray(label),
        "log_ratio": jnp.asarray(ratio),
        "pass_weight": jnp.asarray(passing / 1.02),
        "log_weight": jnp.asarray(np.log(weight)),
        "index": jnp.repeat(jnp.arange(num_events, dtype=jnp.int32), replicas),
    }
    return Sample(jax.vmap(lambda fields: Event(**fields))(fields))


def _with(sample, **fields):
    # Not `Event.replace`, which is for one event and checks its shapes.
    return Sample(
        eqx.tree_at(
            lambda e: [getattr(e, name) for name in fields],
            sample.events,
            list(fields.values()),
            is_leaf=lambda x: x is None,
        )
    )


SAMPLE = _sample()
_uncertainty = eqx.filter_jit(sample_uncertainty)


def test_memberships_add_up_to_one():
    values = jnp.asarray([-3.0, 0.0, 0.2499, 0.25, 0.6, 1.0, 40.0])
    for bins in (BINS, BINS.harden(), SoftBins.uniform(1), SoftBins.uniform(7)):
        member = jax.vmap(bins.membership)(values)
        assert member.shape == (7, bins.num_bins)
        assert jnp.all(member >= 0)
        assert jnp.allclose(jnp.sum(member, axis=1), 1.0, rtol=1e-15)


def test_soft_histogram_becomes_the_hard_one_and_numpys():
    values = jax.nn.sigmoid(SAMPLE.events.log_ratio[:, 0])
    log_weight = SAMPLE.log_weight
    sharp = fill_histogram(values, log_weight, bins=SoftBins.uniform(4, bandwidth=1e-7))
    hard = fill_histogram(values, log_weight, bins=SoftBins.uniform(4).harden())
    weight = np.exp(np.asarray(log_weight))
    wanted, _ = np.histogram(values, np.linspace(0, 1, 5), weights=weight)
    squares, _ = np.histogram(values, np.linspace(0, 1, 5), weights=weight**2)
    assert np.allclose(hard.counts, wanted)
    assert np.allclose(hard.squares, squares)
    assert np.allclose(sharp.counts, wanted)
    assert np.allclose(sharp.squares, squares)


def test_bins_that_cannot_be_are_sentences():
    with pytest.raises(ValueError, match="`num_bins` is 0"):
        SoftBins.uniform(0)
    with pytest.raises(ValueError, match="must be above `low`"):
        SoftBins.uniform(3, low=1.0)
    with pytest.raises(ValueError, match="use `HardBins`"):
        SoftBins.uniform(3, bandwidth=0.0)


def test_templates_are_sums_of_weights():
    model = templates(SAMPLE, Analysis(BINS.harden()))
    events = SAMPLE.events
    values = np.asarray(events.log_ratio)
    # Values beyond the outer edges belong to the outer bins.
    edges = np.concatenate([[-np.inf], np.asarray(BINS.edges)[1:-1], [np.inf]])
    weight = np.exp(np.asarray(events.log_weight))[:, None] * events.pass_weight
    for label, fields in (
        (1.0, (model.signal, model.signal_up, model.signal_down)),
        (0.0, (model.background, model.background_up, model.background_down)),
    ):
        chosen = np.asarray(events.label) == label
        for variation, found in enumerate(fields):
            wanted, _ = np.histogram(
                values[chosen, variation],
                edges,
                weights=np.asarray(weight)[chosen, variation],
            )
            assert np.allclose(found, wanted)


def test_yields_scale_a_part_to_the_whole():
    whole = templates(SAMPLE, Analysis(BINS))
    part = _with(SAMPLE, log_weight=SAMPLE.log_weight - jnp.log(7.0))
    scaled = templates(part, Analysis(BINS, yields=jnp.asarray([900.0, 60.0])))
    assert all(
        jnp.allclose(a, b)
        for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(scaled), strict=True)
    )


def test_a_score_that_is_the_same_for_all_moves_nothing():
    # Its mean vanishes only in expectation; the normalisation is its baseline.
    def total(parameter):
        score = parameter * jnp.ones_like(SAMPLE.log_weight)
        sample = _with(
            SAMPLE, log_weight=SAMPLE.log_weight + score - jax.lax.stop_gradient(score)
        )
        return templates(sample, Analysis(BINS)).background

    assert jnp.allclose(jax.jacfwd(total)(jnp.asarray(0.3)), 0.0, atol=1e-10)


def test_score_gradient_is_the_covariance_of_score_and_share():
    rng = np.random.default_rng(4)
    scores = jnp.asarray(rng.normal(size=SAMPLE.log_weight.shape))

    def background(parameter):
        term = parameter * scores
        sample = _with(
            SAMPLE, log_weight=SAMPLE.log_weight + term - jax.lax.stop_gradient(term)
        )
        return templates(sample, Analysis(BINS)).background

    found = jax.jacfwd(background)(jnp.asarray(0.0))
    shares = find_contributions(SAMPLE, BINS).shares[:, 0]
    chosen = SAMPLE.events.label == 0
    share, score = np.asarray(shares)[chosen], np.asarray(scores)[chosen]
    wanted = 900.0 * np.mean((share - share.mean(axis=0)) * score[:, None], axis=0)
    assert np.allclose(found, wanted)


def test_gradient_of_the_uncertainty_to_the_sample():
    def function(log_ratio, pass_weight, log_weight, analysis):
        sample = _with(
            SAMPLE, log_ratio=log_ratio, pass_weight=pass_weight, log_weight=log_weight
        )
        return sample_uncertainty(sample, analysis)

    events = SAMPLE.events
    # Without `yields` the derivative of the total is dropped, which differences see.
    analysis = Analysis(BINS, yields=jnp.asarray([900.0, 60.0]))
    arguments = (events.log_ratio, events.pass_weight, events.log_weight, analysis)
    check_gradient(function, arguments, rtol=1e-6, eps=1e-5, forward=False)


def test_single_precision_samples_make_double_precision_templates():
    single = jax.tree.map(
        lambda x: x.astype(jnp.float32) if eqx.is_inexact_array(x) else x, SAMPLE
    )
    model = templates(single, Analysis(BINS))
    assert model.signal.dtype == jnp.float64
    wanted = _uncertainty(SAMPLE, Analysis(BINS))
    assert jnp.allclose(expected_uncertainty(model), wanted, rtol=1e-5)


def test_uncertainty_in_single_precision():
    with jax.enable_x64(False):
        single = jax.tree.map(
            lambda x: x.astype(jnp.float32) if eqx.is_inexact_array(x) else x, SAMPLE
        )
        found = _uncertainty(single, Analysis(SoftBins.uniform(4, low=-2.0, high=2.0)))
    assert found.dtype == jnp.float32
    assert np.isclose(found, _uncertainty(SAMPLE, Analysis(BINS)), rtol=1e-4)


def test_a_process_without_entries_is_empty():
    sample = _with(SAMPLE, label=jnp.zeros_like(SAMPLE.log_weight))
    model = templates(sample, Analysis(BINS))
    assert jnp.all(model.signal == 0)
    assert jnp.isfinite(jnp.sum(model.background))


def test_missing_fields_are_sentences():
    empty = _with(SAMPLE, log_ratio=None)
    with pytest.raises(ValueError, match="lacks `log_ratio`"):
        templates(empty, Analysis(BINS))
    with pytest.raises(ValueError, match="lacks `log_ratio`"):
        cross_entropy(empty)


def _counting(num_events, *, replicas=1):
    # One bin, everything passes or not: sigma = sqrt(S + B) / S without nuisances.
    sample = _sample(num_events, replicas=replicas, seed=9)
    label = sample.events.label
    rng = np.random.default_rng(1)
    event = rng.random(num_events)
    passing = np.repeat(event, replicas) < np.where(np.asarray(label) > 0, 0.5, 0.2)
    passing = jnp.asarray(passing.astype(float))[:, None] * jnp.ones((1, 3))
    ones = SoftBins.uniform(1)
    analysis = Analysis(ones, jnp.asarray(0.0), jnp.asarray([900.0, 60.0]))
    sample = _with(sample, pass_weight=passing)
    return find_contributions(sample, ones), analysis


def _counting_error(contributions):
    # S and B are binomial fractions of given totals: propagate their errors.
    label = np.asarray(contributions.label)
    passing = np.asarray(contributions.shares)[:, 0, 0]
    number = {p: np.sum(label == p) for p in (0, 1)}
    share = {p: passing[label == p].mean() for p in (0, 1)}
    s, b = 60.0 * share[1], 900.0 * share[0]
    ds, db = (
        total * np.sqrt(share[p] * (1 - share[p]) / number[p])
        for total, p in ((60.0, 1), (900.0, 0))
    )
    sigma = np.sqrt(s + b) / s
    to_s = 1 / (2 * s * np.sqrt(s + b)) - sigma / s
    to_b = 1 / (2 * s * np.sqrt(s + b))
    return sigma, np.hypot(to_s * ds, to_b * db)


_draws = eqx.filter_jit(bootstrap)
_compare = eqx.filter_jit(compare)


def test_bootstrap_error_of_a_counting_experiment():
    contributions, analysis = _counting(2000)
    sigma, error = _counting_error(contributions)
    draws = _draws(contributions, analysis, num_draws=400, block_size=40, key=KEY)
    # The standard deviation of 400 draws is known to 3.5 per cent: 4 such errors.
    assert np.isclose(np.std(draws, ddof=1), error, rtol=0.14)
    assert abs(np.mean(draws) - sigma) < 0.5 * error


def test_replicas_of_an_event_count_together():
    # Copies of each event add nothing: the error stays that of the events.
    contributions, analysis = _counting(500)
    copies, _ = _counting(500, replicas=3)
    options = {"num_draws": 20, "block_size": 20, "key": KEY}
    one = _draws(contributions, analysis, **options)
    three = _draws(copies, analysis, **options)
    assert np.allclose(one, three, rtol=1e-9)


def test_a_pair_of_analyses_shares_its_fluctuations():
    before, analysis = _counting(500)
    # Slightly better everywhere: half the background that passes is lost.
    factor = jnp.where(before.label > 0, 1.0, 0.5)
    after = eqx.tree_at(
        lambda c: c.shares, before, before.shares * factor[:, None, None]
    )
    found = _compare(before, after, analysis, num_draws=50, key=KEY)
    assert np.isclose(found.difference, found.after - found.before)
    assert found.difference < 0
    unpaired = np.hypot(found.before_error, found.after_error)
    assert found.difference_error < 0.7 * unpaired
    assert np.isclose(found.significance, found.difference / found.difference_error)
    same = _compare(before, before, analysis, num_draws=50, key=KEY)
    assert same.difference == 0
    assert same.difference_error == 0


def test_cross_entropy_of_nothing_and_of_the_truth():
    blind = _with(SAMPLE, log_ratio=jnp.zeros_like(SAMPLE.events.log_ratio))
    assert jnp.allclose(cross_entropy(blind), np.log(2))
    # Gaussians of unit width at +1 and -1: the log-ratio is 2 x.
    sample = _with(_sample(4000), pass_weight=None)
    ratio = sample.events.log_ratio
    scale = {x: cross_entropy(_with(sample, log_ratio=x * ratio)) for x in (1, 2, 3)}
    assert scale[2] < scale[1]
    assert scale[2] < scale[3]


def test_cross_entropy_by_hand():
    events = SAMPLE.events
    logit, label = np.asarray(events.log_ratio[:, 0]), np.asarray(events.label)
    weight = np.exp(events.log_weight) * np.asarray(events.pass_weight[:, 0])
    s = 1 / (1 + np.exp(-logit))
    wanted = 0.5 * np.average(-np.log(s)[label == 1], weights=weight[label == 1])
    wanted += 0.5 * np.average(-np.log(1 - s)[label == 0], weights=weight[label == 0])
    assert np.isclose(cross_entropy(SAMPLE), wanted)


def test_hard_bins_have_no_gradient_and_say_so():
    def total(ratio):
        sample = _with(SAMPLE, log_ratio=ratio)
        return jnp.sum(templates(sample, Analysis(HardBins(BINS.edges))).signal)

    assert jnp.all(jax.grad(total)(SAMPLE.events.log_ratio) == 0)
