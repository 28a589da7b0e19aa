import math

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ..helix import PION_MASS
from ..numerics import inverse_spd, matvec
from ..vertexing import Impact


_THRESHOLDS = (1.0, 2.0, 4.0, 8.0)
FEATURES = (
    "log pt",
    "pseudorapidity",
    "log mass over pt",
    "flight significance",
    "transverse flight significance",
    "flight along the jet",
    "vertex mass",
    "vertex energy fraction",
    "displaced tracks",
    "vertex chi2 per ndf",
    "tracks",
    *(f"tracks with d0 significance above {t:g}" for t in _THRESHOLDS),
    *(f"tracks with z0 significance above {t:g}" for t in _THRESHOLDS),
)
"""Names of the features, in order."""
NUM_FEATURES = len(FEATURES)

# Angles (in rad, and in the cotangent of the polar angle) between track and jet above
# which the lifetime sign is certain.
_AZIMUTHAL, _POLAR = 0.02, 0.05
# Significances are bounded by this: beyond, they tell strange particles from noise.
_LARGEST = 20.0
# Flight across the jet's axis, in mm, where a logarithm takes over.
_ACROSS = 0.1
# In 1/GeV: a straight track counts as one of 10 TeV.
_STRAIGHT = 1e-4


class JetVertex(eqx.Module):
    """A displaced vertex, seen from the primary vertex; or one for each jet."""

    flight: Float[Array, "*jets 3"]
    """From the primary to the displaced vertex, in mm."""
    covariance: Float[Array, "*jets 3 3"]
    """Covariance of `flight`, in mm^2."""
    weight: Float[Array, "*jets tracks"]
    """Weights of the tracks in the displaced vertex."""
    chi2: Float[Array, "*jets"]
    ndf: Float[Array, "*jets"]
    converged: Bool[Array, "*jets"]
    """Whether it is the solution of its fit. If not, it is finite and close to it."""


def track_momenta(
    parameters: Float[Array, "tracks 5"],
) -> tuple[
    Float[Array, " tracks"],
    Float[Array, " tracks"],
    Float[Array, " tracks"],
    Float[Array, " tracks"],
]:
    """The four-momenta of tracks that are taken for pions.

    Args:
        parameters: Track parameters; no NaN.

    Returns:
        The components (px, py, pz, E), in GeV; finite for a straight track, too.
    """
    phi, theta = parameters[:, 2], parameters[:, 3]
    momentum = 1 / jnp.sqrt(parameters[:, 4] ** 2 + _STRAIGHT**2)
    transverse = momentum * jnp.sin(theta)
    return (
        transverse * jnp.cos(phi),
        transverse * jnp.sin(phi),
        momentum * jnp.cos(theta),
        jnp.sqrt(momentum**2 + PION_MASS**2),
    )


def jet_features(
    momentum: Float[Array, " 4"],
    membership: Bool[Array, " tracks"],
    momenta: tuple[
        Float[Array, " tracks"],
        Float[Array, " tracks"],
        Float[Array, " tracks"],
        Float[Array, " tracks"],
    ],
    impact: Impact,
    vertex: JetVertex,
) -> Float[Array, " features"]:
    """What tells the flavour of a jet: the numbers that `FEATURES` names.

    Smooth in everything, and of order one by fixed scales: logarithms of one plus a
    number of tracks or a squared significance, lengths in mm through the inverse
    hyperbolic sine, masses in GeV. Impact parameters have the lifetime sign (positive
    where the track crosses the jet's axis downstream), which changes smoothly for
    tracks along the jet.

    Args:
        momentum: Four-momentum of the jet (px, py, pz, E), in GeV, with a transverse
            component.
        membership: Which tracks belong to the jet.
        momenta: Four-momenta of the tracks, by component.
        impact: Impact parameters of the tracks about the primary vertex, with the
            uncertainty of both.
        vertex: The jet's displaced vertex.

    Returns:
        `NUM_FEATURES` numbers.
    """
    member = membership.astype(momentum.dtype)
    d0_counts, z0_counts = _displaced(momentum, member, impact)
    return jnp.concatenate(
        [
            _kinematics(momentum),
            _flight(momentum, vertex),
            _content(member, momenta, vertex),
            jnp.log1p(jnp.sum(member, keepdims=True)) / 2,
            jnp.log1p(d0_counts),
            jnp.log1p(z0_counts),
        ]
    )


def _kinematics(momentum: Float[Array, " 4"]) -> Float[Array, " 3"]:
    x, y, z, energy = momentum
    squared = x**2 + y**2
    rapidity = jnp.arcsinh(z / jnp.sqrt(squared))
    # Rounding may make the squared mass of a single particle slightly negative.
    mass_squared = jnp.maximum(energy**2 - squared - z**2, 0.0)
    return jnp.stack(
        [
            jnp.log(squared / 50.0**2) / 2,
            jnp.sqrt(rapidity**2 + 0.01),
            jnp.log(mass_squared / squared + 1e-4) / 2 + 2,
        ]
    )


def vertex_features(
    momentum: Float[Array, " 4"],
    member: Float[Array, " tracks"],
    momenta: tuple[
        Float[Array, " tracks"],
        Float[Array, " tracks"],
        Float[Array, " tracks"],
        Float[Array, " tracks"],
    ],
    vertex: JetVertex,
) -> Float[Array, " 9"]:
    """What tells the flavour of a displaced vertex.

    Significance of the flight, in space and across the beam, its length along the jet
    and across it, its error along the jet; mass, share of the energy, number of tracks
    and chi-squared.

    Args:
        momentum: Four-momentum of the jet, in GeV.
        member: One for each track of the jet, else zero.
        momenta: Four-momenta of the tracks, by component.
        vertex: The vertex.

    Returns:
        Numbers of order one, smooth in everything.
    """
    axis = momentum[:3] / jnp.sqrt(jnp.sum(momentum[:3] ** 2))
    astray = vertex.flight - axis * jnp.sum(vertex.flight * axis)
    variance = jnp.sum(axis * matvec(vertex.covariance, axis))
    shape = jnp.stack(
        [jnp.log1p(jnp.sum(astray**2) / _ACROSS**2) / 3, jnp.log(variance) / 5]
    )
    return jnp.concatenate(
        [_flight(momentum, vertex), _content(member, momenta, vertex), shape]
    )


def lifetime_signs(
    momentum: Float[Array, " 4"], impact: Impact
) -> tuple[Float[Array, " tracks"], Float[Array, " tracks"]]:
    """What turns impact parameters into those with the lifetime sign.

    Positive where the track crosses the jet's axis downstream. From -1 to 1, smooth for
    tracks along the jet.

    Args:
        momentum: Four-momentum of the jet, with a transverse component.
        impact: Impact parameters of the tracks about the primary vertex.

    Returns:
        Factors on d0 and on z0.
    """
    x, y, z, _ = momentum
    transverse = jnp.sqrt(x**2 + y**2)
    angle = (impact.cosine * y - impact.sine * x) / transverse
    # But for the curvature between perigee and vertex, that of the polar angle.
    cotangent = impact.gradient_x * impact.cosine + impact.gradient_y * impact.sine
    steepness = z / transverse - cotangent
    return jnp.tanh(angle / _AZIMUTHAL), jnp.tanh(steepness / _POLAR)


def _flight(momentum: Float[Array, " 4"], vertex: JetVertex) -> Float[Array, " 3"]:
    flight = vertex.flight
    axis = momentum[:3] / jnp.sqrt(jnp.sum(momentum[:3] ** 2))
    # One track leaves a covariance that in single precision is good to a thousandth.
    spread = vertex.covariance
    floor = 1024 * jnp.finfo(spread.dtype).eps * jnp.trace(spread)
    spread = spread + floor * jnp.eye(3, dtype=spread.dtype)
    full = jnp.sum(flight * matvec(inverse_spd(spread), flight))
    plane = flight[:2]
    transverse = jnp.sum(plane * matvec(inverse_spd(spread[:2, :2]), plane))
    # Squared significances: their roots have no derivative where there is no flight.
    return jnp.stack(
        [
            jnp.log1p(full) / 5,
            jnp.log1p(transverse) / 5,
            jnp.arcsinh(jnp.sum(flight * axis)) / 3,
        ]
    )


def _content(
    member: Float[Array, " tracks"],
    momenta: tuple[Float[Array, " tracks"], ...],
    vertex: JetVertex,
) -> Float[Array, " 4"]:
    x, y, z, energy = (vertex.weight @ component for component in momenta)
    mass_squared = jnp.maximum(energy**2 - x**2 - y**2 - z**2, 0.0)
    # One GeV: the energy of a jet without tracks is no divisor.
    total = member @ momenta[3] + 1
    return jnp.stack(
        [
            jnp.log1p(mass_squared) / 2,
            energy / total,
            jnp.log1p(jnp.sum(vertex.weight)),
            jnp.log1p(vertex.chi2 / (1 + vertex.ndf)),
        ]
    )


def _displaced(
    momentum: Float[Array, " 4"], member: Float[Array, " tracks"], impact: Impact
) -> tuple[Float[Array, " thresholds"], Float[Array, " thresholds"]]:
    # Soft numbers of tracks above each threshold.
    sign_d0, sign_z0 = lifetime_signs(momentum, impact)
    d0 = impact.d0 / jnp.sqrt(impact.variance_d0) * sign_d0
    z0 = impact.z0 / jnp.sqrt(impact.variance_z0) * sign_z0
    return _counts(d0, member), _counts(z0, member)


def _counts(
    significance: Float[Array, " tracks"], member: Float[Array, " tracks"]
) -> Float[Array, " thresholds"]:
    bounded = _LARGEST * jnp.tanh(significance / _LARGEST)
    # The sigmoid of (bounded - threshold), from one exponential for all thresholds.
    decay = jnp.exp(-bounded)
    return jnp.stack([member @ (1 / (1 + decay * math.exp(t))) for t in _THRESHOLDS])
