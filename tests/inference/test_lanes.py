"""Fits and test statistics of toys in lanes, of any likelihood."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffhep.inference import (
    BoundedLimitTest,
    FunctionLikelihood,
    Measurement,
    fit_toys,
    profile_scan,
    toy_hypothesis_test,
)
from diffhep.inference._toys import search_toys, toy_statistics


TEMPLATES = jnp.asarray([[3.0, 5.0, 2.0, 0.5], [20.0, 11.0, 6.0, 3.0]])


def _value(parameters, data):
    templates, events, auxiliary = data
    shape = 1 + 0.1 * parameters[1] * jnp.asarray([1.0, 0.3, -0.5, -1.0])
    rate = parameters[0] * templates[0] + templates[1] * shape
    main = jnp.sum(rate - events * jnp.log(rate))
    return main + (parameters[1] - auxiliary) ** 2 / 2


def _draw(parameters, data, key):
    templates, *_ = data
    first, second = jax.random.split(key)
    shape = 1 + 0.1 * parameters[1] * jnp.asarray([1.0, 0.3, -0.5, -1.0])
    rate = parameters[0] * templates[0] + templates[1] * shape
    events = jax.random.poisson(first, rate).astype(rate.dtype)
    return templates, events, parameters[1] + jax.random.normal(second)


@pytest.fixture(scope="module", name="measurement")
def _measurement():
    data = (TEMPLATES, jnp.sum(TEMPLATES, axis=0), jnp.asarray(0.0))
    likelihood = FunctionLikelihood(_value, data, draw=_draw)
    lower = jnp.asarray([0.0, -5.0])
    return Measurement(likelihood, jnp.asarray([1.0, 0.0]), lower, -lower + 9, None, 0)


@pytest.mark.parametrize("size", [1, 3, 64])
def test_statistics_in_lanes_are_those_of_one_by_one(measurement, size):
    def values(number, size):
        return eqx.filter_jit(toy_statistics)(
            measurement,
            jnp.asarray(0.8),
            jnp.asarray([[0.8, 0.2], [0.0, -0.1]]),
            statistic=BoundedLimitTest(),
            num_toys=number,
            num_steps=100,
            batch_size=size,
            key=jax.random.key(1),
        )

    # 27 fill no round of any of these sizes.
    alone, together = values(27, None), values(27, size)
    assert together.shape == (2, 27)
    assert np.all(np.isfinite(alone))
    np.testing.assert_allclose(together, alone, rtol=1e-9, atol=1e-11)


def test_tests_in_lanes_have_no_derivative(measurement):
    def cls(strength):
        found = toy_hypothesis_test(
            measurement, strength, num_toys=20, batch_size=4, key=jax.random.key(0)
        )
        return found.cls + found.statistic

    assert jax.jit(jax.grad(cls))(jnp.asarray(1.0)) == 0


def test_steps_of_fits_are_shared(measurement):
    # Of one batch: the sum of the steps, and not the longest of each eight.
    keys = jax.random.split(jax.random.key(2), 200)
    truth = jnp.asarray([0.5, 0.0])
    sample = lambda key: measurement.likelihood.sample(truth, key=key).data  # noqa: E731
    data = jax.vmap(sample)(keys)

    found = eqx.filter_jit(search_toys)(measurement, data, 8)
    steps = np.asarray(found.states.index)
    assert found.num_iterations <= np.sum(steps) / 8 + np.max(steps)
    lockstep = np.sum(np.max(steps.reshape(-1, 8), axis=1))
    assert found.num_iterations < 0.9 * lockstep
    alone = eqx.filter_jit(fit_toys)(measurement, data)
    np.testing.assert_allclose(found.states.point, alone.parameters, atol=1e-9)


def test_what_toys_share_is_not_copied(measurement):
    # The shapes of everything that the compiled program computes.
    number = 37

    def statistics(measurement):
        return toy_statistics(
            measurement,
            jnp.asarray(0.8),
            jnp.asarray([[0.8, 0.2]]),
            statistic=BoundedLimitTest(),
            num_toys=number,
            num_steps=100,
            batch_size=8,
            key=jax.random.key(1),
        )

    text = str(jax.make_jaxpr(statistics)(measurement))
    assert f"f64[{number},4]" in text
    assert f"f64[{number},2,4]" not in text


def test_scan_in_lanes_is_that_of_one_by_one(measurement):
    strengths = jnp.linspace(0.0, 3.0, 7)
    scan = eqx.filter_jit(profile_scan)
    alone = scan(measurement, strengths)
    together = scan(measurement, strengths, batch_size=3)
    assert jnp.all(jnp.isfinite(alone.deviance))
    np.testing.assert_allclose(together.deviance, alone.deviance, atol=1e-11)
    np.testing.assert_array_equal(together.best, alone.best)

    def total(measurement, size):
        return jnp.sum(profile_scan(measurement, strengths, batch_size=size).deviance)

    one, other = (
        eqx.filter_jit(eqx.filter_grad(lambda m, size=size: total(m, size)))(
            measurement
        )
        for size in (None, 3)
    )
    for wanted, found in zip(*map(jax.tree.leaves, (one, other)), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-9)


def test_toys_of_numpy_and_no_toys(measurement):
    rng = np.random.default_rng(2)
    events = rng.poisson(10.0, (5, 4)).astype(float)
    templates = np.repeat(np.asarray(TEMPLATES)[None], 5, axis=0)
    data = (templates, events, rng.normal(size=5))
    found = eqx.filter_jit(fit_toys)(measurement, data, batch_size=2)
    alone = eqx.filter_jit(fit_toys)(measurement, data)
    np.testing.assert_allclose(found.parameters, alone.parameters, atol=1e-9)
    none = jax.tree.map(lambda x: x[:0], data)
    for size in (None, 2):
        empty = fit_toys(measurement, none, batch_size=size)
        assert empty.parameters.shape == (0, 2)


@pytest.mark.parametrize("size", [0, -3])
def test_no_batch_is_an_error(measurement, size):
    strength = jnp.asarray(1.0)
    data = jax.tree.map(lambda x: x[None], measurement.likelihood.data)
    for call in (
        lambda: fit_toys(measurement, data, batch_size=size),
        lambda: profile_scan(measurement, strength[None], batch_size=size),
        lambda: toy_hypothesis_test(
            measurement, strength, num_toys=2, batch_size=size, key=jax.random.key(0)
        ),
    ):
        with pytest.raises(ValueError, match=f"`batch_size` is {size}, but"):
            call()
