import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffhep.inference import HardBins, KernelBins, abcd, distance_correlation
from diffhep.testing import check_gradient


def _pair(seed, number, strength):
    rng = np.random.default_rng(seed)
    first = rng.normal(size=number)
    # Not correlated, but dependent.
    second = strength * first**2 + rng.normal(size=number)
    return jnp.asarray(first), jnp.asarray(second)


def _by_hand(x, y, weight):
    # Definition 4, and every sum written out.
    weight = weight / weight.sum()

    def centred(values):
        apart = np.abs(np.subtract.outer(values, values))
        rows = apart @ weight
        return apart - rows[:, None] - rows[None, :] + weight @ rows

    def covariance(a, b):
        return sum(
            weight[i] * weight[j] * a[i, j] * b[i, j]
            for i in range(len(x))
            for j in range(len(x))
        )

    a, b = centred(x), centred(y)
    return covariance(a, b) / np.sqrt(covariance(a, a) * covariance(b, b))


def test_definition():
    first, second = _pair(0, 12, 1.0)
    weight = np.random.default_rng(1).uniform(0.5, 2.0, 12)
    found = distance_correlation(first, second, jnp.log(jnp.asarray(weight)))
    wanted = _by_hand(np.asarray(first), np.asarray(second), weight)
    np.testing.assert_allclose(found, wanted, rtol=1e-12)


def test_a_weight_is_so_many_entries():
    first, second = _pair(2, 8, 1.0)
    counts = np.array([1, 2, 3, 1, 1, 2, 1, 4])
    weighted = distance_correlation(first, second, jnp.log(jnp.asarray(counts * 1.0)))
    many = [jnp.asarray(np.repeat(x, counts)) for x in (first, second)]
    plain = distance_correlation(*many, jnp.zeros(counts.sum()))
    np.testing.assert_allclose(weighted, plain, rtol=1e-12)


def test_range_and_invariance():
    first, second = _pair(3, 300, 1.0)
    equal = jnp.zeros(300)
    both = distance_correlation(first, second, equal)
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.15
    assert 0.1 < both < 1
    np.testing.assert_allclose(distance_correlation(first, first, equal), 1.0)
    scaled = distance_correlation(3 - 2 * first, 10 * second, equal)
    np.testing.assert_allclose(scaled, both, rtol=1e-12)
    constant = distance_correlation(first, jnp.ones(300), equal)
    assert constant == 0
    # Independent: of order one over the number, by permutations.
    rng = np.random.default_rng(4)
    independent = [
        float(distance_correlation(first, jnp.asarray(rng.permutation(second)), equal))
        for _ in range(20)
    ]
    assert max(independent) < both / 3


def test_gradient_and_equal_values():
    first, second = _pair(5, 10, 1.0)
    logs = jnp.linspace(-0.5, 0.5, 10)
    check_gradient(distance_correlation, (first, second, logs))
    slope = jax.grad(distance_correlation)(first.at[1].set(first[0]), second, logs)
    assert jnp.isfinite(slope).all()


def test_a_penalty_removes_the_dependence():
    # A weight times the dependent part is driven to zero by the penalty alone.
    first, second = _pair(6, 200, 0.0)
    equal = jnp.zeros(200)

    @jax.jit
    def slope(share):
        return jax.value_and_grad(
            lambda s: distance_correlation(first, second + s * first, equal)
        )(share)

    share = jnp.asarray(1.0)
    start, _ = slope(share)
    for _ in range(40):
        value, gradient = slope(share)
        share = share - 0.5 * gradient
    assert start > 0.2
    assert value < 0.05
    assert abs(share) < 0.3


def _cut(at, kind=HardBins, **settings):
    edges = jnp.asarray([-10.0, at, 10.0])
    return kind(edges, **settings)


def test_abcd_of_independent_numbers():
    rng = np.random.default_rng(7)
    pulls = []
    for _ in range(200):
        first, second = jnp.asarray(rng.normal(size=(2, 500)))
        found = abcd(
            first,
            second,
            jnp.zeros(500),
            first_cut=_cut(0.8),
            second_cut=_cut(0.5),
        )
        inside = float(np.sum(np.asarray((first > 0.8) & (second > 0.5))))
        assert found.counts[1, 1] == inside
        error = np.hypot(found.error, np.sqrt(found.predicted))
        pulls.append((inside - found.predicted) / error)
    assert abs(np.mean(pulls)) < 4 / np.sqrt(200)
    assert 0.85 < np.std(pulls) < 1.15


def test_abcd_soft_cuts_and_gradients():
    rng = np.random.default_rng(8)
    first, second = jnp.asarray(rng.normal(size=(2, 60)))
    logs = jnp.asarray(rng.uniform(-0.3, 0.3, 60))

    def predicted(first, at, logs):
        soft = {"kind": KernelBins, "bandwidth": jnp.asarray(0.2)}
        cuts = {"first_cut": _cut(at, **soft), "second_cut": _cut(0.3, **soft)}
        found = abcd(first, second, logs, **cuts)
        return found.predicted + found.error

    check_gradient(predicted, (first, jnp.asarray(0.4), logs))


def test_abcd_with_empty_regions():
    cuts = {"first_cut": _cut(0.0), "second_cut": _cut(0.0)}
    # B, C and D, and no entry in A, which is looked at last.
    first, second = jnp.asarray([1.0, -1.0, -1.0]), jnp.asarray([-1.0, 1.0, -1.0])
    found = abcd(first, second, jnp.zeros(3), **cuts)
    assert (found.predicted, found.closure) == (1.0, 0.0)
    np.testing.assert_allclose(found.error, np.sqrt(3.0))
    slope = jax.grad(lambda logs: abcd(first, second, logs, **cuts).error)
    assert jnp.isfinite(slope(jnp.zeros(3))).all()
    # Without B the prediction is zero, with the error of one entry more or less.
    few = abcd(first[1:], second[1:], jnp.zeros(2), **cuts)
    assert few.predicted == 0
    assert jnp.isnan(few.closure)
    none = abcd(first[:2], second[:2], jnp.zeros(2), **cuts)
    assert jnp.isnan(none.predicted)
    assert jnp.isnan(none.error)


def test_abcd_needs_two_bins():
    with pytest.raises(ValueError, match="`second_cut` has 3 bins"):
        abcd(
            jnp.zeros(2),
            jnp.zeros(2),
            jnp.zeros(2),
            first_cut=_cut(0.0),
            second_cut=HardBins(jnp.linspace(0.0, 1.0, 4)),
        )
