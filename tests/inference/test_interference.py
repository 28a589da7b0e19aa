"""A signal that interferes, with the exact density of the benchmark `interference`."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import _interference_far as far, _interference_model as model
from benchmarks._interference_bins import likelihood
from benchmarks._interference_toys import measure, padded
from diffhep.inference import (
    FitStatus,
    Interference,
    deviance,
    fit_measurement,
)


_fit = eqx.filter_jit(fit_measurement)


@pytest.fixture(scope="module")
def mixture():
    return Interference(model.STRENGTHS, jnp.asarray(model.rates()))


@pytest.fixture(scope="module")
def log_rates():
    up, down = (np.log(model.rates(k) / model.rates()) for k in (1.0, -1.0))
    return jnp.asarray(up), jnp.asarray(down)


@pytest.fixture(scope="module")
def nodes():
    """Points and weights of an integral over the window, and the points' table."""
    x, weight = model.nodes()
    x, weight = x.reshape(-1, 2), weight.ravel()
    return x, weight, model.exact_table(x)


def _reference(x):
    density = [model.intensity(x, k) for k in model.STRENGTHS]
    return np.mean(np.stack(density) / model.rates()[:, None], axis=0)


@pytest.mark.parametrize("strength", [0.01, 0.3, 2.5, 9.0])
def test_positive_samples_give_every_density(mixture, nodes, strength):
    x, _, table = nodes
    wanted = model.intensity(x, strength) / _reference(x)
    logs = jnp.asarray(table.log_ratios)
    mu = jnp.asarray(strength)
    found = mixture.rate(mu) * mixture.ratio(mu, logs)
    # The terms cancel where the density vanishes: to rounding of the largest.
    np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-12 * wanted.max())
    np.testing.assert_allclose(
        mixture.rate(mu),
        model.integral(lambda y: model.intensity(y, strength)),
        rtol=1e-12,
    )


def test_the_signed_interference(mixture, nodes):
    x, weight, table = nodes
    found = mixture.interference(jnp.asarray(table.log_ratios)) * _reference(x)
    wanted = model.terms(x)[1]
    np.testing.assert_allclose(found, wanted, atol=1e-12 * np.abs(wanted).max())
    # Both signs, on each side of the mass and at both kinds of angles.
    for part in (x[:, 0] < model.MASS, np.abs(x[:, 1]) < 1 / np.sqrt(6)):
        for side in (part, ~part):
            inside = np.where(side, weight * wanted, 0.0)
            assert inside.min() < 0 < inside.max()
    assert (weight @ np.maximum(wanted, 0)) > 40
    assert (weight @ np.minimum(wanted, 0)) < -40


@pytest.mark.parametrize("truth", [(1.0, 0.0), (2.0, 1.0), (0.5, -1.0)])
def test_best_fit_of_the_true_intensity(mixture, log_rates, nodes, truth):
    # The interpolation is exact at whole standard deviations.
    x, weight, table = nodes
    expected = jnp.asarray(model.intensity(x, *truth) * weight)
    found = likelihood(
        mixture, table, expected, log_rates=log_rates, auxiliary=jnp.asarray(truth[1])
    )
    toy = measure(mixture, table, expected, jnp.asarray(truth[1]), log_rates=log_rates)
    best = _fit(toy, throw=True)
    np.testing.assert_allclose(best.parameters, truth, atol=1e-7)
    np.testing.assert_allclose(
        jnp.sum(found.rates(best.parameters)), expected.sum(), rtol=1e-9
    )


@pytest.mark.parametrize(("strength", "alpha"), [(0.3, 1.7), (2.0, -0.4)])
def test_the_density_at_every_alpha(nodes, strength, alpha):
    x, _, _ = nodes
    found = far.exact_intensity(jnp.asarray(x), strength, alpha)
    wanted = model.intensity(x, strength, alpha)
    np.testing.assert_allclose(found, wanted, rtol=1e-9)
    logs = [jnp.polyval(y, alpha / far.RANGE) for y in far.exact_rates().T]
    np.testing.assert_allclose(jnp.exp(jnp.stack(logs)), model.rates(alpha), rtol=1e-9)


def test_densities_are_normalised_over_few_nodes():
    (logs, up, down), share = far.nodes()
    for moved in (np.zeros_like(up), up, down):
        np.testing.assert_allclose(np.exp(logs + moved) @ share, 1.0, rtol=1e-7)


def test_toys_are_unbiased_and_covered(mixture, log_rates, nodes):
    number, truth = 150, 1.0
    rng = np.random.default_rng(8)
    counts = rng.poisson(model.rates()[1], number)
    pool = model.sample(counts.sum(), truth, rng)
    x, used = padded(np.split(pool, np.cumsum(counts)[:-1]), 1000)
    table = [jnp.moveaxis(jnp.asarray(y), 1, 0) for y in model.exact_table(x)]
    auxiliary = jnp.asarray(rng.normal(size=number))

    @jax.jit
    def fit(table, used, auxiliary):
        def one(toy):
            measurement = measure(mixture, *toy, log_rates=log_rates)

            def either(held):
                strength = jnp.asarray(truth)
                return fit_measurement(measurement, strength=strength, held=held)

            # One compilation for both.
            both = jax.lax.map(either, jnp.asarray([False, True]))
            best, held = (jax.tree.map(lambda y, k=k: y[k], both) for k in (0, 1))
            rise = deviance(measurement.likelihood, held, best)
            return best.parameters[0], best.covariance[0, 0], rise, best.status

        return jax.lax.map(one, (table, used, auxiliary))

    strength, variance, rise, status = fit(table, jnp.asarray(used), auxiliary)
    assert (status == FitStatus.converged).all()
    # Fisher's information of the density, by integration and differences.
    x, weight, _ = nodes
    step = 1e-4
    slopes = [
        (model.intensity(x, truth + step) - model.intensity(x, truth - step)),
        (model.intensity(x, truth, step) - model.intensity(x, truth, -step)),
    ]
    density = weight / model.intensity(x, truth) / (2 * step) ** 2
    information = np.einsum("ie,je,e->ij", slopes, slopes, density)
    expected = np.linalg.inv(information + np.diag([0.0, 1.0]))[0, 0] ** 0.5
    assert abs(strength.mean() - truth) < 4 * expected / np.sqrt(number)
    assert abs(strength.std() / expected - 1) < 4 / np.sqrt(2 * number)
    assert abs(np.sqrt(np.median(variance)) / expected - 1) < 0.05
    covered = np.mean(np.asarray(rise) <= 1)
    assert abs(covered - 0.6827) < 4 * np.sqrt(0.6827 * 0.3173 / number)


def test_events_are_drawn_from_the_density():
    rng = np.random.default_rng(9)
    number = 100_000
    events = model.sample(number, 2.0, rng, shift=1.0)
    edges = [np.linspace(*model.WINDOW, 15), np.linspace(-1.0, 1.0, 9)]
    found = np.histogram2d(*events.T, bins=edges)[0]
    # Each bin by 8 x 8 points of Gauss and Legendre.
    at, share = np.polynomial.legendre.leggauss(8)
    places, widths = [], []
    for edge in edges:
        half = np.diff(edge)[:, None] / 2
        places.append(edge[:-1, None] + half * (at + 1))
        widths.append(half * share)
    grid = np.stack(
        np.broadcast_arrays(places[0][:, None, :, None], places[1][None, :, None, :]),
        axis=-1,
    )
    density = model.intensity(grid, 2.0, 1.0)
    wanted = np.einsum("abij,ai,bj->ab", density, *widths)
    wanted *= number / wanted.sum()
    chi2 = np.sum((found - wanted) ** 2 / wanted)
    freedom = found.size - 1
    assert abs(chi2 - freedom) < 4 * np.sqrt(2 * freedom)


def test_masses_are_drawn_from_their_density():
    mass = model.sample_mass(100_000, (1.0, 1.0), np.random.default_rng(10))
    edges = np.linspace(*model.WINDOW, 41)
    found = np.histogram(mass, edges)[0]
    fine = np.linspace(*model.WINDOW, 40 * 50, endpoint=False) + 0.07
    wanted = model.mass_terms(fine).sum(axis=0).reshape(40, 50).mean(axis=1) * 7.0
    np.testing.assert_allclose(wanted.sum(), model.SIGNAL + model.BACKGROUND, rtol=1e-4)
    wanted *= len(mass) / wanted.sum()
    chi2 = np.sum((found - wanted) ** 2 / wanted)
    assert abs(chi2 - 39) < 4 * np.sqrt(78)
