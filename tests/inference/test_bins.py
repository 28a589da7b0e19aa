import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from diffhep.inference import HardBins, KernelBins, SoftBins, fill_histogram
from diffhep.testing import check_gradient


EDGES = jnp.asarray([-1.0, 0.0, 0.5, 2.0])
SOFT = [SoftBins(EDGES, jnp.asarray(0.1)), KernelBins(EDGES, jnp.asarray(0.1))]


def _name(bins):
    return type(bins).__name__


def _data(number=400):
    rng = np.random.default_rng(3)
    values, weights = rng.normal(0.3, 1.0, number), rng.uniform(0.5, 2.0, number)
    return jnp.asarray(values), jnp.log(jnp.asarray(weights))


def test_kernel_bins_are_integrals_of_normal_distributions():
    values, log_weight = _data()
    found = fill_histogram(values, log_weight, bins=SOFT[1])
    cdf = scipy.stats.norm.cdf((EDGES[None] - values[:, None]) / 0.1)
    cdf[:, 0], cdf[:, -1] = 0.0, 1.0
    weight = np.exp(log_weight)[:, None]
    share = weight * np.diff(cdf, axis=1)
    np.testing.assert_allclose(found.counts, share.sum(axis=0), rtol=1e-12)
    np.testing.assert_allclose(found.squares, (share**2).sum(axis=0), rtol=1e-12)


@pytest.mark.parametrize("bins", SOFT, ids=_name)
def test_annealed_to_the_hard_histogram(bins):
    values, log_weight = _data()
    hard = fill_histogram(values, log_weight, bins=bins.harden())
    wanted, _ = np.histogram(
        np.clip(values, -0.99, 1.99), EDGES, weights=np.exp(log_weight)
    )
    np.testing.assert_allclose(hard.counts, wanted, rtol=1e-12)
    kind, distances = type(bins), []
    for bandwidth in (0.3, 0.03, 1e-6):
        soft = fill_histogram(
            values, log_weight, bins=kind(EDGES, jnp.asarray(bandwidth))
        )
        np.testing.assert_allclose(soft.counts.sum(), hard.counts.sum(), rtol=1e-12)
        distances.append(float(jnp.abs(soft.counts - hard.counts).max()))
    assert distances[0] > distances[1] > distances[2]
    assert distances[2] < 1e-9


@pytest.mark.parametrize("bins", SOFT, ids=_name)
def test_edges_and_bandwidth_can_be_learnt(bins):
    values, log_weight = _data(50)

    def squares(values, edges, bandwidth):
        counts = fill_histogram(
            values, log_weight, bins=type(bins)(edges, bandwidth)
        ).counts
        return jnp.sum(counts**2)

    check_gradient(squares, (values, EDGES, jnp.asarray(0.1)))


def test_hard_bins_have_no_gradient():
    def first(value):
        return HardBins(EDGES).membership(value)[0]

    assert jax.grad(first)(jnp.asarray(0.2)) == 0
