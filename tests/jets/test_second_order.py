"""Estimators of clustering gradients to second order, beside all histories."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffhep.estimators import (
    LeaveOneOut,
    NoBaseline,
    finite_differences,
    score_gradient,
    surrogate,
)
from diffhep.jets import enumerate_histories, history_log_prob, sample_history
from diffhep.jets._jets import jet_of_each
from diffhep.testing import check_unbiased


EVENTS, REPLICAS = 3000, 4
# Radius, power, sharpness, and the first momentum component of a constituent, in GeV.
POINT = (0.5, -1.0, 0.4)


def _settings(parameters):
    names = ("radius", "power", "sharpness")
    return dict(zip(names, parameters[:3], strict=True))


def _moved(parameters, momentum):
    return momentum.at[1, 0].add(parameters[3])


def _log_prob(parameters, history, momentum):
    mask = jnp.ones(momentum.shape[0], bool)
    moved = _moved(parameters, momentum)
    return history_log_prob(history, moved, mask, **_settings(parameters))


def _result(parameters, history, momentum):
    # The sum of squared jet momenta: depends on the outcome and on the momenta.
    moved = _moved(parameters, momentum)
    holder = jet_of_each(history, jnp.ones(momentum.shape[0], bool))
    jets = jnp.zeros_like(moved).at[holder].add(moved)
    return jnp.sum(jets[:, :2] ** 2) / 100


def _exact(parameters, momentum):
    def one(history):
        value = _result(parameters, history, momentum)
        return jnp.exp(_log_prob(parameters, history, momentum)) * value

    return jnp.sum(jax.vmap(one)(enumerate_histories(momentum.shape[0])))


def _estimate(baseline, parameters, momentum, key):
    mask = jnp.ones(momentum.shape[0], bool)

    def one(key):
        history, _, _ = sample_history(
            _moved(parameters, momentum), mask, **_settings(parameters), key=key
        )
        value = _result(parameters, history, momentum)
        return value, _log_prob(parameters, history, momentum)

    values, log_prob = jax.vmap(one)(jax.random.split(key, REPLICAS))
    return surrogate(values[None], log_prob[None], baseline=baseline)


def _derivatives(function):
    # Forward over forward: four parameters.
    slope = jax.jacfwd(function)
    return lambda *arguments: (slope(*arguments), jax.jacfwd(slope)(*arguments))


@pytest.fixture(scope="module")
def event(request, toys):
    rng = np.random.default_rng(request.param)
    momentum = jnp.asarray(toys.momenta(rng, (request.param,), num_axes=1))
    parameters = jnp.asarray([*POINT, 0.0])
    exact = jax.jit(_derivatives(_exact))(parameters, momentum)
    return momentum, parameters, exact


@pytest.mark.parametrize(
    ("event", "baseline"),
    [(3, NoBaseline()), (3, LeaveOneOut()), (4, LeaveOneOut())],
    indirect=["event"],
)
def test_surrogate_is_right_to_second_order(event, baseline):
    momentum, parameters, (gradient, hessian) = event
    each = _derivatives(functools.partial(_estimate, baseline))
    keys = jax.random.split(jax.random.key(11), EVENTS)
    found = jax.jit(jax.vmap(each, (None, None, 0)))(parameters, momentum, keys)
    check_unbiased(found[0], gradient)
    check_unbiased(found[1], hessian)
    if isinstance(baseline, LeaveOneOut):
        # There is something to find in the second order.
        error = np.std(found[1], axis=0) / EVENTS**0.5
        assert (np.abs(np.diagonal(hessian)) > 5 * np.diagonal(error)).sum() >= 2


@pytest.mark.parametrize("event", [3, 4], indirect=True)
def test_exact_hessian_is_the_slope_of_the_gradient(event):
    momentum, parameters, (_, hessian) = event
    gradient = jax.jit(jax.grad(_exact))
    step = 1e-4 * jnp.eye(4)
    for row in range(4):
        up, down, up2, down2 = (
            gradient(parameters + k * step[row], momentum) for k in (1, -1, 2, -2)
        )
        slope = (8 * (up - down) - (up2 - down2)) / (12 * 1e-4)
        # Relative to the largest: some are nearly zero.
        np.testing.assert_allclose(
            hessian[row], slope, atol=1e-7 * np.abs(hessian).max()
        )


@pytest.mark.parametrize("event", [3], indirect=True)
def test_rivals_agree_with_all_histories(event):
    momentum, parameters, (gradient, _) = event
    mask = jnp.ones(momentum.shape[0], bool)

    @jax.jit
    def draw(radius, key):
        settings = _settings(parameters) | {"radius": radius}
        history, _, score = sample_history(momentum, mask, **settings, key=key)
        return _result(parameters, history, momentum), score.radius

    keys = jax.random.split(jax.random.key(12), (EVENTS, REPLICAS))
    values, scores = jax.vmap(jax.vmap(draw, (None, 0)), (None, 0))(POINT[0], keys)
    by_score = score_gradient(values, scores)
    by_steps = finite_differences(
        lambda radius, keys: jax.vmap(lambda key: draw(radius, key)[0])(keys),
        parameters[0],
        keys,
        step=0.02,
    )
    for found in (by_score, by_steps):
        off = float(found.mean - gradient[0]) / float(found.standard_error)
        assert abs(off) < 4
        assert abs(gradient[0]) > 8 * float(found.standard_error)
