"""Fits with constraints: against algebra, SLSQP and finite differences."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
import pytest
from scipy.optimize import minimize

from diffhep.helix import perigee_at
from diffhep.testing import check_gradient
from diffhep.vertexing import ConstraintStatus, fit_constrained, fit_decay


_MEASURED = jnp.array([1.2, -0.7, 2.1, 0.4])
_ROOT = jnp.tril(jnp.ones((4, 4))) * jnp.array([0.1, 0.2, 0.05, 0.3])[:, None]
_COVARIANCE = _ROOT @ _ROOT.T
_FIELD = jnp.asarray(2.0)
_PION, _KAON = 0.13957039, 0.497611


class _Linear(eqx.Module):
    slopes: jax.Array
    free: jax.Array
    values: jax.Array

    def __call__(self, measured, unmeasured):
        return self.slopes @ measured + self.free @ unmeasured - self.values


def _linear(size=3):
    keys = jax.random.split(jax.random.key(0), 3)
    return _Linear(
        jax.random.normal(keys[0], (size, 4)),
        jax.random.normal(keys[1], (size, 1)),
        jax.random.normal(keys[2], (size,)),
    )


def test_linear_constraints_are_met_in_one_step():
    linear = _linear()
    fit = fit_constrained(
        _MEASURED, _COVARIANCE, [linear], unmeasured=jnp.ones(1), num_steps=1
    )
    # In the space of what meets the constraints, plain least squares.
    slopes = np.concatenate([linear.slopes, linear.free], axis=1)
    one, _, _, _ = np.linalg.lstsq(slopes, linear.values, rcond=None)
    free = np.linalg.svd(slopes)[2][3:].T
    weight = np.linalg.inv(_COVARIANCE)
    spread = np.linalg.inv(free[:4].T @ weight @ free[:4])
    expected = one + free @ spread @ free[:4].T @ weight @ (_MEASURED - one[:4])
    found = jnp.concatenate([fit.measured, fit.unmeasured])
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    np.testing.assert_allclose(fit.covariance, free @ spread @ free.T, atol=1e-9)
    shift = fit.measured - _MEASURED
    chi2 = shift @ jnp.linalg.solve(_COVARIANCE, shift)
    np.testing.assert_allclose(fit.chi2, chi2, rtol=1e-9)
    assert fit.ndf == 2
    assert fit.converged
    assert fit.status == ConstraintStatus.good


def test_constraints_compose():
    linear = _linear()
    parts = [
        _Linear(
            linear.slopes[k : k + 1], linear.free[k : k + 1], linear.values[k, None]
        )
        for k in range(3)
    ]
    one, three = (
        fit_constrained(_MEASURED, _COVARIANCE, c, unmeasured=jnp.ones(1))
        for c in ([linear], parts)
    )
    np.testing.assert_allclose(one.measured, three.measured, rtol=1e-12)


def test_what_has_no_error_does_not_move():
    covariance = _COVARIANCE.at[1, :].set(0.0).at[:, 1].set(0.0)
    fit = fit_constrained(_MEASURED, covariance, [lambda q, u: q[:2] @ q[2:] - q[:1]])
    assert fit.converged
    assert fit.measured[1] == _MEASURED[1]
    assert fit.covariance[1, 1] == 0
    np.testing.assert_allclose(
        fit.measured[:2] @ fit.measured[2:], fit.measured[0], rtol=1e-12
    )


def _circle(measured, unmeasured):
    return jnp.stack(
        [measured[0] ** 2 + measured[1] ** 2 - 2, measured[2] - measured[3]]
    )


def test_repeated_and_contradicting_constraints_are_said():
    other = lambda q, u: _circle(q, u) - jnp.array([0.5, 0.0])  # noqa: E731
    for again in (_circle, other):

        def total(measured, again=again):
            fit = fit_constrained(measured, _COVARIANCE, [_circle, again])
            return jnp.sum(fit.measured) + jnp.sum(fit.covariance) + fit.chi2, fit

        (value, fit), gradient = jax.value_and_grad(total, has_aux=True)(_MEASURED)
        assert fit.status == ConstraintStatus.singular
        assert not fit.converged
        assert jnp.isfinite(value)
        assert jnp.all(jnp.isfinite(gradient))
    # No real solution.
    impossible = fit_constrained(
        _MEASURED, _COVARIANCE, [lambda q, u: q[:1] ** 2 + 1.0], num_steps=7
    )
    assert impossible.status == ConstraintStatus.not_converged
    assert jnp.all(jnp.isfinite(impossible.measured))


def test_wrong_calls_are_explained():
    with pytest.raises(ValueError, match="at least one step"):
        fit_constrained(_MEASURED, _COVARIANCE, [_circle], num_steps=0)
    with pytest.raises(ValueError, match="one constraint"):
        fit_constrained(_MEASURED, _COVARIANCE, [])
    with pytest.raises(ValueError, match="3 unmeasured quantities and 2 constraints"):
        fit_constrained(_MEASURED, _COVARIANCE, [_circle], unmeasured=jnp.zeros(3))


class _Kaon(eqx.Module):
    """Two pions from one vertex, whose sum points back and has the kaon's mass."""

    mass: jax.Array
    field: jax.Array

    def __call__(self, measured, unmeasured):
        tracks = jax.vmap(perigee_at, in_axes=(0, None, None))(
            jnp.reshape(measured, (2, 5)), unmeasured, self.field
        )
        size = 1 / jnp.abs(tracks[:, 4])
        phi, theta = tracks[:, 2], tracks[:, 3]
        unit = jnp.stack(
            [
                jnp.sin(theta) * jnp.cos(phi),
                jnp.sin(theta) * jnp.sin(phi),
                jnp.cos(theta),
            ]
        )
        three = unit @ size
        energy = jnp.sum(jnp.sqrt(size**2 + _PION**2))
        mass = jnp.sqrt(energy**2 - jnp.sum(three**2)) - self.mass
        # The origin lies on the straight line, by the cross product.
        cross = jnp.cross(unmeasured, three) / jnp.linalg.norm(three)
        side = jnp.array([[-three[1], three[0], 0.0], [0.0, 0.0, 1.0]])
        pointing = side @ cross
        return jnp.concatenate([jnp.ravel(tracks[:, :2]), mass[None], pointing])


@pytest.fixture(scope="module")
def fits(decays):
    """120 measured kaons, and their fits."""

    def one(key):
        decay, vertex, _ = decays.v0(key, _KAON, _PION, _PION, mass=jnp.asarray(_KAON))
        measured = jnp.concatenate([track.parameters for track in decay.products])
        covariance = jax.scipy.linalg.block_diag(
            *(track.covariance for track in decay.products)
        )
        kaon = _Kaon(jnp.asarray(_KAON), _FIELD)
        fit = fit_constrained(measured, covariance, [kaon], unmeasured=vertex)
        return measured, covariance, vertex, fit

    return jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(1), 120))


def test_the_optimum_is_that_of_slsqp(fits):
    measured, covariance, vertex, fits = fits
    assert jnp.all(fits.converged)
    kaon = _Kaon(jnp.asarray(_KAON), _FIELD)
    # All in standard deviations, for the sake of SLSQP.
    unknowns = lambda x, q, root, v, e: (q + root @ x[:10], v + e * x[10:])  # noqa: E731
    meets = jax.jit(lambda x, *rest: kaon(*unknowns(x, *rest)))
    slopes = jax.jit(jax.jacfwd(lambda x, *rest: kaon(*unknowns(x, *rest))))
    for i in range(120):
        error = jnp.sqrt(jnp.diagonal(fits.covariance[i]))
        root = jnp.linalg.cholesky(covariance[i])
        rest = measured[i], root, vertex[i], error[10:]
        unit = 1 / np.linalg.norm(slopes(jnp.zeros(13), *rest)[:, :10], axis=1)
        result = minimize(
            lambda x: np.sum(x[:10] ** 2),
            np.zeros(13),
            jac=lambda x: np.append(2 * x[:10], np.zeros(3)),
            constraints={
                "type": "eq",
                "fun": lambda x, r=rest, u=unit: u * np.asarray(meets(x, *r)),
                "jac": lambda x, r=rest, u=unit: u[:, None] * np.asarray(slopes(x, *r)),
            },
            method="SLSQP",
            options={"ftol": 1e-12, "maxiter": 100},
        )
        # SLSQP does not always know that it has arrived: it is judged by where it is.
        measurements, end = unknowns(jnp.asarray(result.x), *rest)
        width = jnp.sqrt(jnp.diagonal(covariance[i]))
        apart = (fits.measured[i] - measurements) / width
        np.testing.assert_array_less(jnp.abs(apart), 2e-6)
        apart = (fits.unmeasured[i] - end) / error[10:]
        np.testing.assert_array_less(jnp.abs(apart), 2e-6)
        assert fits.chi2[i] == pytest.approx(result.fun, rel=1e-8)


def test_a_decay_is_the_same_fit(decays):
    decay, vertex, _ = decays.v0(
        jax.random.key(2), _KAON, _PION, _PION, mass=jnp.asarray(_KAON)
    )
    measured = jnp.concatenate([track.parameters for track in decay.products])
    covariance = [track.covariance for track in decay.products]
    kaon = _Kaon(jnp.asarray(_KAON), _FIELD)
    free = lambda q, u: kaon(q, u)[:5]  # noqa: E731
    plain = fit_constrained(
        measured,
        jax.scipy.linalg.block_diag(*covariance),
        [free],
        unmeasured=vertex,
    )
    chain = jax.jit(fit_decay)(decay, _FIELD)
    np.testing.assert_allclose(jnp.ravel(chain.parameters), plain.measured, rtol=1e-9)
    np.testing.assert_allclose(chain.vertices[0], plain.unmeasured, rtol=1e-9)
    np.testing.assert_allclose(chain.chi2, plain.chi2, rtol=1e-7)
    assert chain.ndf == plain.ndf == 2


def test_gradients(fits):
    measured, covariance, vertex, _ = fits

    def ends(measured, stretch, mass, field, *, adjoint=None):
        fit = fit_constrained(
            measured,
            covariance[0] * stretch[:, None] * stretch[None, :],
            [_Kaon(mass, field)],
            unmeasured=vertex[0],
            num_steps=20,
            adjoint=adjoint,
        )
        spread = jnp.log(jnp.diagonal(fit.covariance))
        return fit.measured, fit.unmeasured, fit.chi2, spread

    arguments = measured[0], jnp.ones(10), jnp.asarray(_KAON), _FIELD
    assert check_gradient(jax.jit(ends), arguments, rtol=1e-7, eps=1e-5) < 1e-7

    def slopes(adjoint):
        return jax.jit(
            jax.jacfwd(lambda *a: ends(*a, adjoint=adjoint), argnums=(0, 1, 2, 3))
        )(*arguments)

    implicit, unrolled = slopes(None), slopes(optx.RecursiveCheckpointAdjoint())
    for a, b in zip(jax.tree.leaves(implicit), jax.tree.leaves(unrolled), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-9 * float(jnp.max(jnp.abs(b))))
