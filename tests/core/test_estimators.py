import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffhep.estimators import (
    Detached,
    Enumerate,
    Gradient,
    Recorded,
    Score,
    leave_one_out,
    score_term,
    with_score,
)
from diffhep.testing import check_gradient, check_unbiased


LOGITS = jnp.array([0.3, -0.5, 1.0, 0.1])
VALUES = jnp.array([1.0, 4.0, -2.0, 0.5])
NUM = 20_000


def _function(one_hot):
    return jnp.sum(one_hot * VALUES) ** 2


def _exact(logits):
    return jnp.sum(jax.nn.softmax(logits) * VALUES**2)


def _gradients(estimator, logits, num=NUM):
    def estimate(logits, key):
        return estimator.expect(_function, logits, key=key)

    keys = jax.random.split(jax.random.key(0), num)
    each = jax.vmap(jax.value_and_grad(estimate), in_axes=(None, 0))
    return jax.jit(each)(logits, keys)


def test_enumerate_is_exact():
    key = jax.random.key(0)

    def estimate(logits):
        return Enumerate().expect(_function, logits, key=key)

    np.testing.assert_allclose(estimate(LOGITS), _exact(LOGITS), rtol=1e-14)
    check_gradient(estimate, (LOGITS,), rtol=1e-8)
    assert Enumerate().gradient is Gradient.EXACT


def test_score_is_unbiased():
    values, gradients = _gradients(Score(), LOGITS)
    check_unbiased(values, _exact(LOGITS))
    check_unbiased(gradients, jax.grad(_exact)(LOGITS))
    assert Score().gradient is Gradient.UNBIASED


def test_score_second_derivative_is_unbiased():
    # The DiCE factor is right to any order.
    def estimate(shift, key):
        return Score().expect(_function, LOGITS.at[0].add(shift), key=key)

    keys = jax.random.split(jax.random.key(1), NUM)
    each = jax.vmap(jax.grad(jax.grad(estimate)), in_axes=(None, 0))
    exact = jax.grad(jax.grad(lambda s: _exact(LOGITS.at[0].add(s))))
    check_unbiased(jax.jit(each)(0.0, keys), exact(0.0))


def test_detached_is_biased_and_says_so():
    values, gradients = _gradients(Detached(), LOGITS)
    check_unbiased(values, _exact(LOGITS))
    np.testing.assert_array_equal(gradients, 0.0)
    with pytest.raises(AssertionError, match="standard errors"):
        check_unbiased(gradients, jax.grad(_exact)(LOGITS))
    assert Detached().gradient is Gradient.BIASED


@pytest.mark.parametrize("estimator", [Score(), Enumerate(), Detached()])
def test_forbidden_options_do_not_count(estimator):
    logits = LOGITS.at[1].set(-jnp.inf)

    def hostile(one_hot):
        # Nonsense where the forbidden option is tried.
        return jnp.where(one_hot[1] > 0, jnp.nan, jnp.sum(one_hot * VALUES))

    def estimate(logits, key):
        return estimator.expect(hostile, logits, key=key)

    keys = jax.random.split(jax.random.key(2), 4000)
    each = jax.vmap(jax.value_and_grad(estimate), in_axes=(None, 0))
    values, gradients = jax.jit(each)(logits, keys)
    assert np.isfinite(values).all()
    assert np.isfinite(gradients).all()
    np.testing.assert_array_equal(gradients[:, 1], 0.0)
    check_unbiased(values, jnp.sum(jax.nn.softmax(logits) * VALUES))


def test_recorded_keeps_the_outcome():
    recorded = Recorded()
    assert recorded.outcome(lambda: 1, 2) == 2
    assert float(recorded.term(jnp.asarray(-1.0))) == 0.0
    assert float(jax.grad(recorded.term)(-1.0)) == 0.0
    assert recorded.gradient is Gradient.BIASED
    with pytest.raises(ValueError, match="Run the pipeline once"):
        recorded.outcome(lambda: 1, None)
    with pytest.raises(ValueError, match="use `Score` or `Enumerate`"):
        recorded.expect(_function, LOGITS, key=jax.random.key(0))


def test_samplers_draw():
    for sampler in (Score(), Detached()):
        assert sampler.outcome(lambda: "drawn", "recorded") == "drawn"
    assert float(jax.grad(Score().term)(-1.0)) == 1.0
    assert float(Score().term(jnp.asarray(-1.0))) == 0.0


def test_score_term_and_with_score():
    score = {"a": jnp.array([1.0, 2.0]), "b": jnp.asarray(3.0)}
    inputs = {"a": jnp.array([5.0, 6.0]), "b": jnp.asarray(7.0)}

    def value(inputs):
        return with_score(jnp.asarray(-4.0), inputs, score)

    assert float(value(inputs)) == -4.0
    gradient = jax.grad(value)(inputs)
    np.testing.assert_array_equal(gradient["a"], score["a"])
    np.testing.assert_array_equal(gradient["b"], score["b"])
    assert float(score_term(jnp.asarray(2.0))) == 0.0


def test_leave_one_out_is_unbiased_and_quieter():
    num = 4

    def estimate(logits, key, centre):
        draws = jax.random.categorical(key, logits, shape=(num,))
        draws = jax.lax.stop_gradient(draws)
        terms = score_term(jax.nn.log_softmax(logits)[draws])
        terms = leave_one_out(terms) if centre else terms
        return jnp.mean(jnp.exp(terms) * (VALUES[draws] ** 2 + 10.0))

    keys = jax.random.split(jax.random.key(3), NUM // num)
    each = jax.vmap(jax.grad(estimate), in_axes=(None, 0, None))
    centred, plain = (each(LOGITS, keys, c) for c in (True, False))
    exact = jax.grad(_exact)(LOGITS)
    check_unbiased(centred, exact)
    check_unbiased(plain, exact)
    assert (np.std(centred, axis=0) < 0.7 * np.std(plain, axis=0)).all()


def test_leave_one_out_keeps_values_and_wants_two():
    terms = jnp.array([0.5, -0.25])
    np.testing.assert_array_equal(leave_one_out(terms), terms)
    with pytest.raises(ValueError, match="at least 2 replicas"):
        leave_one_out(terms[:1])
