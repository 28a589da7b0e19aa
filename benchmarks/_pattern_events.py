"""Tracks among noise hits, in a road about a rough seed."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from diffhep.detector import simulate_hits
from diffhep.geometry import Barrel, build_barrel
from diffhep.helix import KAPPA, PION_MASS, perigee_from_momentum
from diffhep.numerics import matmul, matvec
from diffhep.tracking import TrackFit, TrackPrior, fit_track, predict


LAYERS = 10
CANDIDATES = 4
NOISE = 1.2
"""Mean number of noise hits in the road, on each layer."""
SEED_ERRORS = (0.1, 0.5, 1e-3, 1e-3, 0.02)
"""Standard deviations of d0 [mm], z0 [mm], phi, theta and q/pT [1/GeV] of the seed."""
ROAD = 3.5
"""Half-width of the road, in standard deviations of the seed's prediction."""


class Candidates(eqx.Module):
    """The hits in the road of one track, and the truth about them."""

    position: Float[Array, "*batch layers candidates 2"]
    """What was measured, in rad and mm."""
    road: Float[Array, "*batch layers candidates 2"]
    """The same relative to the seed, in half-widths of the road."""
    mask: Bool[Array, "*batch layers candidates"]
    """Which candidates there are."""
    is_true: Bool[Array, "*batch layers candidates"]
    """Which are of the track."""
    seed: TrackPrior
    """The seed with its errors."""
    truth: Float[Array, "*batch"]
    """True q/pT, in 1/GeV."""
    best: Float[Array, "*batch"]
    """The q/pT of a fit to seed and true hits alone."""
    sigma: Float[Array, "*batch"]
    """Its standard deviation: the unit of all residuals."""


def barrel() -> Barrel:
    """Ten equidistant layers in 2 T."""
    return build_barrel(
        radii=list(np.linspace(30.0, 1020.0, LAYERS)),
        pitch_azimuth=[0.05] * LAYERS,
        pitch_z=[0.25] * LAYERS,
        thickness=[0.015] * LAYERS,
        efficiency=[0.97] * LAYERS,
        field=2.0,
    )


def inverse_momentum(parameters: Float[Array, " 5"]) -> Float[Array, ""]:
    """q/pT of track parameters, in 1/GeV."""
    return parameters[4] / jnp.sin(parameters[3])


def _error(fit: TrackFit) -> Float[Array, ""]:
    # Of q/pT, from those of theta and q/p.
    slope = jax.grad(inverse_momentum)(fit.parameters)
    return jnp.sqrt(jnp.sum(slope * matvec(fit.covariance, slope)))


def draw(
    key: PRNGKeyArray, detector: Barrel, low: Float[Array, ""], high: Float[Array, ""]
) -> Candidates:
    """One pion with its noise.

    Args:
        key: Random key.
        detector: The detector.
        low: Least transverse momentum, in GeV.
        high: Largest; its logarithm is uniform.

    Returns:
        The candidates.
    """
    keys = jax.random.split(key, 9)
    transverse = low * (high / low) ** jax.random.uniform(keys[0])
    phi = jax.random.uniform(keys[1], minval=-np.pi, maxval=np.pi)
    eta = jax.random.uniform(keys[2], minval=-1.0, maxval=1.0)
    direction = jnp.stack([jnp.cos(phi), jnp.sin(phi), jnp.sinh(eta)])
    momentum = transverse * direction
    energy = jnp.sqrt(jnp.sum(momentum**2) + PION_MASS**2)
    charge = jnp.where(jax.random.bernoulli(keys[3]), 1.0, -1.0).astype(phi.dtype)
    origin = jnp.zeros(3, phi.dtype)
    hits = simulate_hits(
        origin,
        jnp.append(momentum, energy),
        charge,
        detector,
        jax.random.normal(keys[4], (LAYERS, 4), phi.dtype),
    )
    chance = jax.random.uniform(keys[5], (LAYERS,), phi.dtype)
    found = hits.reached & (chance < jax.nn.sigmoid(hits.logit))
    truth = perigee_from_momentum(origin, momentum, charge, detector.field)
    seed = _smear(truth, jax.random.normal(keys[6], (5,), phi.dtype))
    expected, width = _road(seed.parameters, detector)
    number = jax.random.poisson(keys[7], NOISE, (LAYERS,))
    place_key, order_key = jax.random.split(keys[8])
    shape = (LAYERS, CANDIDATES - 1, 2)
    noise = jax.random.uniform(place_key, shape, phi.dtype, -1.0, 1.0)
    apart = (
        (hits.position - expected)
        .at[:, 0]
        .set(jnp.mod(hits.position[:, 0] - expected[:, 0] + np.pi, 2 * np.pi) - np.pi)
    )
    true = apart / width
    # What has scattered out of the road is not seen: there would be no noise beside it.
    found = found & jnp.all(jnp.abs(true) < 1, axis=1)
    road = jnp.concatenate([true[:, None], noise], axis=1)
    there = jnp.arange(CANDIDATES - 1)[None, :] < number[:, None]
    mask = jnp.concatenate([found[:, None], there], axis=1)
    # In a random order.
    order = jnp.argsort(jax.random.uniform(order_key, mask.shape), axis=1)
    road = jnp.take_along_axis(road, order[:, :, None], axis=1)
    fit = fit_track(hits.position, found, detector, prior=seed)
    return Candidates(
        position=expected[:, None] + road * width[:, None],
        road=road,
        mask=jnp.take_along_axis(mask, order, axis=1),
        is_true=(order == 0) & found[:, None],
        seed=seed,
        truth=inverse_momentum(truth),
        best=inverse_momentum(fit.parameters),
        sigma=_error(fit),
    )


def _smear(truth: Float[Array, " 5"], noise: Float[Array, " 5"]) -> TrackPrior:
    errors = jnp.asarray(SEED_ERRORS, truth.dtype)
    moved = truth + errors * noise
    # The last error is of q/pT.
    curved = inverse_momentum(truth) + errors[4] * noise[4]
    sine, cosine = jnp.sin(moved[3]), jnp.cos(moved[3])
    spread = jnp.diag(errors).at[4, 4].multiply(sine)
    spread = spread.at[4, 3].set(curved * cosine * errors[3])
    return TrackPrior(moved.at[4].set(curved * sine), matmul(spread, spread.T))


def _road(
    seed: Float[Array, " 5"], detector: Barrel
) -> tuple[Float[Array, "layers 2"], Float[Array, "layers 2"]]:
    # Where the seed crosses the layers, and half the width of the road, in rad and mm.
    d0, z0, phi, theta, curved = SEED_ERRORS
    radii, sine = detector.radii, jnp.sin(seed[3])
    bend = KAPPA * detector.field / 2 * radii**2 * curved
    across = jnp.sqrt(d0**2 + (radii * phi) ** 2 + bend**2)
    along = jnp.sqrt(z0**2 + (radii * theta / sine**2) ** 2)
    width = ROAD * jnp.stack([across / radii, along], axis=1)
    return predict(seed, detector).position, width
