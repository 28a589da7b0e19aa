import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from diffhep.helix import perigee_at, perigee_from_point
from diffhep.vertexing import AdaptiveWeights, VertexStatus, fit_vertex


TRACKS = 8
FIELD = jnp.asarray(2.0)
WIDTHS = jnp.asarray([0.03, 0.05, 1e-3, 1e-3, 1e-3])
PRECISION = 1e-8 * jnp.eye(3)
ADAPTIVE = AdaptiveWeights(jnp.asarray(1.3), jnp.asarray(3.0))


def _tracks(vertex, *, key, tracks=TRACKS):
    """Tracks from a vertex, smeared with correlated errors: parameters, covariance."""
    keys = jax.random.split(key, 5)
    phi = jax.random.uniform(keys[0], (tracks,), minval=-3.1, maxval=3.1)
    theta = jax.random.uniform(keys[1], (tracks,), minval=0.5, maxval=2.6)
    bend = 0.5 * jax.random.normal(keys[2], (tracks,))
    exact = jax.vmap(perigee_from_point, (None, 0, 0, 0, None))(
        vertex, phi, theta, bend, FIELD
    )
    mixing = 0.3 * jnp.tril(jax.random.normal(keys[3], (tracks, 5, 5)), -1)
    root = WIDTHS[None, :, None] * (jnp.eye(5)[None] + mixing)
    noise = jax.random.normal(keys[4], (tracks, 5))
    covariance = jnp.einsum("nab,ncb->nac", root, root)
    return exact + jnp.einsum("nab,nb->na", root, noise), covariance


def _arguments(*, key=3):
    """Everything that a fit depends on, by name, with two dead slots."""
    vertex = jnp.asarray([1.0, -2.0, 5.0])
    parameters, covariance = _tracks(vertex, key=jax.random.key(key))
    return {
        "parameters": parameters,
        "covariance": covariance,
        "weight": jnp.linspace(0.2, 1.0, TRACKS),
        "field": FIELD,
        "prior_mean": vertex + jnp.asarray([0.1, 0.2, -0.3]),
        "prior_precision": jnp.diag(jnp.asarray([30.0, 20.0, 10.0])),
        "adaptive": ADAPTIVE,
    }


MASK = jnp.arange(TRACKS) < TRACKS - 2


def _fit(arguments, mask, *, adaptive=False):
    rest = {k: v for k, v in arguments.items() if k not in {"adaptive", "weight"}}
    return fit_vertex(
        rest.pop("parameters"),
        rest.pop("covariance"),
        arguments["weight"],
        mask,
        rest.pop("field"),
        start=arguments["prior_mean"],
        adaptive=arguments["adaptive"] if adaptive else None,
        num_steps=12,
        **rest,
    )


def _outputs(arguments, mask, *, adaptive=False):
    fit = _fit(arguments, mask, adaptive=adaptive)
    # In units of their size, so that each counts.
    return fit.position, 1e4 * fit.covariance, fit.chi2, fit.ndf


def _scalar(arguments, mask, *, adaptive=False):
    outputs = _outputs(arguments, mask, adaptive=adaptive)
    flat = jnp.concatenate([jnp.ravel(x) for x in outputs])
    return jnp.sum(jnp.sin(flat + jnp.arange(1.0 * flat.size)))


fit = jax.jit(_fit, static_argnames="adaptive")
value_and_grad = jax.jit(jax.value_and_grad(_scalar), static_argnames="adaptive")


@functools.partial(jax.jit, static_argnames="number")
def _toys(number, weight, key):
    def one(key):
        keys = jax.random.split(key)
        vertex = jax.random.normal(keys[0], (3,)) * jnp.asarray([2.0, 2.0, 20.0])
        parameters, covariance = _tracks(vertex, key=keys[1])
        found = fit_vertex(
            parameters,
            covariance,
            weight,
            jnp.ones(TRACKS, bool),
            FIELD,
            prior_mean=vertex,
            prior_precision=PRECISION,
            start=vertex + jnp.asarray([1.0, -2.0, 3.0]),
        )
        spread = jnp.sqrt(jnp.diagonal(found.covariance))
        pulls = (found.position - vertex) / spread
        return pulls, found.chi2, found.ndf, found.converged

    return jax.vmap(one)(jax.random.split(key, number))


@pytest.mark.parametrize("least", [1.0, 0.05])
def test_pulls_and_chi2(least):
    number = 4000
    weight = jnp.linspace(least, 1.0, TRACKS)
    pulls, chi2, ndf, converged = _toys(number, weight, jax.random.key(1))
    assert bool(converged.all())
    # Three standard errors of a mean and of a width.
    assert np.all(np.abs(pulls.mean(0)) < 3 / np.sqrt(number))
    assert np.all(np.abs(pulls.std(0) - 1) < 3 / np.sqrt(2 * number))
    error = chi2.std() / np.sqrt(number)
    assert abs(chi2.mean() - ndf.mean()) < 3 * error
    if least == 1:
        np.testing.assert_allclose(ndf, 2 * TRACKS - 3, rtol=1e-5)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_few_tracks_are_defined_by_the_prior(number):
    arguments = _arguments()
    mask = jnp.arange(TRACKS) < number
    found = fit(arguments, mask)
    assert bool(found.converged)
    prior = jnp.linalg.inv(arguments["prior_precision"])
    assert found.status == (VertexStatus.good if number else VertexStatus.no_tracks)
    if number == 0:
        np.testing.assert_allclose(found.position, arguments["prior_mean"], rtol=1e-12)
        np.testing.assert_allclose(found.covariance, prior, rtol=1e-12)
        assert found.ndf == found.chi2 == 0
    assert np.linalg.eigvalsh(prior - found.covariance).min() > -1e-12
    assert found.ndf > -1e-12
    _, gradient = value_and_grad(arguments, mask)
    assert all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves(gradient))


def test_the_covariance_of_one_track_is_one_in_single_precision_too():
    # A millimetre's prior and micrometres across the track: a condition of a million.
    arguments = _arguments()
    arguments |= {
        "covariance": 0.1 * arguments["covariance"],
        "prior_precision": 1e-2 * jnp.eye(3),
    }
    single = jax.tree.map(lambda x: x.astype("float32"), arguments)
    with jax.enable_x64(False):
        covariance = np.asarray(_fit(single, jnp.arange(TRACKS) == 2).covariance)
    np.testing.assert_array_equal(covariance, covariance.T)
    variances = np.linalg.eigvalsh(covariance.astype(float))
    assert variances[0] > 0
    assert variances[-1] > 1e5 * variances[0]


def _parallel(apart):
    arguments = _arguments()
    one = arguments["parameters"][0]
    aside = (
        jnp.asarray([[1.0, 1, 0, 0, 0]]) * jnp.linspace(-apart, apart, TRACKS)[:, None]
    )
    arguments["parameters"] = one[None, :] + aside
    arguments["covariance"] = jnp.broadcast_to(jnp.diag(WIDTHS**2), (TRACKS, 5, 5))
    return arguments


def test_parallel_tracks_leave_the_flight_to_the_prior():
    arguments = _parallel(0.02)
    found = fit(arguments, MASK)
    assert bool(found.converged)
    assert found.status == VertexStatus.good
    assert np.linalg.eigvalsh(found.covariance).max() < 1 / 10.0 + 1e-9
    _, gradient = value_and_grad(arguments, MASK)
    assert all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves(gradient))


def test_what_is_open_within_rounding_is_undetermined():
    arguments = _parallel(0.0) | {"prior_precision": 1e-14 * jnp.eye(3)}
    found = fit(arguments, MASK)
    assert found.status == VertexStatus.undetermined
    assert not found.converged
    np.testing.assert_allclose(found.covariance, 1e14 * np.eye(3), rtol=1e-12)
    _, gradient = value_and_grad(arguments, MASK)
    for leaf in jax.tree.leaves((found, gradient)):
        assert bool(jnp.isfinite(leaf).all())


def _singular(name, covariance):
    # Of one track.
    root = jnp.linalg.cholesky(covariance)
    return {
        "a parameter without error": covariance.at[3, :].set(0.0).at[:, 3].set(0.0),
        "no errors": 0 * covariance,
        "two that are one": (root.at[4].set(2 * root[2]))
        @ root.at[4].set(2 * root[2]).T,
        "a negative variance": covariance.at[0, 0].set(-1e-4),
        "correlated by more than one": covariance.at[0, 1].set(1.0).at[1, 0].set(1.0),
        "NaN": covariance.at[2, 2].set(jnp.nan),
        "infinite": covariance.at[2, 2].set(jnp.inf),
    }[name]


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize(
    "kind",
    [
        "a parameter without error",
        "no errors",
        "two that are one",
        "a negative variance",
        "correlated by more than one",
        "NaN",
        "infinite",
    ],
)
def test_a_singular_track_is_left_out_and_said_so(kind, adaptive):
    arguments = _arguments()
    wrong = _singular(kind, arguments["covariance"][2])
    changed = arguments | {"covariance": arguments["covariance"].at[2].set(wrong)}
    without = fit(arguments, MASK.at[2].set(False), adaptive=adaptive)
    found = fit(changed, MASK, adaptive=adaptive)
    assert found.status == VertexStatus.singular_track
    assert without.status == VertexStatus.good
    assert bool(found.converged)
    assert found.weight[2] == 0
    for name in ("position", "covariance", "chi2", "ndf", "weight"):
        np.testing.assert_array_equal(getattr(found, name), getattr(without, name))
    _, ours = value_and_grad(changed, MASK, adaptive=adaptive)
    _, theirs = value_and_grad(arguments, MASK.at[2].set(False), adaptive=adaptive)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert bool(jnp.isfinite(a).all())
        np.testing.assert_array_equal(a, b)


def test_only_singular_tracks_leave_the_prior():
    arguments = _arguments()
    arguments["covariance"] = 0 * arguments["covariance"]
    found = fit(arguments, MASK)
    assert found.status == VertexStatus.singular_track
    np.testing.assert_allclose(found.position, arguments["prior_mean"], rtol=1e-12)
    _, gradient = value_and_grad(arguments, MASK)
    assert all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves(gradient))


def test_too_few_steps_are_said_so():
    arguments = _arguments()
    far = arguments["prior_mean"] + jnp.asarray([80.0, -90.0, 70.0])
    found = fit_vertex(
        arguments["parameters"],
        arguments["covariance"],
        arguments["weight"],
        MASK,
        FIELD,
        prior_mean=arguments["prior_mean"],
        prior_precision=arguments["prior_precision"],
        start=far,
        num_steps=1,
    )
    assert not found.converged
    assert found.status == VertexStatus.not_converged


@functools.partial(jax.jit, static_argnames="number")
def _with_outliers(key, side, number):
    # Three of ten tracks are from elsewhere.
    outliers = jnp.arange(10) < 3

    def toy(key):
        keys = jax.random.split(key, 3)
        vertex = jax.random.normal(keys[0], (3,)) * jnp.asarray([0.5, 0.5, 20.0])
        parameters, covariance = _tracks(vertex, key=keys[1], tracks=10)
        # All to one side: what is not rejected biases.
        shift = jnp.asarray([0.25, 0.5]) * (1 + 3 * jax.random.uniform(keys[2], (2,)))
        shift = side * jnp.concatenate([shift, jnp.zeros(3)])
        parameters = parameters + jnp.where(outliers[:, None], shift[None, :], 0.0)
        found = fit_vertex(
            parameters,
            covariance,
            jnp.ones(10),
            jnp.ones(10, bool),
            FIELD,
            prior_mean=jnp.zeros(3),
            prior_precision=jnp.diag(jnp.asarray([1.0, 1.0, 1 / 45**2])),
            start=vertex + jnp.asarray([0.1, 0.2, 0.5]),
            num_steps=6,
            adaptive=AdaptiveWeights(jnp.asarray(1.0), jnp.asarray(3.0)),
        )
        # Some inliers lose weight, too, which the covariance knows.
        pulls = (found.position - vertex) / jnp.sqrt(jnp.diagonal(found.covariance))
        return pulls, found.weight, found.converged

    return jax.vmap(toy)(jax.random.split(key, number))


@pytest.mark.parametrize("side", [1.0, -1.0])
def test_adaptive_fit_is_unbiased_with_outliers(side):
    number = 4000
    key = jax.random.key(2)
    pulls, weight, converged = _with_outliers(key, jnp.asarray(side), number)
    pulls, weight = np.asarray(pulls)[converged], np.asarray(weight)[converged]
    assert converged.mean() > 0.99
    assert weight[:, :3].mean() < 0.02
    assert weight[:, 3:].mean() > 0.9
    # Three standard errors, of a median and of a mean.
    error = pulls.std(0) / np.sqrt(len(pulls))
    assert np.all(np.abs(np.median(pulls, axis=0)) < 3 * 1.25 * error)
    assert np.all(np.abs(pulls.mean(0)) < 3 * error)


@settings(max_examples=15, deadline=None)
@given(order=st.permutations(range(TRACKS)), key=st.integers(0, 1000))
def test_the_order_of_the_tracks_does_not_matter(order, key):
    arguments, order = _arguments(key=key), jnp.asarray(order)
    shuffled = arguments | {
        name: arguments[name][order] for name in ("parameters", "covariance", "weight")
    }
    one, other = fit(arguments, MASK), fit(shuffled, MASK[order])
    np.testing.assert_allclose(one.position, other.position, rtol=1e-9)
    np.testing.assert_allclose(one.covariance, other.covariance, rtol=1e-7)
    np.testing.assert_allclose(one.chi2, other.chi2, rtol=1e-7)
    np.testing.assert_allclose(
        one.compatibility[order], other.compatibility, rtol=1e-6, atol=1e-9
    )


@jax.jit
def _moved(parameters, covariance, shift):
    def one(parameters, covariance):
        jacobian = jax.jacfwd(perigee_at)(parameters, -shift, FIELD)
        moved = perigee_at(parameters, -shift, FIELD)
        return moved, jacobian @ covariance @ jacobian.T

    return jax.vmap(one)(parameters, covariance)


@settings(max_examples=15, deadline=None)
@given(
    shift=st.tuples(*[st.floats(-20, 20)] * 3).map(np.asarray),
    key=st.integers(0, 1000),
)
def test_the_vertex_moves_with_the_tracks(shift, key):
    arguments, shift = _arguments(key=key), jnp.asarray(shift)
    parameters, covariance = _moved(
        arguments["parameters"], arguments["covariance"], shift
    )
    moved = arguments | {
        "parameters": parameters,
        "covariance": covariance,
        "prior_mean": arguments["prior_mean"] + shift,
    }
    one, other = fit(arguments, MASK), fit(moved, MASK)
    np.testing.assert_allclose(one.position + shift, other.position, atol=1e-8)
    np.testing.assert_allclose(one.covariance, other.covariance, rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(one.chi2, other.chi2, rtol=1e-6, atol=1e-9)
