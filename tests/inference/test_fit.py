import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
import pytest
from iminuit import Minuit

from diffhep.inference import (
    BinnedLikelihood,
    BinnedModel,
    FitStatus,
    discovery_significance,
    expected_uncertainty,
    expected_yields,
    fit,
    negative_log_likelihood,
)
from diffhep.testing import check_gradient


DATA = jnp.asarray([85.0, 41.0, 17.0, 8.0])
START = jnp.asarray([1.0, 0.0, 0.0])


def _model():
    return BinnedModel(
        jnp.asarray([1.0, 2.0, 4.0, 6.0]),
        jnp.asarray([0.9, 2.1, 4.3, 6.6]),
        jnp.asarray([1.1, 1.8, 3.9, 5.3]),
        jnp.asarray([80.0, 40.0, 12.0, 3.0]),
        jnp.asarray([84.0, 43.0, 12.6, 3.5]),
        jnp.asarray([77.0, 38.0, 11.1, 2.6]),
        jnp.asarray(0.1),
    )


@eqx.filter_jit
def _fit(model, data, start=None, adjoint=None):
    if adjoint is None:
        return fit(model, data, start=start)
    return fit(model, data, start=start, adjoint=adjoint)


_uncertainty = eqx.filter_jit(expected_uncertainty)


def _minuit(model, data, *, fixed=None):
    nll = jax.jit(lambda p: negative_log_likelihood(model, p, data))
    slope = jax.jit(jax.grad(lambda p: negative_log_likelihood(model, p, data)))
    minuit = Minuit(
        lambda p: float(nll(jnp.asarray(p))),
        np.asarray([1.0 if fixed is None else fixed, 0.0, 0.0]),
        grad=lambda p: np.asarray(slope(jnp.asarray(p))),
    )
    minuit.errordef = Minuit.LIKELIHOOD
    minuit.strategy = 2
    minuit.tol = 1e-6
    minuit.fixed["x0"] = fixed is not None
    minuit.migrad()
    return minuit


@pytest.mark.parametrize(
    "start", [(1.0, 0.0, 0.0), (8.0, 3.0, -3.0), (-3.0, -2.0, 2.0)]
)
def test_fit_agrees_with_minuit(start):
    minuit = _minuit(_model(), DATA)
    minuit.hesse()
    result = _fit(_model(), DATA, jnp.asarray(start))
    assert result.status == FitStatus.converged
    errors = np.asarray(minuit.errors)
    assert np.allclose(result.parameters, minuit.values, atol=1e-3 * errors.min())
    assert np.allclose(result.covariance, np.asarray(minuit.covariance), rtol=2e-3)
    # A minimum cannot lie above another one.
    nll = negative_log_likelihood(_model(), result.parameters, DATA)
    assert nll <= minuit.fval + 1e-10


def test_expected_uncertainty_agrees_with_minuit():
    model = _model()
    data = expected_yields(model, jnp.asarray([1.0, 0.0, 0.0])).rate
    # The curvature of Minuit's profile likelihood. (HESSE's own is good to 1e-4.)
    profile = {
        h: _minuit(model, data, fixed=1.0 + 0.05 * h).fval for h in (-2, -1, 0, 1, 2)
    }
    # Second difference of fourth order.
    outer = -(profile[2] + profile[-2]) + 16 * (profile[1] + profile[-1])
    curvature = (outer - 30 * profile[0]) / (12 * 0.05**2)
    assert np.isclose(_uncertainty(model), curvature**-0.5, rtol=1e-5)


def test_expected_uncertainty_of_one_bin_in_closed_form():
    # Background b with relative uncertainty w, and no shape uncertainty: at first
    # order of the likelihood sigma^2 = (s + b + (b log(1 + w))^2) / s^2.
    s, b, w = 12.0, 50.0, 0.1
    signal, background = jnp.asarray([s]), jnp.asarray([b])
    model = BinnedModel(
        signal, signal, signal, background, background, background, jnp.asarray(w)
    )
    wanted = np.sqrt(s + b + (b * np.log1p(w)) ** 2) / s
    # The floor of 1e-6 events is a background of its own.
    assert np.isclose(expected_uncertainty(model), wanted, rtol=1e-7)


def test_discovery_significance_agrees_with_minuit():
    model = _model()
    data = expected_yields(model, jnp.asarray([1.0, 0.0, 0.0])).rate
    truth = negative_log_likelihood(model, jnp.asarray([1.0, 0.0, 0.0]), data)
    q0 = 2 * (_minuit(model, data, fixed=0.0).fval - float(truth))
    assert np.isclose(discovery_significance(model), np.sqrt(q0), rtol=1e-6)
    check_gradient(discovery_significance, (model,), rtol=1e-6, forward=False)


def test_implicit_gradient_of_the_fit_against_finite_differences():
    def best(model, data):
        return _fit(model, data).parameters

    check_gradient(best, (_model(), DATA), rtol=1e-6, forward=False)


def test_implicit_gradient_agrees_with_the_unrolled_steps():
    def best(adjoint):
        return jax.jacrev(lambda data: _fit(_model(), data, None, adjoint).parameters)

    implicit = best(None)(DATA)
    unrolled = best(optx.RecursiveCheckpointAdjoint())(DATA)
    assert jnp.allclose(implicit, unrolled, rtol=1e-9, atol=1e-12)


def test_gradient_of_the_uncertainty_against_finite_differences():
    check_gradient(_uncertainty, (_model(),), rtol=1e-6)


def test_fixed_signal_strength():
    result = fit(_model(), DATA, strength=jnp.asarray(0.0))
    minuit = _minuit(_model(), DATA, fixed=0.0)
    assert result.status == FitStatus.converged
    assert np.allclose(result.parameters, minuit.values, atol=1e-4)
    assert jnp.all(result.covariance[0] == 0)


def test_empty_bins_change_nothing_and_have_finite_gradients():
    model = _model()
    padded = jax.tree.map(
        lambda x: jnp.concatenate([x, jnp.zeros(2)]) if x.ndim else x, model
    )
    value, gradient = jax.jit(jax.value_and_grad(expected_uncertainty))(padded)
    assert jnp.allclose(value, _uncertainty(model), rtol=1e-12)
    assert all(jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(gradient))


def test_observed_events_in_an_empty_bin_do_not_break_the_fit():
    model = _model()
    padded = jax.tree.map(
        lambda x: jnp.concatenate([x, jnp.zeros(1)]) if x.ndim else x, model
    )
    result = _fit(padded, jnp.append(DATA, 2.0))
    assert result.status == FitStatus.converged
    assert jnp.allclose(result.parameters, _fit(model, DATA).parameters, atol=1e-9)


def test_no_signal_is_degenerate_and_moves_nothing():
    empty = eqx.tree_at(
        lambda m: (m.signal, m.signal_up, m.signal_down), _model(), (jnp.zeros(4),) * 3
    )
    result = _fit(empty, DATA)
    assert result.status == FitStatus.degenerate
    assert jnp.allclose(result.parameters[0], 1.0)
    assert jnp.isnan(_uncertainty(empty))
    with pytest.raises(RuntimeError, match="does not constrain every parameter"):
        fit(empty, DATA, throw=True)


def test_no_background_is_fine():
    empty = eqx.tree_at(
        lambda m: (m.background, m.background_up, m.background_down),
        _model(),
        (jnp.zeros(4),) * 3,
    )
    assert jnp.allclose(
        _uncertainty(eqx.tree_at(lambda m: m.norm_width, empty, jnp.zeros(()))),
        _uncertainty(empty),
    )


def test_too_few_steps_and_nan_are_reported():
    far = jnp.asarray([30.0, 5.0, -5.0])
    assert fit(_model(), DATA, start=far, num_steps=1).status == FitStatus.not_converged
    broken = _fit(_model(), DATA.at[1].set(jnp.nan))
    assert broken.status == FitStatus.not_finite


def test_fit_in_both_precisions(precision):
    cast = jax.tree.map(lambda x: x.astype(jnp.result_type(float)), (_model(), DATA))
    result = _fit(*cast)
    assert result.parameters.dtype == precision
    assert result.status == FitStatus.converged
    # Reference from Minuit, above; single precision keeps about four digits.
    wanted = _minuit_reference()
    assert np.allclose(
        result.parameters, wanted, atol=2e-3 if precision == "float32" else 1e-5
    )


def _minuit_reference():
    with jax.enable_x64(True):
        return np.asarray(_fit(_model(), DATA).parameters)


def test_what_is_left_to_the_minimum_is_rounding():
    # In standard deviations, of experiments of few events.
    counts = np.random.default_rng(4).poisson(expected_yields(_model(), START).rate / 4)
    few = jax.tree.map(lambda x: x / 4, _model())
    few = eqx.tree_at(lambda m: m.norm_width, few, jnp.asarray(0.1))
    for scale in (1.0, 0.5, 2.0):
        result = _fit(few, jnp.asarray(scale * counts))
        assert result.status == FitStatus.converged
        assert jnp.sqrt(2 * result.distance) < 1e-10


def test_single_precision_templates_are_fitted_in_double():
    single = jax.tree.map(lambda x: x.astype(jnp.float32), _model())
    result = fit(single, DATA.astype(jnp.float32))
    assert result.parameters.dtype == jnp.float64


def test_no_toys_of_constraints_that_are_no_data():
    likelihood = BinnedLikelihood(_model(), DATA)
    with pytest.raises(ValueError, match="cannot fluctuate from toy to toy"):
        likelihood.sample(jnp.zeros(3), key=jax.random.key(0))
