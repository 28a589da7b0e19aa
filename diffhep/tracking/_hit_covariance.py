import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ..geometry import Barrel, effective_thickness
from ..helix import PION_MASS, curvature, scattering_angle
from ..numerics import matmul, sinc
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
    exact, and in closed form: the helix after a kick is described at its perigee.

    Args:
        parameters: Track parameters of a pion.
        prediction: Its crossings.
        mask: Which hits were found; the others get a unit variance and no correlation.
        barrel: The detector.

    Returns:
        Covariance of the azimuths, then the z positions, in rad and mm.
    """
    alive = jnp.concatenate([mask, mask])
    response = jnp.where(alive[:, None], _response(parameters, prediction, barrel), 0.0)
    pixels = jnp.concatenate(
        [barrel.pitch_azimuth / barrel.radii, barrel.pitch_z]
    ) / jnp.sqrt(jnp.asarray(12.0, barrel.radii.dtype))
    variance = jnp.where(alive, pixels**2, 1.0)
    identity = jnp.eye(variance.shape[0], dtype=variance.dtype)
    return matmul(response, response.T) + identity * variance[:, None]


def _response(
    parameters: Float[Array, " 5"], prediction: Prediction, barrel: Barrel
) -> Float[Array, "hits kicks"]:
    # Response of azimuths and z to kicks of one standard deviation in phi and theta: a
    # kick makes another helix, of which the hits further out are those.
    later = barrel.radii[:, None] > barrel.radii[None, :]
    later = jnp.concatenate([later, later])
    later = jnp.concatenate([later, later], axis=1)
    perigees = _kicked_perigees(parameters, prediction, barrel)
    return jnp.where(later, matmul(prediction.jacobian, perigees), 0.0)


def _kicked_perigees(
    parameters: Float[Array, " 5"], prediction: Prediction, barrel: Barrel
) -> Float[Array, "5 kicks"]:
    r"""The change of the track parameters for kicks of one standard deviation.

    With the circle's centre at $(d_0 - 1/\omega) n_0 = x_k - n_k/\omega$, taken at
    a fixed point $x_k$; the limit $\omega \to 0$ is taken analytically.
    """
    d0, theta = parameters[0], parameters[3]
    sine = jnp.sin(theta)
    cotangent = jnp.cos(theta) / sine
    omega = curvature(parameters, barrel.field)
    arc = prediction.arc
    half = omega * arc / 2
    ratio, cosine = sinc(half), jnp.cos(half)
    # sin(turn) / omega and (1 - cos(turn)) / omega, at the turn from the perigee.
    across, along = arc * ratio * cosine, half * arc * ratio**2
    shrink = 1 - omega * d0
    theta_width, phi_width = _kicks(
        sine, parameters[4], prediction.azimuth, parameters[2] - omega * arc, barrel
    )
    zero, one = jnp.zeros_like(arc), jnp.ones_like(arc)
    by_phi = [
        -across,
        -cotangent * (d0 - along) / shrink,
        (1 - omega * along) / shrink,
        zero,
        zero,
    ]
    by_theta = [
        cotangent * along,
        arc / sine**2 - cotangent**2 * (arc - across / shrink),
        -cotangent * omega * across / shrink,
        one,
        zero,
    ]
    phi_rows = jnp.stack(by_phi) * phi_width[None, :]
    theta_rows = jnp.stack(by_theta) * theta_width[None, :]
    return jnp.concatenate([phi_rows, theta_rows], axis=1)


def _kicks(
    sine: Float[Array, ""],
    charge_over_momentum: Float[Array, ""],
    azimuth: Float[Array, " layers"],
    direction: Float[Array, " layers"],
    barrel: Barrel,
) -> tuple[Float[Array, " layers"], Float[Array, " layers"]]:
    # Standard deviations of the kicks in theta and phi at each layer, in rad.
    # No track has more than a million GeV; without the bound a straight one would
    # divide by zero.
    momentum = 1 / jnp.maximum(jnp.abs(charge_over_momentum), 1e-6)
    beta = momentum / jnp.sqrt(momentum**2 + PION_MASS**2)
    incidence = jnp.maximum(sine * jnp.cos(direction - azimuth), MOST_OBLIQUE)
    thickness = effective_thickness(barrel) / incidence
    width = scattering_angle(thickness, momentum, beta)
    return width, width / sine
