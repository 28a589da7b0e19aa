import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffhep.inference import (
    HardBins,
    Scores,
    calibration_curve,
    closure,
    effective_sample_size,
    histogram_calibration,
    isotonic_calibration,
    mean_ratio,
    normalisation,
    overtraining,
    reweight,
)
from diffhep.testing import check_gradient


# Two normal distributions whose density ratio is known: exp(x - 1/2).
def _samples(seed, number):
    rng = np.random.default_rng(seed)
    logs = jnp.asarray(np.log(rng.uniform(0.5, 1.5, number)))
    below, above = rng.normal(0.0, 1.0, number), rng.normal(1.0, 1.0, number)
    return jnp.asarray(below), jnp.asarray(above), logs


def _exact(x):
    return x - 0.5


def test_exact_ratios_are_normalised_and_close():
    bins = HardBins(jnp.linspace(-1.5, 2.5, 9))
    pulls, chi2 = [], []
    for seed in range(100):
        below, above, logs = _samples(seed, 4000)
        ratio = _exact(below)
        found = normalisation(logs, ratio)
        pulls.append((found.value - 1) / found.error)
        weights = reweight(logs, ratio)
        np.testing.assert_allclose(jnp.exp(weights).sum(), jnp.exp(logs).sum())
        compared = closure(below, weights, above, logs, bins=bins)
        np.testing.assert_allclose(compared.reweighted.sum(), 1.0)
        chi2.append(compared.chi2)
        wrong = closure(below, logs, above, logs, bins=bins)
        assert wrong.chi2 > 100
    assert abs(np.mean(pulls)) < 0.4
    assert 0.8 < np.std(pulls) < 1.2
    # 8 bins: the error of the mean of 100 is 0.4.
    assert abs(np.mean(chi2) - 8) < 4 * 0.4


def test_effective_sample_size():
    logs = jnp.log(jnp.asarray([1.0, 1.0, 2.0]))
    np.testing.assert_allclose(effective_sample_size(logs), 16 / 6)
    np.testing.assert_allclose(effective_sample_size(logs + 7.0), 16 / 6)


def test_gradients():
    below, _, logs = _samples(0, 12)

    def numbers(logs, ratio):
        found = normalisation(logs, ratio)
        weights = reweight(logs, ratio)
        return found.value + found.error + jnp.sum(jnp.exp(weights) * below)

    check_gradient(numbers, (logs, _exact(below)))


def test_mean_of_ratios():
    logs = jnp.log(jnp.asarray([[1.0, 4.0], [3.0, 2.0]]))
    np.testing.assert_allclose(jnp.exp(mean_ratio(logs)), [2.0, 3.0])
    # It stays normalised, where a mean of logarithms does not.
    below, _, weights = _samples(1, 20_000)
    noise = jnp.asarray(np.random.default_rng(2).normal(0, 0.5, 20_000))
    members = _exact(below)[None] + jnp.stack([noise, -noise]) - 0.125
    error = abs(normalisation(weights, mean_ratio(members)).value - 1)
    wrong = abs(normalisation(weights, jnp.mean(members, axis=0)).value - 1)
    assert error < 0.03
    assert wrong > 0.1


def _distorted(x):
    # Overconfident and shifted.
    return 1.7 * _exact(x) + 0.4


@pytest.mark.parametrize("method", [histogram_calibration, isotonic_calibration])
def test_calibration(method):
    below, above, logs = _samples(3, 20_000)
    x = jnp.concatenate([below, above])
    label = jnp.concatenate([jnp.zeros(20_000), jnp.ones(20_000)])
    # The yields of the classes do not matter.
    weights = jnp.concatenate([logs + 3.0, logs])
    calibrate = method(_distorted(x), label, weights)
    new_below, new_above, logs = _samples(4, 20_000)
    x = jnp.concatenate([new_below, new_above])
    weights = jnp.concatenate([logs, logs])
    found = jax.vmap(calibrate)(_distorted(x))
    inside = jnp.abs(x - 0.5) < 2.5
    assert float(jnp.mean(jnp.abs(found - _exact(x))[inside])) < 0.1
    bins = HardBins(jnp.linspace(0.0, 1.0, 11))
    wrong, right = (
        calibration_curve(jax.nn.sigmoid(y), label, weights, bins=bins)
        for y in (_distorted(x), found)
    )
    pulls = [(c.predicted - c.observed) / c.error for c in (wrong, right)]
    assert float(jnp.max(jnp.abs(pulls[0]))) > 10
    # The calibration has as many entries as the test: an error of its own.
    assert float(jnp.max(jnp.abs(pulls[1]))) < 5
    assert (np.diff(calibrate.logits) > 0).all()
    check_gradient(jax.vmap(calibrate), (jnp.asarray([-0.7, 0.3, 9.0]),))


def test_isotonic_regression_is_monotone_and_exact():
    logit = jnp.asarray([0.0, 1.0, 2.0, 3.0])
    label = jnp.asarray([0.0, 1.0, 0.0, 1.0])
    calibrate = isotonic_calibration(logit, label, jnp.zeros(4))
    # The two in the middle are one block, with a share of a half.
    np.testing.assert_allclose(calibrate.logits, [0.0, 1.5, 3.0])
    np.testing.assert_allclose(calibrate.calibrated[1], 0.0, atol=1e-12)
    assert (np.diff(calibrate.calibrated) >= 0).all()


@pytest.mark.parametrize("method", [histogram_calibration, isotonic_calibration])
def test_equal_logits_are_one(method):
    # Zeros first: their order must not matter.
    logit = jnp.repeat(jnp.asarray([0.0, 0.0, 2.0, 2.0]), 50)
    label = jnp.repeat(jnp.asarray([0.0, 1.0, 0.0, 1.0]), 50)
    weights = jnp.log(jnp.repeat(jnp.asarray([1.0, 1.0, 1.0, 3.0]), 50))
    settings = {"num_bins": 2} if method is histogram_calibration else {}
    calibrate = method(logit, label, weights, **settings)
    # The classes have totals of 100 and 200: a share of one third, and of 3/5.
    wanted = np.log([1 / 2, 3 / 2])
    np.testing.assert_allclose(calibrate.logits, [0.0, 2.0])
    np.testing.assert_allclose(calibrate.calibrated, wanted, rtol=1e-12)


def test_what_cannot_be_calibrated():
    with pytest.raises(ValueError, match="0 or 1 for each"):
        isotonic_calibration(jnp.zeros(3), jnp.asarray([0.0, 1.0, 2.0]), jnp.zeros(3))
    with pytest.raises(ValueError, match="needs both classes"):
        isotonic_calibration(jnp.zeros(3), jnp.ones(3), jnp.zeros(3))
    with pytest.raises(ValueError, match="`num_bins` is 20"):
        histogram_calibration(jnp.zeros(2), jnp.asarray([0.0, 1.0]), jnp.zeros(2))


def test_overtraining_shows_in_the_class_that_was_learnt_by_heart():
    bins = HardBins(jnp.linspace(-2.0, 3.0, 11))
    chi2 = []
    for seed in range(40):
        found = []
        for part in (0, 1):
            below, above, logs = _samples(2 * seed + part, 1000)
            score = _exact(jnp.concatenate([below, above]))
            label = jnp.repeat(jnp.asarray([0.0, 1.0]), 1000)
            found.append(Scores(score, label, jnp.concatenate([logs, logs])))
        honest = overtraining(*found, bins=bins)
        chi2.append([honest.numerator.chi2, honest.denominator.chi2])
        # A network that recognises what it saw of label 1.
        seen = found[0]._replace(score=found[0].score + 0.5 * found[0].label)
        learnt = overtraining(seen, found[1], bins=bins)
        # Seven standard deviations of chi-squared with 10 degrees of freedom away.
        assert learnt.numerator.chi2 > 10 + 7 * 20**0.5
        np.testing.assert_allclose(learnt.denominator.chi2, honest.denominator.chi2)
    # 10 bins: the error of the mean of 40 is 0.7.
    np.testing.assert_allclose(np.mean(chi2, axis=0), 10, atol=4 * 0.7)
