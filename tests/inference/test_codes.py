"""How densities interpolate: sums and factors, alone and in the unbinned likelihood."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffhep.inference import (
    Addition,
    Code0,
    Code1,
    Code2,
    Code4,
    Code4p,
    Measurement,
    Parabola,
    UnbinnedLikelihood,
    fit_measurement,
)
from diffhep.testing import check_gradient


ADDED = (Code0(), Code2(), Code4p(), Parabola())
FACTORS = (Code1(), Code4())
_fit = eqx.filter_jit(fit_measurement)
_derivatives = eqx.filter_jit(lambda likelihood, x: likelihood.derivatives(x))
_named = {"ids": lambda x: type(x).__name__}


@pytest.mark.parametrize("code", ADDED + FACTORS, **_named)
def test_variations_are_exact(code):
    up, down = (
        jnp.asarray([[1.3, 0.2], [0.7, 3.0]]),
        jnp.asarray([[0.8, 0.0], [2.0, 9.0]]),
    )
    for shift, wanted in (
        ([0.0, 0.0], jnp.ones(2)),
        ([1.0, 0.0], up[0]),
        ([0.0, -1.0], down[1]),
    ):
        found = code.combined(up, down, jnp.asarray(shift))
        np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("code", FACTORS, **_named)
def test_factors_are_positive(code):
    logs = jnp.linspace(-3.0, 3.0, 13)
    up, down = (jnp.exp(x.ravel())[None] for x in jnp.meshgrid(logs, logs))
    shifts = jnp.linspace(-6.0, 6.0, 97)
    found = jax.vmap(lambda x: code.combined(up, down, x[None]))(shifts)
    assert (found > 0).all()


@pytest.mark.parametrize("code", [*ADDED, Code4()], **_named)
def test_means_are_kept_where_a_code_says_so(code):
    share = jnp.asarray([0.2, 0.5, 0.3])
    up, down = jnp.asarray([[2.0, 0.6, 1.0]]), jnp.asarray([[0.7, 1.3, 0.7]])
    assert np.allclose([up @ share, down @ share], 1)
    mean = code.combined(up, down, jnp.asarray([1.7])) @ share
    assert (abs(mean - 1) < 1e-12) == code.additive


@pytest.mark.parametrize("code", ADDED, **_named)
def test_derivatives_of_the_even_part(code):
    for shift in (-1.8, -0.4, 0.3, 2.2):
        found = code.even_part(jnp.asarray(shift))
        value = lambda x: code.even_part(x).value  # noqa: E731
        slope, bend = jax.grad(value), jax.grad(jax.grad(value))
        np.testing.assert_allclose(found.first, slope(jnp.asarray(shift)), rtol=1e-12)
        np.testing.assert_allclose(found.second, bend(jnp.asarray(shift)), rtol=1e-12)


def test_a_parabola_is_exact_for_an_amplitude_that_moves():
    # |A + alpha A'|^2 with zeros of A, and of A + alpha A' for some alpha.
    one, other = jnp.linspace(-1.0, 1.0, 8), jnp.linspace(0.3, 0.1, 8)
    density = lambda alpha: (one + alpha * other) ** 2  # noqa: E731
    ratios = [(density(x) / density(0.0))[None] for x in (1.0, -1.0)]
    for alpha in (-4.0, -1.5, 0.5, 3.0):
        found = Parabola().combined(*ratios, jnp.asarray([alpha]))
        np.testing.assert_allclose(found, density(alpha) / density(0.0), atol=1e-10)


# A signal N(1, 0.5) over a background N(0, 1), whose mean moves by 0.25 and whose rate
# by 10 % with a nuisance parameter; to a reference N(0, 2), by integration.
GRID, STEP, RATES = jnp.linspace(-12.0, 12.0, 241), 0.25, jnp.asarray([40.0, 160.0])


def _normal(x, mean, width):
    return -0.5 * ((x - mean) / width) ** 2 - jnp.log(width)


def _share():
    share = jnp.exp(_normal(GRID, 0.0, 2.0))
    return share / jnp.sum(share)


def _likelihood(code, x, weight, share):
    """Of events; they come before the sample of the reference."""
    x = jnp.concatenate([x, GRID])
    weight = jnp.concatenate([weight, jnp.zeros_like(GRID)])
    share = jnp.concatenate([jnp.zeros(len(x) - len(share)), share])
    reference, nominal = _normal(x, 0.0, 2.0), _normal(x, 0.0, 1.0)
    ratios = jnp.stack([_normal(x, 1.0, 0.5) - reference, nominal - reference])
    none = jnp.zeros_like(x)
    up, down = (
        jnp.stack([none, _normal(x, STEP * k, 1.0) - nominal])[None] for k in (1, -1)
    )
    rate = jnp.asarray([[0.0, 0.1]])
    rest = (rate, -rate, up, down, jnp.zeros(1), share)
    return UnbinnedLikelihood(Addition(RATES), ratios, weight, *rest, shape_code=code)


@pytest.mark.parametrize(
    ("code", "alphas"),
    [(Code1(), (-1.7, 0.4, 2.5)), (Code4(), (-1.7, 1.0, 2.5))],
    ids=["Code1", "Code4"],
)
def test_normalised_factors_are_exact_for_a_gaussian_that_moves(code, alphas):
    # Powers of exp(s x - s^2 / 2), normalised, are the same with another s.
    x = jnp.asarray([-3.0, -0.2, 0.8, 4.0])
    likelihood = _likelihood(code, x, jnp.ones(4), _share())
    for alpha in alphas:
        wanted = 160 * jnp.exp(0.1 * alpha + _normal(x, STEP * alpha, 1.0))
        wanted += 40 * jnp.exp(_normal(x, 1.0, 0.5))
        wanted /= jnp.exp(_normal(x, 0.0, 2.0))
        found = likelihood.intensity(jnp.asarray([1.0, alpha]))[:4]
        # The grid ends at six standard deviations of the reference.
        np.testing.assert_allclose(found, wanted, rtol=1e-8)


@pytest.mark.parametrize(
    ("code", "alpha"), [(Code4(), 1.6), (Code4(), 0.5), (Code1(), -0.8)]
)
def test_asimov_minimum_is_at_the_truth(code, alpha):
    # Of factors that are normalised at every parameter, whatever it is.
    none, truth = jnp.zeros(0), jnp.asarray([0.4, alpha])
    likelihood = _likelihood(code, none, none, _share())
    average = likelihood.asimov(truth)
    expected = jnp.sum(likelihood.rates(truth))
    np.testing.assert_allclose(jnp.sum(average.weight), expected, rtol=1e-9)
    start = Measurement(average, jnp.asarray([1.0, 0.0]), None, None, None, poi=0)
    found = _fit(start, throw=True)
    np.testing.assert_allclose(found.parameters, truth, atol=1e-7)


def test_toys_of_factors():
    # The reference is a finite sample: over it, and not over the density, all add up.
    rng = np.random.default_rng(4)
    share = _share() * rng.gamma(5.0, size=len(GRID))
    none = jnp.zeros(0)
    likelihood = _likelihood(Code4(), none, none, share / jnp.sum(share))
    truth = jnp.asarray([1.0, 1.4])
    drawn = likelihood.sample(truth, key=jax.random.key(2))
    same = likelihood.normalised().intensity(truth)
    np.testing.assert_allclose(likelihood.intensity(truth), same, rtol=0.1)
    start = Measurement(drawn, jnp.asarray([1.0, 0.0]), None, None, None, poi=0)
    found = _fit(start, throw=True)
    error = jnp.sqrt(jnp.diagonal(found.covariance))
    assert (jnp.abs(found.parameters - truth) < 4 * error).all()


@pytest.mark.parametrize("code", [Code1(), Code4(), Parabola()], **_named)
def test_gradients(code):
    x, weight = jnp.asarray([-1.2, 0.1, 0.9, 1.4]), jnp.asarray([1.0, 2.0, 1.0, 1.0])
    likelihood = _likelihood(code, x, weight, _share())
    for alpha in (0.3, -1.4):
        truth = jnp.asarray([0.8, alpha])
        check_gradient(likelihood.value, (truth,))
        slope, hessian, fisher = _derivatives(likelihood, truth)
        np.testing.assert_allclose(slope, jax.grad(likelihood.value)(truth))
        step = jnp.asarray([0.0, 1e-5])
        up, down = (_derivatives(likelihood, truth + k * step).slope for k in (1, -1))
        np.testing.assert_allclose(hessian[1], (up - down) / 2e-5, rtol=1e-6)
        assert (np.linalg.eigvalsh(fisher) > 0).all()

    def moved(bump):
        logs = likelihood.log_density_up
        other = eqx.tree_at(
            lambda x: x.log_density_up, likelihood, logs + bump * jnp.tanh(logs)
        )
        return other.value(truth)

    check_gradient(moved, (jnp.asarray(0.1),))


def test_what_neither_was_observed_nor_simulated_may_hold_anything():
    truth = jnp.asarray([1.0, 1.3])
    x, weight = jnp.asarray([-1.2, 0.1, 0.0]), jnp.asarray([1.0, 2.0, 0.0])
    clean = _likelihood(Code4(), x, weight, _share())
    for poison in (jnp.nan, jnp.inf):
        dirty = eqx.tree_at(
            lambda x: (x.log_ratios, x.log_density_up),
            clean,
            (
                clean.log_ratios.at[:, 2].set(poison),
                clean.log_density_up.at[:, :, 2].set(poison),
            ),
        )
        found, wanted = (
            jax.value_and_grad(lambda x: x.value(truth))(x) for x in (dirty, clean)
        )
        jax.tree.map(np.testing.assert_allclose, found, wanted)


@pytest.mark.parametrize("code", [Code4(), Parabola()], **_named)
def test_single_precision(code):
    x, weight = jnp.asarray([-1.2, 0.1, 0.9, 1.4]), jnp.asarray([1.0, 2.0, 1.0, 1.0])
    likelihood = _likelihood(code, x, weight, _share())
    single = jax.tree.map(lambda y: y.astype(jnp.float32), likelihood)
    truth = jnp.asarray([0.8, 1.3])
    found = _derivatives(single, truth.astype(jnp.float32))
    wanted = _derivatives(likelihood, truth)
    for ours, exact in zip(found, wanted, strict=True):
        assert ours.dtype == jnp.float32
        # Rates and events cancel in the slope: to rounding of the 200 events.
        np.testing.assert_allclose(ours, exact, rtol=1e-4, atol=1e-3)


def test_factors_need_a_reference():
    none = jnp.zeros((1, 2, 3))
    rest = (none[..., 0], none[..., 0], none, none, jnp.zeros(1))
    with pytest.raises(ValueError, match="give `reference`"):
        UnbinnedLikelihood(
            Addition(RATES), none[0], jnp.ones(3), *rest, shape_code=Code4()
        )


def test_slots_that_hold_nothing_are_inert_in_expectations():
    none, truth = jnp.zeros(0), jnp.asarray([0.9, 0.7])
    x = jnp.zeros(3)
    for code in (Code4p(), Code4()):
        clean = _likelihood(code, none, none, _share())
        padded = _likelihood(code, x, x, _share())
        dirty = eqx.tree_at(
            lambda y: (y.log_ratios, y.log_density_up),
            padded,
            (
                padded.log_ratios.at[:, :3].set(jnp.nan),
                padded.log_density_up.at[:, :, :3].set(jnp.nan),
            ),
        )
        wanted, found = (y.asimov(truth) for y in (clean, dirty))
        np.testing.assert_array_equal(found.weight[:3], 0.0)
        np.testing.assert_allclose(found.weight[3:], wanted.weight, rtol=1e-12)
        drawn = dirty.sample(truth, key=jax.random.key(0))
        np.testing.assert_array_equal(drawn.weight[:3], 0.0)
        assert jnp.isfinite(dirty.normalised().value(truth))
        value = lambda share, y=dirty: (  # noqa: E731
            eqx.tree_at(lambda z: z.reference, y, share).asimov(truth).value(truth)
        )
        assert jnp.all(jnp.isfinite(jax.grad(value)(dirty.reference)))
