import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffhep.inference import (
    Addition,
    FitStatus,
    Interference,
    Measurement,
    UnbinnedLikelihood,
    asimov_uncertainty,
    fit_measurement,
    histfactory,
)
from diffhep.testing import check_gradient


RATES = (40.0, 160.0)
_fit = eqx.filter_jit(fit_measurement)


# A signal N(1, 0.5) over a background N(0, 1), whose mean moves by 0.2 and whose rate
# by 10 % with a nuisance parameter; to a reference N(0, 1.5).
def _logs(x):
    def normal(mean, width):
        return -0.5 * ((x - mean) / width) ** 2 - jnp.log(width)

    reference = normal(0.0, 1.5)
    up, down = (normal(0.2 * k, 1.0) - normal(0.0, 1.0) for k in (1, -1))
    ratios = jnp.stack([normal(1.0, 0.5) - reference, normal(0.0, 1.0) - reference])
    none = jnp.zeros_like(x)
    return ratios, jnp.stack([none, up])[None], jnp.stack([none, down])[None]


def _likelihood(x, weight, *, reference=None):
    ratios, up, down = _logs(x)
    rate = jnp.asarray([[0.0, 0.1]])
    mixture = Addition(jnp.asarray(RATES))
    factors = (rate, -rate, up, down, jnp.zeros(1))
    return UnbinnedLikelihood(mixture, ratios, weight, *factors, reference)


def _measurement(likelihood):
    start = jnp.asarray([1.0, 0.0])
    return Measurement(likelihood, start, None, None, None, poi=0)


@pytest.fixture(scope="module")
def simulated():
    # The reference in equal steps of its probability: no statistical error.
    number = 4000
    share = (jnp.arange(number, dtype=float) + 0.5) / number
    x = 1.5 * jax.scipy.special.ndtri(share)
    return _likelihood(x, jnp.ones(number), reference=jnp.full(number, 1 / number))


def test_asimov_minimum_is_at_the_truth(simulated):
    for truth in (jnp.asarray([1.0, 0.0]), jnp.asarray([0.3, 0.7])):
        average = simulated.asimov(truth)
        np.testing.assert_allclose(
            jnp.sum(average.weight), jnp.sum(simulated.rates(truth)), rtol=1e-3
        )
        found = _fit(_measurement(average), throw=True)
        np.testing.assert_allclose(found.parameters, truth, atol=1e-8)


def test_samples_have_the_moments_of_the_model(simulated):
    truth = jnp.asarray([0.7, 0.4])
    average = simulated.asimov(truth)
    keys = jax.random.split(jax.random.key(0), 500)
    drawn = jax.jit(jax.vmap(lambda key: _moments(simulated.sample(truth, key=key))))
    found = np.asarray(drawn(keys))
    mean = _moments(average)
    total, square = mean[0], jnp.sum(average.weight * simulated.log_ratios[0] ** 2)
    error = np.sqrt(np.asarray([total, square, 1.0]) / 500)
    # Four standard errors, of means and of widths.
    assert np.all(np.abs(np.mean(found, axis=0) - mean) < 4 * error)
    ratio = np.std(found, axis=0) / (error * np.sqrt(500))
    assert np.all(np.abs(ratio - 1) < 4 / np.sqrt(2 * 500))


def _moments(likelihood):
    seen = likelihood.weight
    moment = jnp.sum(seen * likelihood.log_ratios[0])
    return jnp.stack([jnp.sum(seen), moment, likelihood.auxiliary[0]])


def test_toys_beside_observed_events(simulated):
    # Events that are observed, with no share in the reference; simulated ones, that are
    # not. The likelihood is that of the observed ones, the toys are of the others.
    observed = jnp.asarray([0.3, 0.9, 1.4, -0.5])
    apart = _likelihood(observed, jnp.ones(4))

    def join(many, few):
        return jnp.concatenate([many, few], axis=-1)

    events = tuple(
        join(getattr(simulated, name), getattr(apart, name))
        for name in ("log_ratios", "log_density_up", "log_density_down")
    )
    both = eqx.tree_at(
        lambda x: (
            x.log_ratios,
            x.log_density_up,
            x.log_density_down,
            x.weight,
            x.reference,
        ),
        simulated,
        (
            *events,
            join(jnp.zeros(4000), jnp.ones(4)),
            join(simulated.reference, jnp.zeros(4)),
        ),
    )
    truth, other = jnp.asarray([0.7, 0.4]), jnp.asarray([1.3, -0.2])
    np.testing.assert_allclose(
        both.change(truth, other), apart.change(truth, other), rtol=1e-12
    )
    drawn = both.sample(truth, key=jax.random.key(1))
    assert np.all(drawn.weight[-4:] == 0)
    found = _fit(_measurement(drawn), throw=True)
    assert np.abs(found.parameters[0] - 0.7) < 4 * jnp.sqrt(found.covariance[0, 0])
    with pytest.raises(ValueError, match="give `reference`"):
        apart.sample(truth, key=jax.random.key(1))


def test_uncertainty_is_that_of_many_narrow_bins(simulated):
    found = asimov_uncertainty(_measurement(simulated), jnp.asarray([1.0, 0.0]))
    # The same model in 400 bins of a HistFactory model, with exact integrals.
    edges = np.linspace(-6.0, 6.0, 401)

    def shares(mean, width):
        cdf = jax.scipy.stats.norm.cdf((edges - mean) / width)
        return np.diff(np.asarray(cdf))

    signal, background = (
        RATES[0] * shares(1.0, 0.5),
        RATES[1] * shares(0.0, 1.0),
    )
    up, down = (RATES[1] * shares(0.2 * k, 1.0) for k in (1, -1))
    moved = {"lo_data": down.tolist(), "hi_data": up.tolist()}
    rate = {"lo": float(np.exp(-0.1)), "hi": float(np.exp(0.1))}
    workspace = histfactory.read_workspace(
        {
            "version": "1.0.0",
            "channels": [
                {
                    "name": "x",
                    "samples": [
                        {
                            "name": "signal",
                            "data": signal.tolist(),
                            "modifiers": [
                                {"name": "mu", "type": "normfactor", "data": None}
                            ],
                        },
                        {
                            "name": "background",
                            "data": background.tolist(),
                            "modifiers": [
                                {"name": "a", "type": "histosys", "data": moved},
                                {"name": "a", "type": "normsys", "data": rate},
                            ],
                        },
                    ],
                }
            ],
            "observations": [{"name": "x", "data": background.tolist()}],
            "measurements": [{"name": "x", "config": {"poi": "mu", "parameters": []}}],
        }
    )
    model = histfactory.build_model(workspace)
    data = histfactory.expected_data(model, model.start)
    wanted = asimov_uncertainty(histfactory.measure(model, data), model.start)
    np.testing.assert_allclose(found, wanted, rtol=5e-3)


def test_fits_of_toys_are_unbiased_with_the_expected_spread(simulated):
    # One shape, whatever the number of events: those too many have no weight.
    slots, toys = 320, 300
    rng = np.random.default_rng(5)
    values, weights = np.zeros((toys, slots)), np.zeros((toys, slots))
    for toy in range(toys):
        counts = rng.poisson(RATES)
        shift = rng.normal()
        # The nuisance parameter as likely as its constraint says.
        counts[1] = rng.poisson(RATES[1] * np.exp(0.1 * shift))
        events = np.concatenate(
            [rng.normal(1.0, 0.5, counts[0]), rng.normal(0.2 * shift, 1.0, counts[1])]
        )
        values[toy, : len(events)], weights[toy, : len(events)] = events, 1.0

    def fit(x, weight):
        found = fit_measurement(_measurement(_likelihood(x, weight)))
        return found.parameters[0], found.covariance[0, 0], found.status

    strength, variance, status = jax.jit(jax.vmap(fit))(
        jnp.asarray(values), jnp.asarray(weights)
    )
    assert (status == FitStatus.converged).all()
    expected = asimov_uncertainty(_measurement(simulated), jnp.asarray([1.0, 0.0]))
    assert abs(np.mean(strength) - 1) < 4 * expected / np.sqrt(toys)
    pulls = (np.asarray(strength) - 1) / np.sqrt(variance)
    assert abs(np.std(pulls) - 1) < 4 / np.sqrt(2 * toys)


def test_gradients(simulated):
    truth = jnp.asarray([1.0, 0.3])
    few = jnp.asarray([-1.2, 0.1, 0.9, 1.4])
    likelihood = _likelihood(few, jnp.asarray([1.0, 2.0, 1.0, 1.0]))
    check_gradient(likelihood.value, (truth,))
    slope, hessian, fisher = likelihood.derivatives(truth)
    np.testing.assert_allclose(slope, jax.grad(likelihood.value)(truth))
    assert (np.linalg.eigvalsh(fisher) > 0).all()
    np.testing.assert_allclose(hessian, hessian.T, rtol=1e-12)
    other = jnp.asarray([1.1, -0.2])
    np.testing.assert_allclose(
        likelihood.change(other, truth),
        likelihood.value(other) - likelihood.value(truth),
        rtol=1e-10,
    )

    # The published number, to what a network would say.
    def uncertainty(bump):
        logs = simulated.log_ratios
        pushed = logs + bump[:, None] * jnp.tanh(logs)
        pushed = eqx.tree_at(lambda x: x.log_ratios, simulated, pushed)
        return asimov_uncertainty(_measurement(pushed), jnp.asarray([1.0, 0.0]))

    check_gradient(uncertainty, (jnp.asarray([0.02, -0.01]),))


def test_interference_in_a_fit():
    # |sqrt(mu) A_S + A_B|^2 on [0, 1], in equal steps.
    x = (jnp.arange(2000, dtype=float) + 0.5) / 2000

    def density(mu):
        amplitude = np.sqrt(mu) * 1.5 * jnp.sin(5 * x) - 1 - 0.5 * jnp.cos(7 * x)
        # Something that does not interfere: no event is impossible.
        return amplitude**2 + 0.5

    rates = jnp.stack([jnp.mean(density(mu)) for mu in (0.0, 1.0, 4.0)])
    logs = jnp.stack([jnp.log(density(mu)) for mu in (0.0, 1.0, 4.0)])
    mixture = Interference((0.0, 1.0, 4.0), 300 * rates)
    likelihood = UnbinnedLikelihood.without_nuisances(
        mixture,
        logs - jnp.log(rates)[:, None],
        jnp.ones(2000),
        reference=jnp.full(2000, 1 / 2000),
    )
    truth = jnp.asarray([2.0])
    average = likelihood.asimov(truth)
    np.testing.assert_allclose(average.weight, 300 * density(2.0) / 2000, rtol=1e-8)
    start = jnp.asarray([1.0])
    measurement = Measurement(average, start, jnp.asarray([1e-3]), None, None, poi=0)
    found = _fit(measurement, throw=True)
    np.testing.assert_allclose(found.parameters, truth, rtol=1e-6)


def test_what_was_not_observed_may_hold_anything(simulated):
    truth = jnp.asarray([1.0, 0.3])
    few, weight = jnp.asarray([-1.2, 0.1, 9.0]), jnp.asarray([1.0, 2.0, 0.0])
    clean = _likelihood(few, weight)
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
    # A process that is impossible somewhere.
    logs = simulated.log_ratios.at[0, :100].set(-jnp.inf)
    cut = eqx.tree_at(lambda x: x.log_ratios, simulated, logs)
    assert jnp.isfinite(cut.asimov(truth).weight).all()


def test_shapes_must_match():
    with pytest.raises(ValueError, match="2 rates and 3 weights"):
        UnbinnedLikelihood.without_nuisances(
            Addition(jnp.asarray(RATES)), jnp.zeros((1, 3)), jnp.ones(3)
        )


def test_data_have_no_expectation():
    data = _likelihood(jnp.asarray([0.1, 0.2]), jnp.ones(2))
    with pytest.raises(ValueError, match="give `reference`"):
        data.asimov(jnp.asarray([1.0, 0.0]))
