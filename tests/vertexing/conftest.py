"""Decay chains as nature would make them, measured with errors."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffhep.helix import perigee_from_momentum, perigee_from_point
from diffhep.vertexing import Decay, DecayTrack


FIELD = 2.0
PION, PROTON, MUON = 0.13957039, 0.93827209, 0.1056583755
KAON, LAMBDA, PSI, BEAUTY = 0.497611, 1.115683, 3.096900, 5.27966
SLOTS = 32
# Errors of d0 and z0 in mm, phi, theta, and q/p relative to itself.
ERRORS = np.array([0.02, 0.03, 5e-4, 5e-4, 3e-3])


def two_body(key, four, mass, first, second):
    """Four-momenta of two particles that a third decays to, in any direction."""
    size = np.sqrt(
        (mass**2 - (first + second) ** 2) * (mass**2 - (first - second) ** 2)
    ) / (2 * mass)
    way = jax.random.normal(key, (3,))
    way = size * way / jnp.linalg.norm(way)
    return tuple(
        _boosted(jnp.append(sign * way, jnp.sqrt(size**2 + other**2)), four, mass)
        for sign, other in ((1, first), (-1, second))
    )


def _boosted(rest, four, mass):
    along = jnp.sum(rest[:3] * four[:3]) / (four[3] + mass)
    return jnp.append(
        rest[:3] + four[:3] / mass * (along + rest[3]),
        (rest[3] * four[3] + jnp.sum(rest[:3] * four[:3])) / mass,
    )


def track(key, four, vertex, charge, mass):
    """A measured track: its errors are correlated."""
    exact = perigee_from_momentum(
        vertex, four[:3], jnp.asarray(charge), jnp.asarray(FIELD)
    )
    keys = jax.random.split(key)
    width = jnp.asarray(ERRORS).at[4].multiply(jnp.abs(exact[4]))
    mixing = 0.3 * jnp.tril(jax.random.normal(keys[0], (5, 5)), -1)
    root = width[:, None] * (jnp.eye(5) + mixing)
    noise = jax.random.normal(keys[1], (5,))
    return DecayTrack(exact + root @ noise, root @ root.T, jnp.asarray(mass))


def flying(key, mass, lowest, highest):
    """Four-momentum in the central region."""
    keys = jax.random.split(key, 3)
    size = jax.random.uniform(keys[0], minval=lowest, maxval=highest)
    phi = jax.random.uniform(keys[1], minval=-3.1, maxval=3.1)
    eta = jax.random.uniform(keys[2], minval=-1.0, maxval=1.0)
    three = size * jnp.stack([jnp.cos(phi), jnp.sin(phi), jnp.sinh(eta)])
    return jnp.append(three, jnp.sqrt(jnp.sum(three**2) + mass**2))


def moved(four, vertex, distance):
    """Where a neutral particle is after a distance."""
    return vertex + distance * four[:3] / jnp.linalg.norm(four[:3])


def v0(key, kind, first, second, *, vertex=None, four=None, **constraints):
    """A neutral particle that flies 5 to 60 mm, with its true vertex."""
    keys = jax.random.split(key, 5)
    vertex = jnp.zeros(3) if vertex is None else vertex
    four = flying(keys[0], kind, 1.0, 8.0) if four is None else four
    distance = jax.random.uniform(keys[1], minval=5.0, maxval=60.0)
    end = moved(four, vertex, distance)
    ends = two_body(keys[2], four, kind, first, second)
    products = (
        track(keys[3], ends[0], end, 1.0, first),
        track(keys[4], ends[1], end, -1.0, second),
    )
    return Decay(products, **constraints), end, four


def beauty(key, *, constrained=True):
    """B -> J/psi K_S with all charged ends measured; true vertices and momentum."""
    keys = jax.random.split(key, 7)
    four = flying(keys[0], BEAUTY, 5.0, 30.0)
    vertex = moved(four, jnp.zeros(3), jax.random.uniform(keys[1], minval=1, maxval=8))
    psi, kaon = two_body(keys[2], four, BEAUTY, PSI, KAON)
    muons = two_body(keys[3], psi, PSI, MUON, MUON)
    mass = jnp.asarray if constrained else (lambda _: None)
    inner, end, _ = v0(
        keys[4], KAON, PION, PION, vertex=vertex, four=kaon, mass=mass(KAON)
    )
    pair = (
        track(keys[5], muons[0], vertex, 1.0, MUON),
        track(keys[6], muons[1], vertex, -1.0, MUON),
    )
    outer = Decay(pair, mass=mass(PSI), flies=False)
    return Decay((outer, inner)), vertex, end, four


def measured(key, exact, widths):
    """Tracks measured with correlated errors: parameters, covariance."""
    keys = jax.random.split(key)
    number = exact.shape[0]
    mixing = 0.3 * jnp.tril(jax.random.normal(keys[0], (number, 5, 5)), -1)
    root = widths[:, :, None] * (jnp.eye(5)[None] + mixing)
    noise = jax.random.normal(keys[1], (number, 5))
    covariance = jnp.einsum("nab,ncb->nac", root, root)
    return exact + jnp.einsum("nab,nb->na", root, noise), covariance


def collisions(key, origins, hardness):
    """Measured tracks of soft collisions; the soft ones scatter more."""
    keys = jax.random.split(key, 5)
    number = (origins.shape[0],)
    phi = jax.random.uniform(keys[0], number, minval=-3.1, maxval=3.1)
    eta = jax.random.uniform(keys[1], number, minval=-2.0, maxval=2.0)
    theta = 2 * jnp.arctan(jnp.exp(-eta))
    transverse = 0.5 + hardness * jax.random.exponential(keys[2], number)
    charge = jnp.where(jax.random.bernoulli(keys[3], 0.5, number), 1.0, -1.0)
    bend = charge * jnp.sin(theta) / transverse
    exact = jax.vmap(perigee_from_point, (0, 0, 0, 0, None))(
        origins, phi, theta, bend, jnp.asarray(FIELD)
    )
    angle = jnp.full(number, 1e-3)
    across = jnp.hypot(0.015, 0.05 / transverse)
    along = jnp.hypot(0.03, 0.07 / transverse) / jnp.sin(theta)
    widths = jnp.stack([across, along, angle, angle, 0.01 * jnp.abs(bend)], axis=1)
    return measured(keys[4], exact, widths)


def jet(key, origins, axis):
    """Measured tracks in a cone of about 0.15 about an axis (phi, theta)."""
    keys = jax.random.split(key, 4)
    number = (origins.shape[0],)
    angles = axis[None, :] + 0.15 * jax.random.normal(keys[0], (*number, 2))
    size = 1 + 4 * jax.random.exponential(keys[1], number)
    charge = jnp.where(jax.random.bernoulli(keys[2], 0.5, number), 1.0, -1.0)
    exact = jax.vmap(perigee_from_point, (0, 0, 0, 0, None))(
        origins, angles[:, 0], angles[:, 1], charge / size, jnp.asarray(FIELD)
    )
    widths = jnp.asarray(ERRORS)[None, :] * jnp.ones((*number, 1))
    widths = widths.at[:, 4].multiply(jnp.abs(exact[:, 4]))
    return measured(keys[3], exact, widths)


@pytest.fixture
def quick_compilation():
    """Compilation in half the time, of code that runs a few times only."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="session")
def decays():
    """All of the above."""
    return sys.modules[__name__]


def boosted_jet(key, number, opening):
    """A jet of boosted, collimated tracks from a vertex some millimetres away.

    With `SLOTS` slots, of which `number` are alive: parameters, a square root of the
    covariance, weights, mask, field, and the prior as for secondary vertices.
    """
    keys = jax.random.split(key, 10)
    axis = jax.random.uniform(keys[0], (2,), minval=-1.0, maxval=1.0)
    axis = axis * jnp.asarray([3.1, 0.8]) + jnp.asarray([0.0, jnp.pi / 2])
    offset = jax.random.uniform(keys[1], (SLOTS, 2), minval=-1.0, maxval=1.0)
    # To both sides by turns, so that the opening is what it is called.
    side = jnp.where(jnp.arange(SLOTS) % 2 == 0, 0.5, -0.5)
    offset = offset.at[:, 0].set(side + offset[:, 0] / 2)
    angles = axis[None, :] + opening * offset
    momentum = jnp.exp(jax.random.uniform(keys[2], (SLOTS,), minval=0.5, maxval=3.5))
    bend = jnp.where(jax.random.bernoulli(keys[3], shape=(SLOTS,)), 1.0, -1.0)
    bend = bend / momentum
    along = jnp.stack(
        [
            jnp.sin(axis[1]) * jnp.cos(axis[0]),
            jnp.sin(axis[1]) * jnp.sin(axis[0]),
            jnp.cos(axis[1]),
        ]
    )
    primary = jnp.asarray([0.01, -0.02, 3.0])
    flight = jax.random.uniform(keys[4], minval=2.0, maxval=9.0)
    vertex = primary + flight * along
    exact = jax.vmap(perigee_from_point, (None, 0, 0, 0, None))(
        vertex, angles[:, 0], angles[:, 1], bend, jnp.asarray(FIELD)
    )
    width = jnp.broadcast_to(jnp.asarray([0.02, 0.03, 4e-4, 4e-4, 1.0]), (SLOTS, 5))
    width = width.at[:, 4].set(0.01 / momentum)
    mixing = 0.4 * jnp.tril(jax.random.normal(keys[5], (SLOTS, 5, 5)), -1)
    root = width[:, :, None] * (jnp.eye(5)[None, :, :] + mixing)
    noise = jax.random.normal(keys[6], (SLOTS, 5))
    across = jnp.eye(3) - along[:, None] * along[None, :]
    return {
        "parameters": exact + jnp.einsum("nab,nb->na", root, noise),
        "exact": exact,
        "root": root,
        # What is added to the covariance: for a test of what dead slots hold.
        "dirt": jnp.zeros((SLOTS, 5, 5)),
        "weight": jax.random.uniform(keys[7], (SLOTS,), minval=0.2, maxval=1.0),
        "mask": jnp.arange(SLOTS) < number,
        "field": 1.0 * jnp.asarray(FIELD),
        "prior_mean": primary,
        # A root, too: 10 mm along the axis of the jet, and 1 mm across.
        "prior_root": (along[:, None] * along[None, :] + 10 * across) / 10,
        "temperature": jax.random.uniform(keys[8], minval=1.0, maxval=2.0),
        "cutoff": jax.random.uniform(keys[9], minval=2.5, maxval=3.5),
        "vertex": vertex,
        # About the standard deviation along the axis, in mm.
        "scale": 0.03 / opening / jnp.sqrt(number.astype(opening.dtype)),
    }


@pytest.fixture(scope="session")
def jets():
    """Jets of 2, 5, 15 and 30 tracks, each narrow (10 mrad) and wide (0.4)."""
    number = jnp.asarray([2, 2, 5, 5, 15, 15, 30, 30])
    opening = jnp.asarray([0.01, 0.4] * 4)
    keys = jax.random.split(jax.random.key(7), number.size)
    return jax.jit(jax.vmap(boosted_jet))(keys, number, opening)
