"""From a sample of events through a network and templates to CLs, and back."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffhep.event import Event
from diffhep.inference import (
    HardBins,
    KernelBins,
    asimov_uncertainty,
    fill_histogram,
    histfactory,
    hypothesis_test,
    profile_scan,
)
from diffhep.pipeline import Sample
from diffhep.testing import check_gradient


BINS = KernelBins(jnp.linspace(-3.0, 3.0, 5), jnp.asarray(0.4))


def _model(errors=None):
    flat = [10.0] * BINS.num_bins
    mu = {"name": "mu", "type": "normfactor", "data": None}
    moved = {"name": "scale", "type": "histosys"}
    moved["data"] = {"lo_data": flat, "hi_data": flat}
    rate = {"name": "rate", "type": "normsys", "data": {"lo": 0.9, "hi": 1.1}}
    few = {"name": "few", "type": "staterror", "data": errors or flat}
    samples = [
        {"name": "signal", "data": flat, "modifiers": [mu]},
        {"name": "background", "data": flat, "modifiers": [moved, rate, few]},
    ]
    return histfactory.build_model(
        histfactory.read_workspace(
            {
                "version": "1.0.0",
                "channels": [
                    {"name": "events", "samples": samples},
                    {
                        "name": "control",
                        "samples": [dict(samples[1], modifiers=[rate])],
                    },
                ],
                "observations": [
                    {"name": "events", "data": flat},
                    {"name": "control", "data": flat},
                ],
                "measurements": [
                    {"name": "test", "config": {"poi": "mu", "parameters": []}}
                ],
            }
        )
    )


def _sample(number=400):
    # As a pipeline leaves it: three variations of the ratio, weights and labels.
    rng = np.random.default_rng(2)
    label = (rng.random(number) < 0.5).astype(float)
    ratio = rng.normal(2 * label - 1, 1.0)[:, None] + np.array([0.0, 0.2, -0.15])
    total = np.where(label > 0, 30.0, 200.0) / np.where(label > 0, label.sum(), 1)
    total = np.where(label > 0, total, 200.0 / (1 - label).sum())
    fields = {
        "label": label,
        "log_ratio": ratio,
        "log_weight": np.log(total),
        "index": np.arange(number, dtype=np.int32),
    }
    fields = {name: jnp.asarray(value) for name, value in fields.items()}
    return Sample(jax.vmap(lambda fields: Event(**fields))(fields))


MODEL, SAMPLE = _model(), _sample()


def _templates(tilt, sample, bins):
    """The model with the templates of a sample, in bins of a summary with a slope."""
    events = sample.events
    summary = jnp.tanh(tilt * events.log_ratio / 3) * 3

    def fill(label, variation):
        weight = jnp.where(events.label == label, events.log_weight, -jnp.inf)
        return fill_histogram(summary[:, variation], weight, bins=bins)

    signal, (nominal, up, down) = fill(1.0, 0), (fill(0.0, k) for k in range(3))
    return histfactory.with_templates(
        MODEL,
        "events",
        nominal={"signal": signal.counts, "background": nominal.counts},
        shape_up={("scale", "background"): up.counts},
        shape_down={("scale", "background"): down.counts},
        stat_error={("few", "background"): jnp.sqrt(nominal.squares)},
    )


def _measurement(tilt, sample):
    model = _templates(tilt, sample, BINS)
    return histfactory.measure(model, histfactory.expected_data(model, model.start))


def test_templates_of_a_sample_reach_the_model():
    edges = HardBins(BINS.edges)
    model = _templates(jnp.asarray(1.0), SAMPLE, edges)
    events = SAMPLE.events
    ours = events.label == 0
    summary = np.tanh(events.log_ratio[ours] / 3) * 3
    weight = np.exp(events.log_weight[ours])
    place = model.layout.samples.index("background")
    for array, variation in (
        (model.nominal[place, 4:], 0),
        (model.shape_up[0, place, 4:], 1),
        (model.shape_down[0, place, 4:], 2),
    ):
        values = np.clip(summary[:, variation], -3, 3)
        exact = np.histogram(values, BINS.edges, weights=weight)[0]
        np.testing.assert_allclose(array, exact, rtol=1e-12)
    errors = np.histogram(summary[:, 0], BINS.edges, weights=weight**2)[0] ** 0.5
    np.testing.assert_allclose(model.stat_error[0, place, 4:], errors, rtol=1e-12)
    # What is not given stays, as the other channel, which is the first.
    np.testing.assert_array_equal(model.nominal[place, :4], 10.0)
    signal = model.layout.samples.index("signal")
    assert not model.shape_up[0, signal].any()


def test_losses_differentiate_to_the_summary_and_the_events():
    ratio = SAMPLE.events.log_ratio

    @eqx.filter_jit
    def losses(tilt, shift):
        moved = eqx.tree_at(
            lambda s: s.events.log_ratio, SAMPLE, ratio + shift * jnp.sin(ratio)
        )
        measurement = _measurement(tilt, moved)
        test = hypothesis_test(measurement, jnp.asarray(2.0))
        # Of order one, all three.
        sigma = asimov_uncertainty(measurement, measurement.start)
        return jnp.stack([sigma, jnp.log(test.cls), jnp.log(test.expected_cls[1])])

    point = (jnp.asarray(1.3), jnp.asarray(0.1))
    assert jnp.all(jnp.isfinite(losses(*point)))
    check_gradient(losses, point, rtol=1e-6, eps=1e-3, forward=False)


def test_with_templates_names_what_is_wrong():
    four, three = jnp.ones(4), jnp.ones(3)
    with pytest.raises(
        ValueError, match="no channel 'nowhere', but 'control', 'events'"
    ):
        histfactory.with_templates(MODEL, "nowhere", nominal={"signal": four})
    with pytest.raises(ValueError, match="no sample 'top', but 'background', 'signal'"):
        histfactory.with_templates(MODEL, "events", nominal={"top": four})
    with pytest.raises(ValueError, match=r"`nominal` of signal.*\(3,\).* has 4 bins"):
        histfactory.with_templates(MODEL, "events", nominal={"signal": three})
    with pytest.raises(ValueError, match="no histosys modifier 'few', but 'scale'"):
        histfactory.with_templates(
            MODEL, "events", shape_up={("few", "background"): four}
        )
    with pytest.raises(ValueError, match="does not act on the sample 'signal'"):
        histfactory.with_templates(
            MODEL, "events", shape_up={("scale", "signal"): four}
        )


def test_scan_is_parabolic_about_its_minimum():
    measurement = _measurement(jnp.asarray(1.0), SAMPLE)
    sigma = asimov_uncertainty(measurement, measurement.start)
    strengths = 1 + sigma * jnp.asarray([-0.02, 0.0, 0.02, 1.0, jnp.nan])
    scan = eqx.filter_jit(profile_scan)(measurement, strengths)
    np.testing.assert_allclose(scan.best, 1.0, atol=1e-7)
    np.testing.assert_allclose(scan.deviance[:3], [4e-4, 0, 4e-4], rtol=0.01, atol=1e-9)
    assert 0.8 < scan.deviance[3] < 1.2
    # A fit that fails is no number, and leaves the others alone.
    assert jnp.isnan(scan.deviance[4])


def test_with_templates_refuses_what_would_have_no_effect():
    four = jnp.ones(4)
    with pytest.raises(ValueError, match="channel 'control' has no sample 'signal'"):
        histfactory.with_templates(MODEL, "control", nominal={"signal": four})
    held = _model([1.0, 0.0, 1.0, 0.0])
    with pytest.raises(ValueError, match=r"'few' is fixed in the bins \[1, 3\]"):
        histfactory.with_templates(
            held, "events", stat_error={("few", "background"): four}
        )


def test_toys_of_a_negative_expectation_are_no_numbers():
    minus = {"signal": -jnp.arange(4.0)}
    model = histfactory.with_templates(MODEL, "events", nominal=minus)
    start = model.start.at[model.layout.poi].set(1e3)
    data = histfactory.sample_data(model, start, key=jax.random.key(0))
    first = model.layout.edges[model.layout.channels.index("events")]
    np.testing.assert_array_equal(
        jnp.isnan(data.counts[first : first + 4]), [False, True, True, True]
    )
    assert jnp.all(data.counts[jnp.isfinite(data.counts)] >= 0)
