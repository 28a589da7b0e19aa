"""Decay chains: against the truth of toys, and finite differences."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffhep.testing import check_gradient
from diffhep.vertexing import Decay, Origin, fit_decay


_FIELD = jnp.asarray(2.0)
_NUMBER = 1000


@pytest.fixture(scope="module")
def chains(decays):
    """B -> J/psi K_S with both masses constrained: measured, fitted, and the truth."""

    def one(key):
        decay, vertex, end, four = decays.beauty(key)
        return fit_decay(decay, _FIELD), vertex, end, four

    return jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), _NUMBER))


def _is_standard_normal(pulls):
    error = 1 / np.sqrt(len(pulls))
    np.testing.assert_array_less(np.abs(np.mean(pulls, axis=0)), 3.5 * error)
    width = np.std(pulls, axis=0)
    np.testing.assert_array_less(np.abs(width - 1), 3.5 * error / np.sqrt(2))


def test_pulls_of_a_chain_of_two_levels(chains, decays):
    fit, vertex, end, four = chains
    assert jnp.all(fit.converged)
    # Two for each track, two for pointing, two masses; less six coordinates.
    assert fit.ndf == 6
    assert np.mean(fit.chi2) == pytest.approx(6, abs=3 * np.sqrt(12 / _NUMBER))
    errors = jnp.sqrt(jnp.diagonal(fit.covariance, axis1=1, axis2=2))
    _is_standard_normal((fit.vertices[:, 0] - vertex) / errors[:, 20:23])
    _is_standard_normal((fit.vertices[:, 1] - end) / errors[:, 23:26])
    _is_standard_normal((fit.mass[:, :1] - decays.BEAUTY) / fit.mass_error[:, :1])
    way = jnp.linalg.norm(end - vertex, axis=1)
    _is_standard_normal((fit.flight[:, 0] - way) / fit.flight_error[:, 0])
    # The constraints hold.
    for index, mass in ((1, decays.PSI), (2, decays.KAON)):
        np.testing.assert_allclose(fit.mass[:, index], mass, rtol=1e-9)
        np.testing.assert_array_less(fit.mass_error[:, index], 1e-6)
    momentum = fit.four_momenta[:, 2, :3]
    flown = fit.vertices[:, 1] - fit.vertices[:, 0]
    cross = jnp.cross(momentum, flown) / jnp.linalg.norm(momentum, axis=1)[:, None]
    np.testing.assert_allclose(cross, 0.0, atol=1e-8)
    np.testing.assert_allclose(
        jnp.mean(fit.four_momenta[:, 0] / four, axis=0), 1.0, atol=0.02
    )


def test_constraints_make_the_mass_better(chains, decays):
    def one(key):
        return fit_decay(decays.beauty(key, constrained=False)[0], _FIELD)

    keys = jax.random.split(jax.random.key(0), _NUMBER)[:100]
    free = jax.jit(jax.vmap(one))(keys)
    constrained = chains[0].mass_error[:100, 0]
    assert jnp.all(constrained < free.mass_error[:, 0])
    assert jnp.median(constrained / free.mass_error[:, 0]) < 0.5


def test_a_lambda_points_to_its_origin(decays):
    spot = Origin(jnp.zeros(3), jnp.diag(jnp.array([1e-4, 1e-4, 1e-2])))

    @jax.jit
    @jax.vmap
    def fits(key):
        noise = jnp.sqrt(jnp.diagonal(spot.covariance)) * jax.random.normal(key, (3,))
        decay, end, _ = decays.v0(
            key, decays.LAMBDA, decays.PROTON, decays.PION, vertex=noise
        )
        return fit_decay(decay, _FIELD, origin=spot), end, noise

    fit, end, start = fits(jax.random.split(jax.random.key(1), _NUMBER))
    assert fit.ndf == 3
    # Fast ones open so little that their vertex may be anywhere: no normal errors.
    way = jnp.linalg.norm(end - start, axis=1)
    clear = np.asarray(fit.flight_error[:, 0] < 0.02 * way)
    assert jnp.all(fit.converged[clear])
    assert np.mean(clear) > 0.5
    assert np.mean(fit.converged) > 0.99
    # Two circles cross twice: in one of a thousand the fit ends in the other crossing.
    other = np.asarray(jnp.abs(fit.flight[:, 0] - way) > 0.5 * way)
    assert np.sum(other & clear) < 4
    clear = clear & ~other
    number = np.sum(clear)
    chi2 = np.mean(fit.chi2[clear])
    assert chi2 == pytest.approx(3, abs=3 * np.sqrt(6 / number))
    _is_standard_normal(
        (fit.mass[:, 0] - decays.LAMBDA)[clear] / fit.mass_error[clear, 0]
    )
    _is_standard_normal((fit.flight[:, 0] - way)[clear] / fit.flight_error[clear, 0])


def test_a_known_four_momentum(decays):
    # A resonance made by beams that cross. (At rest its muons are back to back, and
    # nothing says where on their line the vertex is.)
    three = jnp.array([1.5, 0.8, 1.0])
    four = jnp.append(three, jnp.sqrt(jnp.sum(three**2) + decays.PSI**2))

    @jax.jit
    @jax.vmap
    def fits(key):
        keys = jax.random.split(key, 3)
        muons = decays.two_body(keys[0], four, decays.PSI, decays.MUON, decays.MUON)
        tracks = tuple(
            decays.track(k, muon, jnp.zeros(3), charge, decays.MUON)
            for k, muon, charge in zip(keys[1:], muons, (1.0, -1.0), strict=True)
        )
        return fit_decay(Decay(tracks, four_momentum=four), _FIELD)

    fit = fits(jax.random.split(jax.random.key(2), _NUMBER))
    assert fit.ndf == 5
    assert np.mean(fit.chi2) == pytest.approx(5, abs=3 * np.sqrt(10 / _NUMBER))
    np.testing.assert_allclose(
        fit.four_momenta[:, 0], four[None] + jnp.zeros((_NUMBER, 1)), atol=1e-9
    )


def test_gradients(decays):
    decay, *_ = decays.beauty(jax.random.key(3))

    def ends(parameters, masses, field):
        moved = jax.tree.map(lambda x: x, decay)
        psi, kaon = moved.products
        tracks = [
            dataclasses.replace(track, parameters=p)
            for track, p in zip(
                (*psi.products, *kaon.products), parameters, strict=True
            )
        ]
        psi = dataclasses.replace(psi, products=tuple(tracks[:2]), mass=masses[0])
        kaon = dataclasses.replace(kaon, products=tuple(tracks[2:]), mass=masses[1])
        fit = fit_decay(Decay((psi, kaon)), field, num_steps=20)
        return fit.mass[0], fit.vertices, fit.chi2, jnp.log(fit.mass_error[0])

    arguments = (
        jnp.stack([t.parameters for part in decay.products for t in part.products]),
        jnp.array([decays.PSI, decays.KAON]),
        _FIELD,
    )
    assert check_gradient(jax.jit(ends), arguments, rtol=1e-7, eps=1e-5) < 1e-7


def test_wrong_chains_are_explained(decays):
    decay, *_ = decays.beauty(jax.random.key(3))
    with pytest.raises(ValueError, match="no `products`"):
        fit_decay(Decay((*decay.products, Decay(()))), _FIELD)
    with pytest.raises(ValueError, match="a single track"):
        fit_decay(Decay(decay.products[0].products[:1]), _FIELD)
