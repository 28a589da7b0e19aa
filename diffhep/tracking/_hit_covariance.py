import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ..geometry import Barrel, effective_thickness
from ..helix import PION_MASS, curvature, scattering_angle
from ..numerics import matmul
from ._model import Prediction


MOST_OBLIQUE = 0.05
"""Least cosine of incidence by which material is divided: beyond it a layer of finite
size is no longer a plane."""


def hit_covariance(
    parameters: Float[Array, " 5"],
    prediction: Prediction,
    mask: Bool[Array, " layers"],
    barrel: Barrel,
) -> Float[Array, "hits hits"]:
    """The covariance of the hits: pixels, and scattering in the layers before.

    Scattering at a layer moves all hits further out together. The linear response is
    exact: the chord between the layers turns, and the arc to the outer layer changes.

    Args:
        parameters: Track parameters of a pion.
        prediction: Its crossings.
        mask: Which hits were found; the others get a unit variance and no correlation.
        barrel: The detector.

    Returns:
        Covariance of the azimuths, then the z positions, in rad and mm.
    """
    layers = barrel.radii.shape[0]
    response = _response(parameters, prediction, barrel)
    alive = jnp.concatenate([mask, mask])
    response = jnp.where(alive[:, None], response, 0.0)
    pixels = jnp.concatenate(
        [barrel.pitch_azimuth / barrel.radii, barrel.pitch_z]
    ) / jnp.sqrt(jnp.asarray(12.0, barrel.radii.dtype))
    variance = jnp.where(alive, pixels**2, 1.0)
    identity = jnp.eye(2 * layers, dtype=variance.dtype)
    return matmul(response, response.T) + identity * variance[:, None]


def _response(
    parameters: Float[Array, " 5"], prediction: Prediction, barrel: Barrel
) -> Float[Array, "hits kicks"]:
    # Response of azimuths and z to kicks of one standard deviation in phi and theta.
    theta, radii = parameters[3], barrel.radii
    omega = curvature(parameters, barrel.field)
    sine = jnp.sin(theta)
    cotangent = jnp.cos(theta) / sine
    turned = parameters[2] - omega * prediction.arc
    # The direction at each layer, along the radius and along the azimuth.
    opening = turned - prediction.azimuth
    along, across = jnp.cos(opening), jnp.sin(opening)
    kick_theta, kick_phi = _kicks(parameters, along, barrel)
    # From the layer of the kick (second index) to the hit (first index), in the local
    # frame of the hit: the way there, radial and azimuthal.
    between = prediction.azimuth[:, None] - prediction.azimuth[None, :]
    radial = radii[:, None] - radii[None, :] * jnp.cos(between)
    azimuthal = radii[None, :] * jnp.sin(between)
    arc = prediction.arc[:, None] - prediction.arc[None, :]
    slope = (across / along)[:, None]
    # A kick in phi turns the way by a right angle; one in theta changes the curvature
    # too. Then along the track, to the surface.
    steps = [
        (-azimuthal, radial, 0.0, kick_phi),
        (
            -cotangent * (arc * along[:, None] - radial),
            -cotangent * (arc * across[:, None] - azimuthal),
            -arc / sine**2,
            kick_theta,
        ),
    ]
    before = radii[:, None] > radii[None, :]
    azimuths, positions = [], []
    for outwards, sideways, lengthways, kick in steps:
        scale = jnp.where(before, kick[None, :], 0.0)
        azimuth = (sideways - slope * outwards) / radii[:, None]
        z = lengthways - cotangent * outwards / along[:, None]
        azimuths.append(azimuth * scale)
        positions.append(z * scale)
    return jnp.concatenate(
        [jnp.concatenate(azimuths, axis=1), jnp.concatenate(positions, axis=1)]
    )


def _kicks(
    parameters: Float[Array, " 5"], along: Float[Array, " layers"], barrel: Barrel
) -> tuple[Float[Array, " layers"], Float[Array, " layers"]]:
    # Standard deviations of the kicks in theta and phi at each layer, in rad.
    sine = jnp.sin(parameters[3])
    # No track has more than a million GeV; without the bound a straight one would
    # divide by zero.
    momentum = 1 / jnp.maximum(jnp.abs(parameters[4]), 1e-6)
    beta = momentum / jnp.sqrt(momentum**2 + PION_MASS**2)
    incidence = jnp.maximum(sine * along, MOST_OBLIQUE)
    thickness = effective_thickness(barrel) / incidence
    width = scattering_angle(thickness, momentum, beta)
    return width, width / sine
