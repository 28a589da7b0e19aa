"""pyhf's own validation values, to the tolerance of its tests/test_validation.py."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pyhf
import pytest

from diffhep.inference import (
    Code0,
    Code1,
    Code2,
    Code4,
    Code4p,
    DiscoveryTest,
    FitStatus,
    LimitTest,
    Measurement,
    fit_measurement,
    histfactory,
    hypothesis_test,
)


# pyhf's validation of schemas uses what jsonschema calls deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:jsonschema.RefResolver")

_test = eqx.filter_jit(hypothesis_test)

# CLs (for q0 the p-value): observed, expected for -2 to 2 standard deviations, and how
# exact they are. pyhf's tests allow 1e-6 to 8e-5, for they repeat the same inexact
# minima; the numbers here are their distances from exact ones, rounded up.
EXPECTED = {
    "1bin_shapesys": (
        0.45418892944576333,
        [
            0.06372011644331387,
            0.1509686618126131,
            0.3279657430196915,
            0.604613569829645,
            0.8662652332047568,
        ],
        5e-5,
    ),
    "1bin_shapesys_q0": (
        0.003936883191585841,
        [
            1.2204714710520103e-05,
            0.0006405237426269669,
            0.013202867164405075,
            0.11119604157594337,
            0.41286079728391695,
        ],
        4e-4,
    ),
    "1bin_lumi": (
        0.010473144401519705,
        [
            0.01060400765567206,
            0.04022451457730529,
            0.13614632580079802,
            0.37078985531427255,
            0.7110468540175344,
        ],
        5e-5,
    ),
    "1bin_normsys": (
        0.0006735336290569807,
        [
            7.472581399417304e-10,
            5.741738272450336e-08,
            3.690120950161796e-06,
            0.00016966882793076826,
            0.004392935288879465,
        ],
        3e-5,
    ),
    "2bin_histosys": (
        0.1001463460725534,
        [
            7.133904244038431e-06,
            0.00012547100627138575,
            0.001880010666437615,
            0.02078964907605385,
            0.13692494523572218,
        ],
        8e-5,
    ),
    "2bin_2channel": (
        0.0563327694384318,
        [
            0.0004349234603527283,
            0.003422361539161119,
            0.02337454317608372,
            0.12186650297311125,
            0.40382274594391104,
        ],
        3e-5,
    ),
    "couplednorm": (
        0.5906216823766879,
        [
            0.05522270453784095,
            0.1361301880753241,
            0.30686879632329855,
            0.5839437910061168,
            0.8554708284963864,
        ],
        2e-4,
    ),
    "coupledhistosys": (
        0.07967400132261188,
        [
            1.7654378902209275e-05,
            0.00026266409358853543,
            0.0033401113778672156,
            0.03152286332324451,
            0.17907927340107824,
        ],
        5e-5,
    ),
    "coupledshapefactor": (
        0.5421679124909312,
        [
            0.013753299929451691,
            0.048887400056355966,
            0.15555296253957684,
            0.4007561343326305,
            0.7357169630955912,
        ],
        2.5e-6,
    ),
}


def _measurement(content):
    workspace = histfactory.read_workspace(content)
    # What pyhf's tests use.
    model = histfactory.build_model(workspace, shape_code=Code0(), norm_code=Code1())
    return histfactory.measure(model, histfactory.observed_data(workspace, model))


def _outcome(measurement, *, discovery):
    statistic = DiscoveryTest() if discovery else LimitTest()
    strength = jnp.asarray(0.0 if discovery else 1.0)
    found = _test(measurement, strength, statistic=statistic)
    assert found.status == FitStatus.converged
    if discovery:
        return found.p_tested, found.expected_p_tested
    return found.cls, found.expected_cls


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_published_values(validation, name):
    *published, rtol = EXPECTED[name]
    measurement = _measurement(validation[name])
    if name == "coupledhistosys":
        measurement = _upper_branch(measurement)
    found = _outcome(measurement, discovery=name.endswith("q0"))
    for value, wanted in zip(found, published, strict=True):
        np.testing.assert_allclose(value, wanted, rtol=rtol)


def _upper_branch(measurement):
    # Code 0 has a kink at zero, with a minimum on either side; pyhf's fits end in the
    # upper one also where the lower one is deeper.
    lower, start = measurement.lower.at[0].set(0.0), measurement.start.at[0].set(0.2)
    return Measurement(
        measurement.likelihood,
        start,
        lower,
        measurement.upper,
        measurement.fixed,
        measurement.poi,
    )


# By 40-digit arithmetic (mpmath) from the conditions of stationarity.
EXACT = {
    "1bin_shapesys": 0.454186530215598613,
    "1bin_shapesys_q0": 0.003936878440203908251,
    "1bin_lumi": 0.010472829226693585321,
}


@pytest.mark.parametrize("name", sorted(EXACT))
def test_exact_values(validation, name):
    found, _ = _outcome(_measurement(validation[name]), discovery=name.endswith("q0"))
    np.testing.assert_allclose(found, EXACT[name], rtol=1e-11)


@pytest.mark.parametrize("name", sorted(set(EXPECTED) - {"coupledhistosys"}))
def test_values_of_pyhf_with_exact_minima(validation, name):
    # pyhf's likelihood and formulas with a well-converged Minuit, to the tolerance that
    # pyhf's tests ask for at best.
    discovery = name.endswith("q0")
    found = _outcome(_measurement(validation[name]), discovery=discovery)
    _, peer, data = _peer(validation[name], "code0", "code1")
    optimiser = pyhf.optimize.minuit_optimizer(tolerance=1e-9, strategy=2)
    pyhf.set_backend("numpy", optimiser)
    try:
        wanted = pyhf.infer.hypotest(
            0.0 if discovery else 1.0,
            data,
            peer,
            test_stat="q0" if discovery else "q",
            return_expected_set=True,
        )
    finally:
        pyhf.set_backend("numpy")
    np.testing.assert_allclose(found[0], wanted[0], rtol=1e-6)
    np.testing.assert_allclose(found[1], np.ravel(wanted[1]), rtol=1e-5)


def test_both_sides_of_a_kink_are_searched(validation):
    measurement = _measurement(validation["coupledhistosys"])
    # A scan in steps of 0.01 and 0.001 finds 14.643762 at 0.31 and 0.5; the minimum of
    # the other side is 15.142650.
    best = fit_measurement(measurement)
    value = measurement.likelihood.value(best.parameters)
    assert 14.6437 < value < 14.643762
    np.testing.assert_allclose(best.parameters, [0.3127, 0.5006], atol=1e-4)


def _pair(content, shape_code, norm_code):
    # Our model and data, and pyhf's.
    workspace = histfactory.read_workspace(content)
    ours = {
        "code0": Code0(),
        "code2": Code2(),
        "code4p": Code4p(),
        "code1": Code1(),
        "code4": Code4(),
    }
    model = histfactory.build_model(
        workspace, shape_code=ours[shape_code], norm_code=ours[norm_code]
    )
    data = histfactory.observed_data(workspace, model)
    return model, data, *_peer(content, shape_code, norm_code)[1:]


def _peer(content, shape_code, norm_code):
    workspace = pyhf.Workspace(content)
    codes = {"histosys": shape_code, "normsys": norm_code}
    settings = {kind: {"interpcode": code} for kind, code in codes.items()}
    model = workspace.model(modifier_settings=settings)
    return workspace, model, np.asarray(workspace.data(model))


@pytest.mark.parametrize(
    ("shape_code", "norm_code"),
    [("code0", "code1"), ("code2", "code1"), ("code4p", "code4")],
)
def test_every_modifier_equals_pyhf(rich, shape_code, norm_code):
    model, data, peer, peer_data = _pair(rich, shape_code, norm_code)
    config = peer.config
    assert list(model.names) == config.par_names
    assert model.layout.poi == config.poi_index
    np.testing.assert_array_equal(model.start, config.suggested_init())
    bounds = jnp.stack([model.lower, model.upper], axis=1)
    np.testing.assert_array_equal(bounds, config.suggested_bounds())
    np.testing.assert_array_equal(model.fixed, config.suggested_fixed())
    ours = jnp.concatenate([data.counts, data.auxiliary])
    np.testing.assert_allclose(ours, peer_data, rtol=1e-15)
    nll = jax.jit(lambda p: histfactory.negative_log_likelihood(model, p, data))
    expected = jax.jit(lambda p: histfactory.expected_data(model, p))
    random = np.random.default_rng(5)
    # Code 2 of pyhf jumps at one standard deviation, ours does not.
    spread = 0.3 if shape_code == "code2" else 1.5
    for _ in range(20):
        shift = random.uniform(-spread, spread, len(model.names))
        interpolated = np.asarray(model.start) == 0
        point = np.where(interpolated, shift, np.abs(shift) + 0.1)
        wanted = -np.asarray(peer.logpdf(point, peer_data))[0]
        np.testing.assert_allclose(nll(jnp.asarray(point)), wanted, rtol=1e-12)
        average = expected(jnp.asarray(point))
        both = jnp.concatenate([average.counts, average.auxiliary])
        np.testing.assert_allclose(both, peer.expected_data(point), rtol=1e-13)
