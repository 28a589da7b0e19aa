import functools

import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
import pytest
from hypothesis import given, settings, strategies as st

from diffhep.helix import perigee_at, perigee_from_point
from diffhep.testing import check_gradient
from diffhep.vertexing import AdaptiveWeights, fit_vertex


TRACKS = 8
FIELD = jnp.asarray(2.0)
WIDTHS = jnp.asarray([0.03, 0.05, 1e-3, 1e-3, 1e-3])
PRECISION = 1e-8 * jnp.eye(3)
UNROLLED = optx.RecursiveCheckpointAdjoint()
ADAPTIVE = AdaptiveWeights(jnp.asarray(1.3), jnp.asarray(3.0))


def _tracks(vertex, *, key):
    """Tracks from a vertex, smeared with correlated errors: parameters, covariance."""
    keys = jax.random.split(key, 5)
    phi = jax.random.uniform(keys[0], (TRACKS,), minval=-3.1, maxval=3.1)
    theta = jax.random.uniform(keys[1], (TRACKS,), minval=0.5, maxval=2.6)
    bend = 0.5 * jax.random.normal(keys[2], (TRACKS,))
    exact = jax.vmap(perigee_from_point, (None, 0, 0, 0, None))(
        vertex, phi, theta, bend, FIELD
    )
    mixing = 0.3 * jnp.tril(jax.random.normal(keys[3], (TRACKS, 5, 5)), -1)
    root = WIDTHS[None, :, None] * (jnp.eye(5)[None] + mixing)
    noise = jax.random.normal(keys[4], (TRACKS, 5))
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


def _fit(arguments, mask, *, adaptive=False, adjoint=None):
    rest = {k: v for k, v in arguments.items() if k not in {"adaptive", "weight"}}
    return fit_vertex(
        rest.pop("parameters"),
        rest.pop("covariance"),
        arguments["weight"],
        mask,
        rest.pop("field"),
        start=arguments["prior_mean"],
        adaptive=arguments["adaptive"] if adaptive else None,
        # Many, for the unrolled derivative converges like the solution.
        num_steps=12,
        adjoint=adjoint,
        **rest,
    )


def _outputs(arguments, mask, *, adaptive=False, adjoint=None):
    fit = _fit(arguments, mask, adaptive=adaptive, adjoint=adjoint)
    # In units of their size, so that each counts.
    return fit.position, 1e4 * fit.covariance, fit.chi2, fit.ndf


def _scalar(arguments, mask, *, adaptive=False, adjoint=None):
    outputs = _outputs(arguments, mask, adaptive=adaptive, adjoint=adjoint)
    flat = jnp.concatenate([jnp.ravel(x) for x in outputs])
    return jnp.sum(jnp.sin(flat + jnp.arange(1.0 * flat.size)))


fit = jax.jit(_fit, static_argnames="adaptive")
value_and_grad = jax.jit(
    jax.value_and_grad(_scalar), static_argnames=("adaptive", "adjoint")
)


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


@pytest.mark.parametrize("adaptive", [False, True])
def test_gradient_equals_finite_differences(adaptive):
    # Matrices have to stay symmetric under the random directions.
    def function(arguments):
        symmetric = {
            name: (arguments[name] + arguments[name].swapaxes(-1, -2)) / 2
            for name in ("covariance", "prior_precision")
        }
        arguments = arguments | symmetric
        return _scalar(arguments, MASK, adaptive=adaptive)

    # Forward mode once: each mode is a compilation.
    check_gradient(function, (_arguments(),), rtol=1e-7, eps=2e-5, forward=not adaptive)


@pytest.mark.parametrize("adaptive", [False, True])
def test_implicit_equals_unrolled(adaptive):
    arguments = _arguments()
    _, implicit = value_and_grad(arguments, MASK, adaptive=adaptive)
    _, unrolled = value_and_grad(arguments, MASK, adaptive=adaptive, adjoint=UNROLLED)
    for name in arguments:
        if name == "adaptive" and not adaptive:
            continue
        for ours, theirs in zip(
            jax.tree.leaves(implicit[name]),
            jax.tree.leaves(unrolled[name]),
            strict=True,
        ):
            scale = np.abs(theirs).max()
            assert scale > 0, f"nothing depends on {name}"
            np.testing.assert_allclose(ours, theirs, atol=1e-9 * scale, rtol=0)


def test_second_derivative_is_the_derivative_of_the_first():
    arguments = _arguments()

    def position(shift):
        moved = arguments["parameters"] + shift * WIDTHS[None, :]
        return _fit(arguments | {"parameters": moved}, MASK).position

    def slope(shift):
        return jax.jvp(position, (shift,), (jnp.ones(()),))[1]

    both = jax.jit(lambda shift: jax.jvp(slope, (shift,), (jnp.ones(()),)))
    _, second = both(jnp.zeros(()))
    step = 1e-3
    up, down = both(jnp.asarray(step))[0], both(jnp.asarray(-step))[0]
    assert np.all(np.abs(second) > 0)
    # Of second order in the step, and of rounding: 1e-14 mm over it.
    np.testing.assert_allclose(second, (up - down) / (2 * step), rtol=1e-4)


@pytest.mark.parametrize("adaptive", [False, True])
def test_padding_is_inert(adaptive):
    def poisoned(value):
        arguments = _arguments()
        for name in ("parameters", "covariance", "weight"):
            array = arguments[name]
            dead = jnp.reshape(~MASK, (-1,) + (1,) * (array.ndim - 1))
            arguments[name] = jnp.where(dead, value, array)
        return value_and_grad(arguments, MASK, adaptive=adaptive)

    clean = poisoned(0.0)
    for name in ("parameters", "covariance", "weight"):
        assert np.all(np.asarray(clean[1][name])[~MASK] == 0)
    for value in (jnp.nan, jnp.inf, 1e30):
        dirty = poisoned(value)
        for a, b in zip(jax.tree.leaves(clean), jax.tree.leaves(dirty), strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_few_tracks_are_defined_by_the_prior(number):
    arguments = _arguments()
    mask = jnp.arange(TRACKS) < number
    found = fit(arguments, mask)
    assert bool(found.converged)
    prior = jnp.linalg.inv(arguments["prior_precision"])
    if number == 0:
        np.testing.assert_allclose(found.position, arguments["prior_mean"], rtol=1e-12)
        np.testing.assert_allclose(found.covariance, prior, rtol=1e-12)
        assert found.ndf == found.chi2 == 0
    assert np.linalg.eigvalsh(prior - found.covariance).min() > -1e-12
    assert found.ndf > -1e-12
    _, gradient = value_and_grad(arguments, mask)
    assert all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves(gradient))


def test_parallel_tracks_leave_the_flight_to_the_prior():
    arguments = _arguments()
    one = arguments["parameters"][0]
    aside = (
        jnp.asarray([[1.0, 1, 0, 0, 0]]) * jnp.linspace(-0.02, 0.02, TRACKS)[:, None]
    )
    arguments["parameters"] = one[None, :] + aside
    arguments["covariance"] = jnp.broadcast_to(jnp.diag(WIDTHS**2), (TRACKS, 5, 5))
    found = fit(arguments, MASK)
    assert bool(found.converged)
    assert np.linalg.eigvalsh(found.covariance).max() < 1 / 10.0 + 1e-9
    _, gradient = value_and_grad(arguments, MASK)
    assert all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves(gradient))


def test_adaptive_fit_is_unbiased_with_outliers():
    number = 2000
    outliers = jnp.arange(TRACKS) < 3

    @jax.jit
    @jax.vmap
    def toy(key):
        keys = jax.random.split(key, 3)
        vertex = jax.random.normal(keys[0], (3,)) * jnp.asarray([0.5, 0.5, 20.0])
        parameters, covariance = _tracks(vertex, key=keys[1])
        # All to one side: what is not rejected biases.
        shift = jnp.asarray([1.0, 4.0]) * (1 + jax.random.uniform(keys[2], (2,)))
        shift = jnp.concatenate([shift, jnp.zeros(3)])
        parameters = parameters + jnp.where(outliers[:, None], shift[None, :], 0.0)
        found = fit_vertex(
            parameters,
            covariance,
            jnp.ones(TRACKS),
            jnp.ones(TRACKS, bool),
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

    pulls, weight, converged = toy(jax.random.split(jax.random.key(2), number))
    pulls, weight = np.asarray(pulls)[converged], np.asarray(weight)[converged]
    assert converged.mean() > 0.99
    assert weight[:, outliers].mean() < 0.02
    assert weight[:, ~outliers].mean() > 0.9
    assert np.all(np.abs(np.median(pulls, axis=0)) < 3 * 1.25 / np.sqrt(len(pulls)))


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
