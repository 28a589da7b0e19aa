"""A hand-made event: two b jets with displaced vertices, one light jet, dead slots."""

import jax.numpy as jnp
import numpy as np
import pytest

from diffhep.event import (
    Constituents,
    Event,
    Hits,
    Jets,
    Particles,
    Towers,
    Tracks,
    Vertices,
)
from diffhep.geometry import Barrel
from diffhep.helix import KAPPA
from diffhep.plotting import arcs_to_radii, helix_points


NUM_SLOTS = 48
JETS = ((0.7, 0.5, 130.0), (2.9, -0.4, 75.0), (-1.0, 0.9, 40.0))
FLIGHT = (3.2, 1.9, 0.0)
PRIMARY = np.array([0.02, -0.01, 14.0])


@pytest.fixture(scope="session")
def barrel():
    radii = jnp.array([33.0, 66.0, 115.0, 180.0, 270.0, 380.0, 520.0, 700.0])
    return Barrel(
        radii=radii,
        pitch_azimuth=jnp.full(8, 0.05),
        pitch_z=jnp.full(8, 0.15),
        thickness=jnp.full(8, 0.015),
        efficiency=jnp.full(8, 0.98),
        field=jnp.array(2.0),
    )


def _perigee(point, phi, theta, qop, field):
    # Exact perigee of the helix through a point with a direction.
    omega = KAPPA * field * qop / np.sin(theta)
    x, y, z = point
    delta = -x * np.sin(phi) + y * np.cos(phi)
    a = 2 * delta - omega * (x**2 + y**2)
    d0 = a / (1 + np.sqrt(1 - omega * a))
    phi0 = np.arctan2(np.sin(phi) + omega * x, np.cos(phi) - omega * y)
    ahead = np.sign(x * np.cos(phi) + y * np.sin(phi))
    parameters = np.array([d0, 0.0, phi0, theta, qop])
    arc = arcs_to_radii(parameters, field, np.array([np.hypot(x, y)]))[0]
    arc = ahead * arc
    parameters[1] = z - np.nan_to_num(arc) / np.tan(theta)
    return parameters


@pytest.fixture(scope="session")
def event(barrel):
    return make_event(barrel, poison=np.nan)


def make_event(barrel, poison):
    rng = np.random.default_rng(4)
    radii, field = np.asarray(barrel.radii), float(barrel.field)
    momentum = np.full((NUM_SLOTS, 4), poison)
    vertex = np.full((NUM_SLOTS, 3), poison)
    parameters = np.full((NUM_SLOTS, 5), poison)
    azimuth = np.full((NUM_SLOTS, 8), poison)
    z = np.full((NUM_SLOTS, 8), poison)
    charge, origin = np.zeros(NUM_SLOTS), np.zeros(NUM_SLOTS, int)
    owner, charged = np.full(NUM_SLOTS, -1), np.zeros(NUM_SLOTS, bool)
    positions = []
    for phi, eta, _ in JETS:
        direction = np.array([np.cos(phi), np.sin(phi), np.sinh(eta)])
        positions.append(PRIMARY + FLIGHT[len(positions)] * direction)
    for slot in range(36):
        jet = slot % 4 if slot % 4 < 3 else -1
        owner[slot] = jet
        phi, eta, _ = JETS[jet] if jet >= 0 else (rng.uniform(-3, 3), 0.0, 0.0)
        spread = 0.12 if jet >= 0 else 0.6
        phi, eta = phi + rng.normal() * spread, eta + rng.normal() * spread
        pt = 1.0 + rng.exponential(12.0 if jet >= 0 else 1.0)
        momentum[slot] = pt * np.array(
            [np.cos(phi), np.sin(phi), np.sinh(eta), np.cosh(eta)]
        )
        decays = slot % 8 < 4 and 0 <= jet < 2
        vertex[slot] = positions[jet] if decays else PRIMARY
        origin[slot] = 5 if decays else 0
        charged[slot] = slot % 5 != 0
        if not charged[slot]:
            continue
        charge[slot] = 1 if rng.random() < 0.5 else -1
        theta = np.arctan2(1.0, np.sinh(eta))
        qop = charge[slot] / (pt * np.cosh(eta))
        parameters[slot] = _perigee(vertex[slot], phi, theta, qop, field)
        arcs = arcs_to_radii(parameters[slot], field, radii)
        points = helix_points(parameters[slot], field, arcs)
        azimuth[slot] = np.arctan2(points[:, 1], points[:, 0])
        z[slot] = points[:, 2]
    used = np.arange(NUM_SLOTS) < 36
    hit_mask = (charged & used)[:, None] & np.isfinite(azimuth)
    membership = np.stack([owner == jet for jet in range(5)])
    jet_momentum = np.full((5, 4), poison)
    for jet in range(3):
        jet_momentum[jet] = momentum[membership[jet]].sum(axis=0)
    covariance = np.full((5, 3, 3), poison)
    position = np.full((5, 3), poison)
    for jet, (phi, _, _) in enumerate(JETS):
        along = np.array([np.cos(phi), np.sin(phi), 0.3])
        covariance[jet] = 0.15**2 * np.outer(along, along) + 0.03**2 * np.eye(3)
        position[jet] = positions[jet] + 0.1 * along
    displaced = np.where(origin == 5, 0.95, 0.1)
    return Event(
        particles=Particles(
            momentum=jnp.asarray(momentum),
            vertex=jnp.asarray(vertex),
            charge=jnp.asarray(charge),
            pdg_id=jnp.asarray(np.where(charged, 211, 22)),
            origin=jnp.asarray(origin),
            mask=jnp.asarray(used),
        ),
        hits=Hits(
            position=jnp.stack([jnp.asarray(azimuth), jnp.asarray(z)], axis=2),
            logit=jnp.full((NUM_SLOTS, 8), 3.0),
            mask=jnp.asarray(hit_mask),
        ),
        tracks=Tracks(
            parameters=jnp.asarray(parameters),
            covariance=jnp.full((NUM_SLOTS, 5, 5), poison),
            chi2=jnp.full(NUM_SLOTS, poison),
            ndf=jnp.full(NUM_SLOTS, poison),
            mask=jnp.asarray(charged & used),
        ),
        towers=Towers(
            momentum=jnp.asarray(momentum), mask=jnp.asarray(used & ~charged)
        ),
        constituents=Constituents(
            momentum=jnp.asarray(momentum),
            charged=jnp.asarray(charged),
            mask=jnp.asarray(used),
        ),
        jets=Jets(
            momentum=jnp.asarray(jet_momentum),
            membership=jnp.asarray(membership),
            weight=jnp.asarray([1.0, 1.0, 1.0, 0.0, 0.0]),
            mask=jnp.arange(5) < 3,
        ),
        primary_vertex=Vertices(
            position=jnp.asarray(PRIMARY[None]),
            covariance=jnp.asarray(np.diag([1e-4, 1e-4, 4e-4])[None]),
            track_weight=jnp.ones((1, NUM_SLOTS)),
            chi2=jnp.ones(1),
            ndf=jnp.ones(1),
            mask=jnp.ones(1, bool),
        ),
        secondary_vertices=Vertices(
            position=jnp.asarray(position),
            covariance=jnp.asarray(covariance),
            track_weight=jnp.asarray(np.tile(displaced, (5, 1)) * membership),
            chi2=jnp.full(5, poison),
            ndf=jnp.full(5, poison),
            mask=jnp.arange(5) < 2,
        ),
        missing_momentum=jnp.asarray([-30.0, -88.0]),
    )
