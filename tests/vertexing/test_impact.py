import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffhep.helix import perigee_at
from diffhep.vertexing import (
    chi2_of,
    impact_at,
    track_state,
    with_vertex_covariance,
)


TRACKS = 40
FIELD = jnp.asarray(3.8)


def _tracks():
    random = np.random.default_rng(5)
    parameters = np.stack(
        [
            random.normal(0, 3, TRACKS),
            random.normal(0, 40, TRACKS),
            random.uniform(-3.1, 3.1, TRACKS),
            random.uniform(0.4, 2.7, TRACKS),
            random.uniform(-1, 1, TRACKS),
        ],
        axis=1,
    )
    parameters[:2, 4] = 0, 1e-9  # straight, and nearly so
    root = random.normal(size=(TRACKS, 5, 5))
    return jnp.asarray(parameters), jnp.asarray(root @ root.swapaxes(1, 2))


def _by_differentiation(parameters, covariance, point):
    # Two independent derivations: automatic differentiation of the helix.
    def impact(parameters, point):
        return perigee_at(parameters, point, FIELD)[:2]

    value = jax.vmap(impact, (0, None))(parameters, point)
    to_track = jax.vmap(jax.jacfwd(impact), (0, None))(parameters, point)
    to_point = jax.vmap(jax.jacfwd(impact, 1), (0, None))(parameters, point)
    spread = jnp.einsum("nia,nab,njb->nij", to_track, covariance, to_track)
    return value, spread, to_point


@pytest.mark.parametrize("size", [0.0, 1.0, 10.0, 200.0])
def test_closed_form_equals_the_derivative_of_the_helix(size):
    parameters, covariance = _tracks()
    point = size * jnp.asarray([1.2, -0.8, 0.7])
    value, spread, to_point = _by_differentiation(parameters, covariance, point)
    alive = jnp.ones(TRACKS, bool)
    state = track_state(parameters, covariance, alive, FIELD)
    impact = impact_at(state, point[:, None])
    close = {"rtol": 1e-10, "atol": 1e-10}
    np.testing.assert_allclose(impact.d0, value[:, 0], **close)
    np.testing.assert_allclose(impact.z0, value[:, 1], **close)
    np.testing.assert_allclose(impact.variance_d0, spread[:, 0, 0], **close)
    np.testing.assert_allclose(impact.covariance, spread[:, 0, 1], **close)
    np.testing.assert_allclose(impact.variance_z0, spread[:, 1, 1], **close)
    np.testing.assert_allclose(impact.sine, to_point[:, 0, 0], **close)
    np.testing.assert_allclose(-impact.cosine, to_point[:, 0, 1], **close)
    np.testing.assert_allclose(impact.gradient_x, to_point[:, 1, 0], **close)
    np.testing.assert_allclose(impact.gradient_y, to_point[:, 1, 1], **close)
    chi2 = jnp.einsum("ni,nij,nj->n", value, jnp.linalg.inv(spread), value)
    np.testing.assert_allclose(chi2_of(impact), chi2, rtol=1e-9)


def test_uncertainty_of_the_vertex_is_added():
    parameters, covariance = _tracks()
    point = jnp.asarray([0.3, -0.2, 5.0])
    vertex = jnp.asarray([[4.0, 1.0, 0.5], [1.0, 3.0, -0.2], [0.5, -0.2, 2.0]])
    _, spread, to_point = _by_differentiation(parameters, covariance, point)
    expected = spread + jnp.einsum("nia,ab,njb->nij", to_point, vertex, to_point)
    state = track_state(parameters, covariance, jnp.ones(TRACKS, bool), FIELD)
    impact = with_vertex_covariance(impact_at(state, point[:, None]), vertex)
    np.testing.assert_allclose(impact.variance_d0, expected[:, 0, 0], rtol=1e-10)
    np.testing.assert_allclose(impact.covariance, expected[:, 0, 1], rtol=1e-9)
    np.testing.assert_allclose(impact.variance_z0, expected[:, 1, 1], rtol=1e-10)


def test_float32_is_good_to_a_micrometre():
    parameters, covariance = _tracks()
    point = jnp.asarray([1.2, -0.8, 0.7])
    value, _, _ = _by_differentiation(parameters, covariance, point)
    low = [
        x.astype(jnp.float32) for x in (parameters, covariance, FIELD, point[:, None])
    ]
    state = track_state(low[0], low[1], jnp.ones(TRACKS, bool), low[2])
    impact = impact_at(state, low[3])
    assert impact.d0.dtype == jnp.float32
    np.testing.assert_allclose(impact.d0, value[:, 0], atol=1e-3)
    # Lengths of 100 mm have seven digits.
    np.testing.assert_allclose(impact.z0, value[:, 1], atol=1e-3, rtol=1e-5)


@pytest.mark.parametrize("size", [0.0, 1.0, 10.0, 200.0])
def test_derivatives_to_any_order_are_those_of_the_helix(size):
    # The fit differentiates impact parameters and their covariance by rules of its
    # own; automatic differentiation of the helix knows nothing of them.
    parameters, covariance = _tracks()
    point = size * jnp.asarray([1.2, -0.8, 0.7])

    def by_rules(parameters, root, point):
        covariance = root @ root.swapaxes(1, 2)
        state = track_state(parameters, covariance, jnp.ones(TRACKS, bool), FIELD)
        impact = impact_at(state, point[:, None])
        spread = (impact.variance_d0, impact.covariance, impact.variance_z0)
        return _number(impact.d0, impact.z0, *spread)

    def by_helix(parameters, root, point):
        covariance = root @ root.swapaxes(1, 2)
        value, spread, _ = _by_differentiation(parameters, covariance, point)
        elements = spread[:, 0, 0], spread[:, 0, 1], spread[:, 1, 1]
        return _number(value[:, 0], value[:, 1], *elements)

    given = parameters, jnp.linalg.cholesky(covariance), point
    for first, other in zip(
        *(jax.grad(f, (0, 1, 2))(*given) for f in (by_rules, by_helix)), strict=True
    ):
        scale = jnp.max(jnp.abs(other))
        np.testing.assert_allclose(first / scale, other / scale, atol=1e-11)
    second = [jax.hessian(f, 2)(*given) for f in (by_rules, by_helix)]
    np.testing.assert_allclose(*second, rtol=1e-8, atol=1e-8)


def _number(d0, z0, variance_d0, mixed, variance_z0):
    # Every element with a weight of its own.
    shares = jnp.cos(jnp.arange(5.0 * TRACKS)).reshape(5, TRACKS)
    terms = jnp.stack([d0, z0, variance_d0, mixed, variance_z0])
    return jnp.sum(shares * jnp.tanh(terms / 50))
