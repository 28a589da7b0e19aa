import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize

from diffhep.event import Event
from diffhep.inference import (
    Analysis,
    BinnedModel,
    SoftBins,
    expected_uncertainty,
    expected_yields,
    fit,
    likelihood_change,
    negative_log_likelihood,
    templates,
)
from diffhep.pipeline import Sample
from diffhep.testing import check_gradient


DATA = jnp.asarray([85.0, 41.0, 17.0, 0.0])
VARIANCE = jnp.asarray([0.01, 0.0, 0.2, 0.6])
TRUTH = jnp.asarray([1.0, 0.0, 0.0])


def _model(variance=VARIANCE):
    return BinnedModel(
        jnp.asarray([1.0, 2.0, 4.0, 6.0]),
        jnp.asarray([0.9, 2.1, 4.3, 6.6]),
        jnp.asarray([1.1, 1.8, 3.9, 5.3]),
        jnp.asarray([80.0, 40.0, 12.0, 3.0]),
        jnp.asarray([84.0, 43.0, 12.6, 3.5]),
        jnp.asarray([77.0, 38.0, 11.1, 2.6]),
        jnp.asarray(0.1),
        variance,
    )


_uncertainty = eqx.filter_jit(expected_uncertainty)
_fit = eqx.filter_jit(fit)


def _with_factors(parameters, data, variance):
    # The likelihood with one explicit factor per bin whose template has an error.
    factor = jnp.ones(4).at[jnp.asarray([0, 2, 3])].set(parameters[3:])
    rate = expected_yields(_model(None), parameters[:3]).rate * factor
    penalty = jnp.where(
        variance > 0, (factor - 1) ** 2 / (2 * jnp.where(variance > 0, variance, 1)), 0
    )
    poisson = rate - jax.scipy.special.xlogy(data, rate)
    return jnp.sum(poisson + penalty) + jnp.sum(parameters[1:3] ** 2) / 2


def test_uncertainty_is_that_of_a_fit_with_explicit_factors():
    data = expected_yields(_model(), TRUTH).rate
    at = jnp.concatenate([TRUTH, jnp.ones(3)])
    hessian = jax.hessian(_with_factors)(at, data, VARIANCE)
    wanted = jnp.sqrt(jnp.linalg.inv(hessian)[0, 0])
    assert np.isclose(_uncertainty(_model()), wanted, rtol=1e-9)
    assert _uncertainty(_model()) > 1.05 * _uncertainty(_model(None))


def test_fit_is_that_with_explicit_factors():
    # An empty bin whose factor is pulled to a fifth, and two others that move.
    best = optimize.minimize(
        jax.jit(_with_factors),
        np.asarray([1.0, 0.0, 0.0, 1.0, 1.0, 0.5]),
        args=(DATA, VARIANCE),
        jac=jax.jit(jax.grad(_with_factors)),
        bounds=[(None, None)] * 3 + [(1e-9, None)] * 3,
        options={"ftol": 1e-15, "gtol": 1e-10},
    )
    result = _fit(_model(), DATA)
    assert np.allclose(result.parameters, best.x[:3], atol=1e-5)
    assert np.max(np.abs(best.x[3:] - 1)) > 0.3


@pytest.mark.parametrize("variance", [1e-12, 0.04, 30.0])
@pytest.mark.parametrize("observed", [0.0, 3.0, 40.0])
def test_the_factors_are_the_best_ones(variance, observed):
    model, data = _model(jnp.full(4, variance)), jnp.full(4, observed)
    rate = np.asarray(expected_yields(model, TRUTH).rate)

    def cost(factor, n):
        poisson = n * factor - observed * np.log(n * factor)
        return poisson + (factor - 1) ** 2 / 2 / variance

    low = sum(
        optimize.minimize_scalar(
            cost, args=(n,), bounds=(1e-12, 12.0), options={"xatol": 1e-12}
        ).fun
        for n in rate
    )
    constant = np.log(2 * np.pi) + 4 * jax.lax.lgamma(observed + 1)
    found = negative_log_likelihood(model, TRUTH, data) - constant
    assert np.isclose(found, low, rtol=1e-8)


def test_change_is_the_difference_of_likelihoods():
    new, old = jnp.asarray([1.3, 0.2, -0.4]), jnp.asarray([0.4, -1.0, 0.3])
    found = likelihood_change(_model(), new, old, DATA)
    one, two = (negative_log_likelihood(_model(), x, DATA) for x in (new, old))
    assert np.isclose(found, one - two, rtol=1e-10)


def test_no_error_is_no_change():
    exact, zero = _model(None), _model(jnp.zeros(4))
    assert np.isclose(_uncertainty(zero), _uncertainty(exact), rtol=1e-14)


def test_gradient_of_the_uncertainty():
    check_gradient(expected_uncertainty, (_model(jnp.asarray([0.01, 0.1, 0.2, 0.6])),))


def _sample(num_events, *, replicas=1, seed=2):
    rng = np.random.default_rng(seed)
    label = np.repeat(np.arange(num_events) % 2, replicas).astype(float)
    ratio = np.repeat(rng.normal(size=num_events), replicas) + label
    weight = np.where(label > 0, 60.0, 900.0) / (num_events * replicas / 2)
    fields = {
        "label": jnp.asarray(label),
        "log_ratio": jnp.tile(jnp.asarray(ratio)[:, None], 3),
        "pass_weight": jnp.ones((num_events * replicas, 3)),
        "log_weight": jnp.asarray(np.log(weight)),
        "index": jnp.repeat(jnp.arange(num_events, dtype=jnp.int32), replicas),
    }
    return Sample(jax.vmap(lambda fields: Event(**fields))(fields))


def _analysis(num_simulated):
    number = jnp.full(2, float(num_simulated))
    return Analysis(SoftBins.uniform(4, low=-2.0, high=2.0), num_simulated=number)


def test_variance_is_that_of_repeated_samples():
    number, repeats = 400, 300
    analysis = _analysis(number / 2)
    models = [templates(_sample(number, seed=s), analysis) for s in range(repeats)]
    total = np.asarray([m.background + m.signal for m in models])
    spread = total.var(axis=0, ddof=1) / total.mean(axis=0) ** 2
    said = np.mean([m.relative_variance for m in models], axis=0)
    # One event more per bin than is there, and no loss from the fixed total.
    extra = (900.0**2 + 60.0**2) / (number / 2) ** 2 / total.mean(axis=0) ** 2
    share = total.mean(axis=0) / 960.0
    # The variance of 300 repetitions is known to 8 per cent: 4 such errors.
    assert np.allclose((said - extra) * (1 - share), spread, rtol=0.33)


def test_a_part_bears_the_error_of_the_whole_and_replicas_add_nothing():
    whole = templates(_sample(4000), _analysis(2000)).relative_variance
    part = templates(_sample(400), _analysis(2000)).relative_variance
    copies = templates(_sample(400, replicas=3), _analysis(2000)).relative_variance
    assert np.allclose(part, whole, rtol=0.3)
    assert np.allclose(copies, part, rtol=1e-9)


def test_an_empty_bin_bears_one_event():
    sample = _sample(400)
    background = sample.events.label == 0
    far = eqx.tree_at(
        lambda s: s.events.log_ratio,
        sample,
        jnp.where(background[:, None], -9.0, sample.events.log_ratio),
    )
    model = templates(far, _analysis(200))
    assert model.background[-1] < 1e-6
    # One background event stands for 4.5 events.
    error = jnp.sqrt(model.relative_variance[-1]) * model.signal[-1]
    assert 4.5 < error < 5.5


def test_the_score_of_a_variance_is_counted_once():
    rng = np.random.default_rng(4)
    sample = _sample(400)
    scores = jnp.asarray(rng.normal(size=400))
    background = np.asarray(sample.events.label) == 0

    def relative(parameter, analysis):
        term = parameter * scores
        moved = eqx.tree_at(
            lambda s: s.events.log_weight,
            sample,
            sample.events.log_weight + term - jax.lax.stop_gradient(term),
        )
        model = templates(moved, analysis)
        # The absolute variance: the score moves the yields as well.
        return model.relative_variance * (model.background + model.signal) ** 2

    found = jax.jacfwd(relative)(jnp.asarray(0.0), _analysis(200))
    bins = _analysis(200).bins
    share = np.asarray(jax.vmap(bins.membership)(sample.events.log_ratio[:, 0]))
    wanted = 0.0
    for chosen, total in ((background, 900.0), (~background, 60.0)):
        square, score = share[chosen] ** 2, np.asarray(scores)[chosen, None]
        wanted += (
            total**2 / 200 * np.mean((square - square.mean(axis=0)) * score, axis=0)
        )
    assert np.allclose(found, wanted)


def test_least_background_is_added_to_each_bin_and_variation():
    sample, bins = _sample(400), _analysis(200).bins
    bare = templates(sample, Analysis(bins))
    more = templates(sample, Analysis(bins, least_background=jnp.asarray(4.5)))
    for name in ("background", "background_up", "background_down"):
        assert np.allclose(getattr(more, name), getattr(bare, name) + 4.5, rtol=1e-12)
    assert np.array_equal(more.signal, bare.signal)
