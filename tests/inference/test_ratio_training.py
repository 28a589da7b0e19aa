"""Density ratios of normal distributions, whose logarithms are known, learnt."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import optax
import pytest
from jaxtyping import Array

from diffhep.inference import (
    BinaryRatioLoss,
    EnsembleLoss,
    FunctionLikelihood,
    NetworkRatio,
    Polynomial,
    PolynomialRatio,
    RatioEnsemble,
    SoftmaxRatio,
    SoftmaxRatioLoss,
    Standardisation,
    StoredEvents,
    VariedEvents,
    fit_likelihood,
    mean_ratio,
)
from diffhep.optimise import train
from diffhep.testing import check_gradient


KEY = jax.random.key(0)
QUADRATIC = Polynomial((0.0,), (0.5,))
NORMAL = jnp.asarray(np.random.default_rng(0).normal(size=(40_000, 1)))
POINTS = jnp.linspace(-1.5, 1.5, 7)[:, None]


def _prior(key):
    return jax.random.uniform(key, (1,), minval=-1.0, maxval=1.0)


def _shift(x, parameters):
    return x + parameters


def _exact(x, mean):
    # log N(x; mean, 1) / N(x; 0, 1)
    return mean * x[..., 0] - mean**2 / 2


def _shifted_loss(batch_size=1000):
    numerator = VariedEvents(StoredEvents(NORMAL[::2]), _prior, _shift)
    return BinaryRatioLoss(numerator, StoredEvents(NORMAL[1::2]), batch_size)


def _train(loss, ratio, *, rate=5e-3, num_steps=400):
    optimiser = optax.adam(optax.cosine_decay_schedule(rate, num_steps))
    key = jax.random.key(5)
    return train(loss, ratio, optimiser=optimiser, num_steps=num_steps, key=key).params


def _evaluate(ratio, x, *parameters):
    return jax.vmap(ratio, (0, None))(x, jnp.asarray(parameters))


def _small(key):
    return PolynomialRatio.init(NORMAL, QUADRATIC, width=16, depth=1, key=key)


@pytest.fixture(scope="module")
def learnt():
    return _train(_shifted_loss(), _small(jax.random.key(0)))


@pytest.mark.parametrize("mean", [-0.8, 0.4, 0.9])
def test_polynomial_ratio_is_learnt(learnt, mean):
    found = _evaluate(learnt, POINTS, mean)
    # 40,000 events know a slope to 0.01, here at up to 1.5.
    np.testing.assert_allclose(found, _exact(POINTS, mean), atol=0.06)


def test_polynomial_ratio_is_one_at_the_centre(learnt):
    np.testing.assert_array_equal(_evaluate(learnt, POINTS, 0.0), 0.0)
    terms = jax.vmap(learnt.terms)(POINTS)
    whole = learnt.polynomial(terms, jnp.asarray([0.7]))
    np.testing.assert_allclose(whole, _evaluate(learnt, POINTS, 0.7), rtol=1e-12)


def test_fit_of_learnt_ratios(learnt):
    # The maximum of the learnt likelihood is where that of the exact one is: the mean.
    x = jnp.asarray(np.random.default_rng(1).normal(0.5, 1.0, (400, 1)))
    data = jax.vmap(learnt.terms)(x)
    likelihood = FunctionLikelihood(_polynomial_likelihood, data)
    result = fit_likelihood(likelihood, jnp.asarray([0.1]), throw=True)
    # The error of the mean is 0.05; ours is that of the training.
    np.testing.assert_allclose(result.parameters[0], jnp.mean(x), atol=0.02)
    np.testing.assert_allclose(result.covariance[0, 0], 1 / 400, rtol=0.1)


def _polynomial_likelihood(parameters, terms):
    return -jnp.sum(QUADRATIC(terms, parameters))


def test_network_with_parameters_as_inputs():
    parameters = jnp.linspace(-1.0, 1.0, NORMAL.shape[0])[:, None]
    ratio = NetworkRatio.init(
        NORMAL, parameters, width=16, depth=2, key=jax.random.key(1)
    )
    ratio = _train(_shifted_loss(), ratio)
    for mean in (-0.7, 0.0, 0.7):
        found = _evaluate(ratio, POINTS, mean)
        assert found.shape == (7,)
        assert found.dtype == POINTS.dtype
        np.testing.assert_allclose(found, _exact(POINTS, mean), atol=0.12)


def test_weights_and_a_grid_of_parameters():
    # Samples at three means, of different sizes and too wide, with many events of
    # negative weight; weights make them N(mean, 1), and the reference N(0, 1).
    rng = np.random.default_rng(3)
    means = np.repeat([-0.8, 0.2, 0.8], [60_000, 30_000, 90_000])
    wide = rng.normal(0.0, 1.4, len(means))
    sign = np.where(rng.uniform(size=len(means)) < 0.1, -1.0, 1.0)
    numerator = StoredEvents(
        jnp.asarray(means + wide)[:, None],
        jnp.asarray(means)[:, None],
        jnp.asarray(7.0 * sign * _narrow(wide, 1.4)),
    )
    wide = rng.normal(0.0, 1.5, 60_000)
    reference = StoredEvents(
        jnp.asarray(wide)[:, None], weight=jnp.asarray(_narrow(wide, 1.5))
    )
    loss = BinaryRatioLoss(numerator, reference, 2000)
    ratio = _train(loss, _small(jax.random.key(2)), num_steps=600)
    for mean in (-0.8, 0.2, 0.8):
        found = _evaluate(ratio, POINTS, mean)
        # Without the weights of the numerator this is off by up to 1.
        np.testing.assert_allclose(found, _exact(POINTS, mean), atol=0.1)


def _narrow(x, width):
    # Weights that turn N(0, width) into N(0, 1).
    return np.exp(-(x**2) / 2 + x**2 / 2 / width**2)


def test_softmax_of_three_samples():
    means = (-1.0, 0.0, 1.0)
    samples = tuple(StoredEvents(NORMAL + mean) for mean in means)
    network = NetworkRatio.init(
        NORMAL, width=16, depth=1, outputs=3, key=jax.random.key(3)
    )
    loss = SoftmaxRatioLoss(samples, 1000)
    ratio = _train(loss, SoftmaxRatio(network))
    found = _evaluate(ratio, POINTS)
    logs = jnp.stack([_exact(POINTS, mean) for mean in means], axis=1)
    exact = logs - mean_ratio(logs.T)[:, None]
    np.testing.assert_allclose(found, exact, atol=0.1)
    np.testing.assert_allclose(jnp.mean(jnp.exp(found), axis=1), 1.0, rtol=1e-12)


def test_ensemble_trains_each_member_as_alone():
    loss = _shifted_loss(100)
    ensemble = RatioEnsemble.init(_small, num=2, key=jax.random.key(4))
    assert ensemble.size == 2
    keys = jax.random.split(jax.random.key(6), 2)

    def member(k):
        return jax.tree.map(lambda x: x[k] if eqx.is_array(x) else x, ensemble.members)

    together = eqx.filter_jit(eqx.filter_value_and_grad(EnsembleLoss(loss)))
    value, gradient = together(ensemble, jax.random.key(6))
    one = eqx.filter_jit(eqx.filter_value_and_grad(loss))
    alone = [one(member(k), keys[k]) for k in range(2)]
    np.testing.assert_allclose(value, sum(x for x, _ in alone), rtol=1e-6)
    for k in range(2):
        ours = jax.tree.map(lambda x, k=k: x[k], gradient.members)
        pairs = zip(*map(jax.tree.leaves, (ours, alone[k][1])), strict=True)
        for found, wanted in pairs:
            np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-7)
    each = jnp.stack([_evaluate(member(k), POINTS, 0.5) for k in range(2)])
    np.testing.assert_allclose(
        _evaluate(ensemble, POINTS, 0.5), mean_ratio(each), rtol=1e-6
    )
    assert jnp.max(jnp.abs(each[0] - each[1])) > 1e-3


def test_loss_at_the_exact_ratio():
    # Against the integral: log 2 minus the divergence of Jensen and Shannon.
    mean = 0.8
    numerator = StoredEvents(NORMAL + mean, jnp.full_like(NORMAL, mean))
    loss = BinaryRatioLoss(numerator, StoredEvents(NORMAL), 200_000)
    exact = lambda x, parameters: _exact(x, parameters[0])  # noqa: E731
    grid = np.linspace(-9.0, 9.0, 4001)
    below = np.exp(-(grid**2) / 2) / np.sqrt(2 * np.pi)
    above = np.exp(-((grid - mean) ** 2) / 2) / np.sqrt(2 * np.pi)
    wanted = above * np.log1p(below / above) + below * np.log1p(above / below)
    wanted = np.sum(wanted) * (grid[1] - grid[0]) / 2
    found = loss(exact, jax.random.key(7))
    # Of a spread of 0.5 and 40,000 different events of each.
    assert abs(found - wanted) < 4 * 0.5 / 80_000**0.5
    none = lambda x, parameters: 0 * x[0]  # noqa: E731
    np.testing.assert_allclose(loss(none, jax.random.key(7)), np.log(2.0), rtol=1e-12)


def test_gradients():
    loss = _shifted_loss(20)
    network = eqx.nn.MLP(1, 2, 4, 1, jax.nn.silu, key=jax.random.key(8))
    ratio = PolynomialRatio(network, Standardisation.of(NORMAL), QUADRATIC)
    arrays, static = eqx.partition(ratio, eqx.is_inexact_array)

    def value(arrays, events):
        there = eqx.tree_at(lambda x: x.numerator.events.features, loss, events)
        return there(eqx.combine(arrays, static), jax.random.key(9))

    check_gradient(value, (arrays, NORMAL[:50]))


def test_polynomial():
    polynomial = Polynomial((1.0, -1.0), (2.0, 0.5), degree=3)
    assert polynomial.monomials[:5] == ((0,), (1,), (0, 0), (0, 1), (1, 1))
    assert len(polynomial.monomials) == 9
    terms = jnp.arange(1.0, 10.0)
    a, b = 0.25, 3.0
    powers = [a, b, a * a, a * b, b * b, a**3, a * a * b, a * b * b, b**3]
    found = polynomial(terms, jnp.asarray([1.5, 0.5]))
    np.testing.assert_allclose(found, np.dot(terms, powers), rtol=1e-12)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: StoredEvents(jnp.zeros((0, 1))), "at least one"),
        (lambda: _shifted_loss(0), "`batch_size` is 0"),
        (
            lambda: StoredEvents(NORMAL[:2], weight=jnp.asarray([1.0, -1.0])),
            "add up to 0.0",
        ),
        (
            lambda: StoredEvents(NORMAL[:2], weight=jnp.asarray([1.0, jnp.nan])),
            "add up to nan",
        ),
        (lambda: RatioEnsemble.of([]), "0 structures"),
        (
            lambda: FunctionLikelihood(_polynomial_likelihood, (_small(KEY), NORMAL)),
            "is a function, but the data",
        ),
        (lambda: SoftmaxRatioLoss((StoredEvents(NORMAL),), 10), "There are 1 samples"),
        (lambda: Polynomial((0.0,), (1.0,), degree=0), "The degree is 0"),
        (lambda: Polynomial((0.0,), (1.0, 1.0)), "2 widths"),
        (lambda: Polynomial((0.0,), (0.0,)), "does not change"),
        (
            lambda: Standardisation.of(jnp.asarray([[1.0, jnp.nan], [1.0, 2.0]])),
            "Input 1 has values that are not finite",
        ),
        (
            lambda: _shifted_loss(10)(lambda x, p: jnp.zeros(2), jax.random.key(0)),
            r"shape \(2,\), but there are 1 ratios",
        ),
    ],
)
def test_errors(make, match):
    with pytest.raises(ValueError, match=match):
        make()


def test_shapes_without_their_check(monkeypatch):
    # Users may run without what the tests switch on.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    column = jnp.zeros((3, 1))
    ratio = NetworkRatio.init(NORMAL, NORMAL, width=4, key=KEY)
    softmax = SoftmaxRatioLoss((StoredEvents(column),) * 2, 10)
    narrow = VariedEvents(StoredEvents(column), lambda key: jnp.asarray(0.0), _shift)
    for make, match in (
        (lambda: StoredEvents(column, jnp.zeros((2, 1))), r"\(3, 1\), \(2, 1\), but"),
        (lambda: StoredEvents(column, weight=column), "`weight` has the shape"),
        (lambda: StoredEvents(column, jnp.zeros(3)), "`parameters` has the shape"),
        (lambda: narrow.draw(2, key=KEY), "write `x\\[None\\]`"),
        (lambda: Standardisation.of(jnp.zeros(3)), "for a single feature"),
        (lambda: ratio(jnp.zeros(1), jnp.zeros(0)), r"shape \(1,\), but .* for 2"),
        (lambda: QUADRATIC(jnp.zeros(2), jnp.zeros(2)), "of 1 parameters"),
        (lambda: softmax(ratio, KEY), r"train `SoftmaxRatio\(network\)`"),
    ):
        with pytest.raises(ValueError, match=match):
            make()


def test_constant_columns_stay_small():
    columns = jnp.stack([jnp.full(1000, 0.1), jnp.arange(1000.0)], axis=1)
    assert Standardisation.of(columns).deviation[0] == 1.0


def test_events_without_weight_may_hold_anything():
    weight = jnp.ones(100).at[3].set(0.0)
    features = NORMAL[:100].at[3].set(jnp.nan)
    loss = BinaryRatioLoss(
        StoredEvents(features, weight=weight), StoredEvents(NORMAL), 500
    )
    ratio = NetworkRatio.init(NORMAL, width=4, key=KEY)
    gradient = eqx.filter_grad(loss)(ratio, KEY)
    leaves = jax.tree.leaves(gradient)
    assert leaves
    assert all(jnp.all(jnp.isfinite(x)) for x in leaves)


@pytest.mark.parametrize("dtype", [jnp.int32, jnp.float32, jnp.bool_])
def test_features_of_any_type(dtype):
    counts = jnp.asarray(np.random.default_rng(0).integers(0, 2, (100, 1)), dtype)
    parameters = jnp.linspace(-1.0, 1.0, 100)[:, None]
    ratio = NetworkRatio.init(counts, parameters, width=4, key=KEY)
    polynomial = PolynomialRatio.init(counts, QUADRATIC, width=4, key=KEY)
    theta = jnp.asarray([0.3])
    for one in (ratio, polynomial):
        found = one(counts[0], theta)
        wanted = one(counts[0].astype(float), theta)
        assert found.dtype == theta.dtype
        np.testing.assert_allclose(found, wanted, rtol=1e-6)
        slope = jax.grad(lambda x, one=one: one(counts[0], x))(theta)
        assert jnp.abs(slope[0]) > 1e-4
    events = StoredEvents(counts, parameters)
    batch = events.draw(7, key=KEY)
    assert batch.weight.dtype == (dtype if dtype == jnp.float32 else theta.dtype)
    assert jnp.isfinite(
        BinaryRatioLoss(*[StoredEvents(counts, parameters)] * 2, 5)(ratio, KEY)
    )


def test_fit_of_single_precision_terms(learnt):
    # As a user has them: features in 32 bits, parameters in 64.
    x = jnp.asarray(np.random.default_rng(1).normal(0.5, 1.0, (400, 1)))
    start = jnp.asarray([-0.9])
    double, single = (
        fit_likelihood(
            FunctionLikelihood(_polynomial_likelihood, jax.vmap(learnt.terms)(y)), start
        ).parameters
        for y in (x, x.astype(jnp.float32))
    )
    assert single.dtype == start.dtype
    np.testing.assert_allclose(single, double, rtol=1e-4)


def test_ensemble_of_ratios_trained_alone():
    members = [_small(key) for key in jax.random.split(KEY, 3)]
    ensemble = RatioEnsemble.of(members)
    assert ensemble.size == 3
    each = jnp.stack([_evaluate(x, POINTS, 0.5) for x in members])
    found = _evaluate(ensemble, POINTS, 0.5)
    np.testing.assert_allclose(found, mean_ratio(each), rtol=1e-6)


def test_training_on_several_arrays():
    # A sum over a set whose members are masked; the first feature tells the mean.
    rng = np.random.default_rng(5)
    mask = jnp.asarray(rng.integers(0, 2, (4000, 3)), float).at[:, 0].set(1.0)

    def events(mean, seed):
        x = jnp.asarray(np.random.default_rng(seed).normal(mean, 1.0, (4000, 3)))
        return StoredEvents({"x": jnp.where(mask > 0, x, 0.0), "mask": mask})

    loss = BinaryRatioLoss(events(0.5, 1), events(0.0, 2), 1000)
    ratio = _train(loss, _SetRatio(jnp.zeros(2)), rate=5e-2, num_steps=200)
    np.testing.assert_allclose(ratio.weights, [0.5, -0.125], atol=0.06)


class _SetRatio(eqx.Module):
    weights: Array

    def __call__(self, features, parameters):
        del parameters
        sums = jnp.stack([jnp.sum(features["x"]), jnp.sum(features["mask"])])
        return self.weights @ sums
