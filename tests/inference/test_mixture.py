import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad

from diffhep.inference import Interference
from diffhep.testing import check_gradient


# |sqrt(mu) A_S + A_B|^2 with amplitudes of both signs on [0, 1].
def _amplitudes(x):
    return 1.5 * np.sin(5 * x), 1.0 + 0.5 * np.cos(7 * x)


def _density(mu, x):
    signal, background = _amplitudes(x)
    return (np.sqrt(mu) * signal - background) ** 2


def _rate(mu):
    return quad(lambda x: _density(mu, x), 0.0, 1.0)[0]


STRENGTHS = (0.0, 1.0, 4.0)


@pytest.fixture(scope="module")
def mixture():
    return Interference(STRENGTHS, jnp.asarray([_rate(mu) for mu in STRENGTHS]))


@pytest.fixture(scope="module")
def log_ratios():
    # To a flat reference.
    x = np.linspace(0.01, 0.99, 40)
    rows = [np.log(_density(mu, x) / _rate(mu)) for mu in STRENGTHS]
    return x, jnp.asarray(np.stack(rows))


@pytest.mark.parametrize("mu", [0.0, 0.3, 1.0, 2.5, 9.0])
def test_morphing_is_exact(mixture, log_ratios, mu):
    x, logs = log_ratios
    strength = jnp.asarray(mu)
    np.testing.assert_allclose(mixture.rate(strength), _rate(mu), rtol=1e-10)
    found = mixture.ratio(strength, logs)
    np.testing.assert_allclose(found, _density(mu, x) / _rate(mu), rtol=1e-9)


def test_interference_has_both_signs(mixture, log_ratios):
    x, logs = log_ratios
    signal, background = _amplitudes(x)
    found = mixture.interference(logs)
    np.testing.assert_allclose(found, -2 * signal * background, atol=1e-9)
    assert found.min() < -0.1
    assert found.max() > 0.1


def test_gradients(mixture, log_ratios):
    _, logs = log_ratios

    def likelihood(strength, rates, logs):
        model = Interference(STRENGTHS, rates)
        ratio = model.ratio(strength, logs)
        return model.rate(strength) - jnp.sum(jnp.log(ratio))

    inputs = (jnp.asarray(0.7), mixture.rates, logs[:, :6])
    check_gradient(likelihood, inputs)
    assert jnp.isfinite(jax.grad(likelihood)(jnp.asarray(0.0), *inputs[1:]))


@pytest.mark.parametrize("strengths", [(0.0, 1.0), (1.0, 1.0, 2.0), (-1.0, 0.0, 1.0)])
def test_strengths_must_determine_three_terms(strengths):
    with pytest.raises(ValueError, match="three different ones"):
        Interference(strengths, jnp.ones(3))
