"""Baselines, surrogates of any order and finite differences, on a choice of four."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffhep.estimators import (
    BatchMean,
    LeaveOneOut,
    NoBaseline,
    finite_differences,
    leave_one_out,
    score_gradient,
    score_term,
    surrogate,
)
from diffhep.event import Event
from diffhep.pipeline import Pipeline, Replicate
from diffhep.testing import check_unbiased


OFFSET = jnp.array([0.3, -0.5, 1.0, 0.1])
VALUES = jnp.array([1.0, 4.0, -2.0, 0.5])
POINT = jnp.array([0.4, -0.2])
GROUPS, REPLICAS = 4000, 4


def _logits(parameters):
    return OFFSET + jnp.stack(
        [parameters[0] ** 2, parameters[1], jnp.sin(parameters[0]), parameters[1] ** 2]
    )


def _result(parameters, choice):
    # Along the path, too, and with an offset that makes noise without a baseline.
    return VALUES[choice] * parameters[0] + 10.0


def _exact(parameters):
    choices = jnp.arange(4)
    probability = jax.nn.softmax(_logits(parameters))
    return jnp.sum(probability * jax.vmap(_result, (None, 0))(parameters, choices))


def _draw(parameters, key, shape):
    logits = jax.lax.stop_gradient(_logits(parameters))
    choice = jax.random.categorical(key, logits, shape=shape)
    return choice, jax.nn.log_softmax(_logits(parameters))[choice]


@functools.partial(jax.jit, static_argnums=0)
def _surrogate_derivatives(estimate):
    keys = jax.random.split(jax.random.key(4), GROUPS)
    each = jax.value_and_grad(estimate), jax.hessian(estimate)
    return [jax.vmap(function, (None, 0))(POINT, keys) for function in each]


def _with_surrogate(baseline, parameters, key):
    # A group of two events, independent of all others.
    choice, log_prob = _draw(parameters, key, (2, REPLICAS))
    return surrogate(_result(parameters, choice), log_prob, baseline=baseline)


def _with_terms(parameters, key):
    choice, log_prob = _draw(parameters, key, (REPLICAS,))
    terms = leave_one_out(score_term(log_prob))
    return jnp.mean(jnp.exp(terms) * _result(parameters, choice))


@pytest.mark.parametrize("baseline", [LeaveOneOut(), NoBaseline()])
def test_surrogate_is_right_to_second_order(baseline):
    estimate = functools.partial(_with_surrogate, baseline)
    (value, gradient), hessian = _surrogate_derivatives(estimate)
    check_unbiased(value, _exact(POINT))
    check_unbiased(gradient, jax.grad(_exact)(POINT))
    check_unbiased(hessian, jax.hessian(_exact)(POINT))


def test_leave_one_out_terms_are_right_to_second_order():
    (_, gradient), hessian = _surrogate_derivatives(_with_terms)
    check_unbiased(gradient, jax.grad(_exact)(POINT))
    check_unbiased(hessian, jax.hessian(_exact)(POINT))
    # Less noise in the second order, too: on the diagonal the offset counts, and the
    # plain surrogate has twice the draws.
    plain = functools.partial(_with_surrogate, NoBaseline())
    _, noisy = _surrogate_derivatives(plain)
    ratio = np.diagonal(np.std(noisy, axis=0) / np.std(hessian, axis=0))
    assert (ratio > 3).all()


def _scores(parameters, choice):
    slope = jax.jacobian(lambda p: jax.nn.log_softmax(_logits(p)))(parameters)
    return slope[choice]


def _first_order_without_path(parameters):
    frozen = jax.lax.stop_gradient(parameters)
    results = jax.vmap(_result, (None, 0))(frozen, jnp.arange(4))
    return jnp.sum(jax.nn.softmax(_logits(parameters)) * results)


def test_score_gradient_is_unbiased_with_its_error():
    choice, _ = _draw(POINT, jax.random.key(5), (GROUPS, REPLICAS))
    values, scores = _result(POINT, choice), _scores(POINT, choice)
    exact = jax.grad(_first_order_without_path)(POINT)
    errors = {}
    for baseline in (LeaveOneOut(), BatchMean(), NoBaseline()):
        found = score_gradient(values, {"p": scores}, baseline=baseline)
        assert found.contributions["p"].shape == (GROUPS, REPLICAS, 2)
        off = np.abs(found.mean["p"] - exact) / found.standard_error["p"]
        assert (off < 4).all()
        errors[type(baseline)] = found.standard_error["p"]
    # The offset costs the plain score its precision; all events are alike here.
    assert (2 * errors[LeaveOneOut] < errors[NoBaseline]).all()
    assert (2 * errors[BatchMean] < errors[NoBaseline]).all()
    single = score_gradient(values[:1], scores[:1])
    assert np.isnan(single.standard_error).all()


def test_standard_error_is_the_spread_of_repetitions():
    def estimate(key):
        choice, _ = _draw(POINT, key, (20, REPLICAS))
        found = score_gradient(_result(POINT, choice), _scores(POINT, choice))
        return found.mean, found.standard_error

    means, errors = jax.vmap(estimate)(jax.random.split(jax.random.key(6), 500))
    spread = np.std(means, axis=0)
    np.testing.assert_allclose(np.mean(errors**2, axis=0) ** 0.5, spread, rtol=0.15)


def test_baselines():
    values = jnp.array([[1.0, 2.0, 6.0], [0.0, 3.0, 0.0]])
    others = [[4.0, 3.5, 1.5], [1.5, 0.0, 1.5]]
    np.testing.assert_allclose(LeaveOneOut().of(values), others, rtol=1e-15)
    np.testing.assert_allclose(BatchMean().of(values), np.full((2, 3), 2.0))
    np.testing.assert_array_equal(NoBaseline().of(values), 0.0)
    with pytest.raises(ValueError, match="draw more, or use `BatchMean`"):
        LeaveOneOut().of(values[:, :1])
    with pytest.raises(ValueError, match="least 2 replicas"):
        surrogate(values[:, :1], values[:, :1])


def test_batch_mean_is_what_normalisation_does():
    choice, _ = _draw(POINT, jax.random.key(7), (30, REPLICAS))
    values, scores = _result(POINT, choice), _scores(POINT, choice)

    def mean(parameters):
        log_prob = jax.nn.log_softmax(_logits(parameters))[choice]
        weight = jax.nn.softmax(jnp.ravel(score_term(log_prob)))
        return jnp.sum(weight * jnp.ravel(values))

    found = score_gradient(values, scores, baseline=BatchMean())
    np.testing.assert_allclose(found.mean, jax.grad(mean)(POINT), rtol=1e-12)


def test_replicate_takes_a_baseline():
    inner = Pipeline([], inputs=["label"])
    event = Event(label=jnp.asarray(1.0), log_weight=jnp.asarray(0.7))
    for baseline, num in ((NoBaseline(), 1), (NoBaseline(), 3), (LeaveOneOut(), 2)):
        out = Replicate(inner, num, baseline)(event, key=jax.random.key(0))
        total = jax.scipy.special.logsumexp(out.log_weight)
        np.testing.assert_allclose(total, 0.7, rtol=1e-12)
    with pytest.raises(ValueError, match="`LeaveOneOut` needs at least 2"):
        Replicate(inner, 1)


def test_finite_differences_with_common_random_numbers():
    point = {"a": POINT[0], "b": POINT[1:]}

    def value(point, key):
        parameters = jnp.concatenate([point["a"][None], point["b"]])
        choice = jax.random.categorical(key, _logits(parameters), shape=(REPLICAS,))
        return _result(parameters, choice)

    keys = jax.random.split(jax.random.key(8), GROUPS)
    exact = jax.grad(_exact)(POINT)
    step = {"a": 0.1, "b": jnp.array([0.2])}
    found = finite_differences(value, point, keys, step=step)
    assert found.contributions["a"].shape == (GROUPS, REPLICAS)
    assert found.contributions["b"].shape == (GROUPS, REPLICAS, 1)
    assert abs(found.mean["a"] - exact[0]) < 4 * found.standard_error["a"]
    assert abs(found.mean["b"][0] - exact[1]) < 4 * found.standard_error["b"][0]
    with pytest.raises(ValueError, match="needs a positive one"):
        finite_differences(value, point, keys, step=0.0)


def test_finite_differences_are_biased_by_their_step():
    # A step has no random number to blur it: the bias is the third derivative's.
    def cubic(x, draw):
        return x**3 + draw

    draws = jnp.array([0.0, 1.0])
    found = finite_differences(cubic, jnp.asarray(2.0), draws, step=0.1)
    np.testing.assert_allclose(found.mean, 12.0 + 0.1**2, rtol=1e-12)
    np.testing.assert_allclose(found.standard_error, 0.0, atol=1e-12)
