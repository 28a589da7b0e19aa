import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from diffhep.inference import (
    BinnedModel,
    expected_yields,
    interpolate,
    likelihood_change,
    negative_log_likelihood,
)
from diffhep.testing import check_gradient


def _model(*, floor=1e-6):
    return BinnedModel(
        jnp.asarray([1.0, 2.0, 4.0, 6.0]),
        jnp.asarray([0.9, 2.1, 4.3, 6.6]),
        jnp.asarray([1.1, 1.8, 3.9, 5.3]),
        jnp.asarray([80.0, 40.0, 12.0, 3.0]),
        jnp.asarray([84.0, 43.0, 12.6, 3.5]),
        jnp.asarray([77.0, 38.0, 11.1, 2.6]),
        jnp.asarray(0.1),
        floor=floor,
    )


_yields = jax.jit(expected_yields)


def _manual_rate(model, parameters):
    # Written from the HistFactory paper's coefficients, not from the code's.
    mu, norm, jes = (float(p) for p in parameters)

    def code4p(nominal, up, down):
        nominal, up, down = (np.asarray(x) for x in (nominal, up, down))
        if abs(jes) > 1:
            side = up - nominal if jes > 0 else nominal - down
            return nominal + jes * side
        s, a = (up - down) / 2, (up + down - 2 * nominal) / 16
        bend = jes * a * (15 + jes**2 * (-10 + jes**2 * 3))
        return nominal + jes * (s + bend)

    signal = code4p(model.signal, model.signal_up, model.signal_down)
    background = code4p(model.background, model.background_up, model.background_down)
    return mu * signal + background * (1 + float(model.norm_width)) ** norm


@pytest.mark.parametrize(
    "parameters",
    [(1.0, 0.0, 0.0), (0.3, 0.7, -0.4), (2.0, -1.5, 1.8), (1.0, 0.1, -2.0)],
)
def test_likelihood_is_the_written_formula(parameters):
    model, parameters = _model(), jnp.asarray(parameters)
    data = jnp.asarray([85.0, 41.0, 17.0, 8.0])
    rate = _manual_rate(model, parameters)
    wanted = -stats.poisson.logpmf(np.asarray(data), rate + model.floor).sum()
    wanted -= stats.norm.logpdf(np.asarray(parameters[1:])).sum()
    assert jnp.allclose(
        negative_log_likelihood(model, parameters, data), wanted, rtol=1e-12
    )


def test_interpolation_is_twice_differentiable():
    arrays = [jnp.asarray([x]) for x in (10.0, 13.0, 8.5)]

    def at(shift, order=0):
        return interpolate(*arrays, jnp.asarray(shift))[order][0]

    assert at(1.0) == 13.0
    assert at(-1.0) == 8.5
    assert at(0.0) == 10.0
    for order in range(3):
        for join in (-1.0, 1.0):
            below, above = at(join - 1e-9, order), at(join + 1e-9, order)
            assert jnp.allclose(below, above, atol=1e-6)


def test_written_out_derivatives_are_those_of_the_yields():
    # Inside, outside, and where an extrapolation is negative.
    for point in ((0.7, 0.4, -0.3), (1.2, -0.8, 1.7), (-9.0, 0.3, 0.2)):
        parameters = jnp.asarray(point)
        yields = _yields(_model(), parameters)
        first = jax.jacfwd(lambda p: _yields(_model(), p).rate)(parameters)
        second = jax.jacfwd(lambda p: _yields(_model(), p).first)(parameters)
        assert jnp.allclose(yields.first, first.T, rtol=1e-10)
        assert jnp.allclose(
            yields.second, jnp.moveaxis(second, 2, 0), rtol=1e-10, atol=1e-12
        )
    assert expected_yields(_model(), parameters).rate[3] < _model().floor


def test_yields_stay_positive_where_an_extrapolation_is_negative():
    model = _model()
    far = jnp.asarray([-50.0, 0.0, 0.0])
    yields = _yields(model, far)
    assert jnp.all(yields.rate > 0)
    assert all(jnp.all(jnp.isfinite(array)) for array in yields)


def test_change_is_the_difference_of_likelihoods():
    model, data = _model(), jnp.asarray([85.0, 41.0, 17.0, 0.0])
    new, old = jnp.asarray([0.2, 0.5, -0.3]), jnp.asarray([1.1, -0.2, 0.4])
    wanted = negative_log_likelihood(model, new, data) - negative_log_likelihood(
        model, old, data
    )
    assert jnp.allclose(likelihood_change(model, new, old, data), wanted, rtol=1e-10)


def test_gradient_to_templates_data_and_parameters():
    data = jnp.asarray([85.0, 41.0, 17.0, 8.0])
    parameters = jnp.asarray([0.7, 0.4, -0.3])
    check_gradient(negative_log_likelihood, (_model(), parameters, data), rtol=1e-7)
