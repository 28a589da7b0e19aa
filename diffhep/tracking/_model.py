"""What a helix predicts for the hits of a detector, and what deflects it."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from ..geometry import (
    MOST_OBLIQUE,
    STAGGER,
    AbstractDetector,
    Cylinders,
    Discs,
    LayerGroup,
    Planes,
    effective_thickness,
)
from ..helix import (
    PION_MASS,
    Crossings,
    cross_layers,
    kick_response,
    scattering_angle,
)
from ..numerics import wrap_angle


# A function that appears several times is traced once if it is jitted.
@jax.jit
def predict(parameters: Float[Array, " 5"], detector: AbstractDetector) -> Crossings:
    """The crossings of a track with all layers of a detector.

    Args:
        parameters: Track parameters.
        detector: The detector.

    Returns:
        The crossings, in the order of the layers. Those that are not reached are finite
        and mean nothing.
    """
    parts = [
        cross_layers(parameters, group, detector.field) for group in detector.groups
    ]
    return jax.tree.map(lambda *group: jnp.concatenate(group), *parts)


def resolution(
    crossings: Crossings, detector: AbstractDetector
) -> Float[Array, "layers 2"]:
    """The standard deviations of what the pixels measure.

    Args:
        crossings: Where a track crosses the layers.
        detector: The detector.

    Returns:
        Pitch / sqrt(12), in the units of the measured coordinates.
    """
    root = jnp.sqrt(jnp.asarray(12.0, detector.pitch.dtype))
    units = jnp.stack([crossings.scale, jnp.ones_like(crossings.scale)], axis=1)
    return detector.pitch / root / units


def momentum_of(parameters: Float[Array, " 5"]) -> Float[Array, ""]:
    """The momentum of a track of unit charge.

    Args:
        parameters: Track parameters.

    Returns:
        The momentum, in GeV. No track has more than a million: without the bound a
        straight one would divide by zero.
    """
    return 1 / jnp.maximum(jnp.abs(parameters[4]), 1e-6)


def material_crossed(
    crossings: Crossings, detector: AbstractDetector
) -> tuple[Float[Array, " layers"], Float[Array, " layers"]]:
    """The material on a track's way through each layer.

    Args:
        crossings: Where it crosses the layers.
        detector: The detector.

    Returns:
        Radiation lengths along the track, and the fraction of it that is there: zero
        where the layer is not reached, and a smooth step at its edges.
    """
    path = effective_thickness(detector) / jnp.maximum(
        crossings.incidence, MOST_OBLIQUE
    )
    present = jax.nn.sigmoid(crossings.inside / STAGGER)
    return path, jnp.where(crossings.reached, present, 0.0)


def scattering_kicks(
    parameters: Float[Array, " 5"], crossings: Crossings, detector: AbstractDetector
) -> Float[Array, "layers 5 2"]:
    """The change of the track parameters by scattering of one standard deviation.

    Args:
        parameters: Track parameters of a pion.
        crossings: Where it crosses the layers.
        detector: The detector.

    Returns:
        Those for kicks in phi and theta at each layer. At the edges of a layer they
        fade, as the material does in the simulation.
    """
    momentum = momentum_of(parameters)
    beta = momentum / jnp.sqrt(momentum**2 + PION_MASS**2)
    path, present = material_crossed(crossings, detector)
    width = scattering_angle(path, momentum, beta) * present
    widths = jnp.stack([width / jnp.sin(parameters[3]), width], axis=1)
    response = kick_response(parameters, crossings.arc, detector.field)
    return response[:, :, :2] * widths[:, None, :]


def is_angle(detector: AbstractDetector) -> Bool[np.ndarray, " layers"]:
    """Which layers measure an azimuth first.

    Args:
        detector: The detector.

    Returns:
        Whether the first coordinate is in rad.
    """
    return np.concatenate(
        [
            np.full(group.number, not isinstance(group, Planes))
            for group in detector.groups
        ]
    )


def wrap_azimuths(
    apart: Float[Array, "layers *hits 2"], detector: AbstractDetector
) -> Float[Array, "layers *hits 2"]:
    """Differences of positions, with those of azimuths brought near zero.

    Args:
        apart: Differences of what the layers measure.
        detector: The detector.

    Returns:
        The same, azimuths between -pi and pi.
    """
    angle = np.reshape(is_angle(detector), (-1,) + (1,) * (apart.ndim - 2))
    first = jnp.where(angle, wrap_angle(apart[..., 0]), apart[..., 0])
    return jnp.stack([first, apart[..., 1]], axis=-1)


def hit_points(
    position: Float[Array, "layers 2"], detector: AbstractDetector
) -> tuple[Float[Array, " layers"], Float[Array, " layers"], Float[Array, " layers"]]:
    """Where in space hits are.

    Args:
        position: What was measured on each layer.
        detector: The detector.

    Returns:
        Radius [mm], azimuth [rad] and z [mm]; the radius is positive.
    """
    parts, begin = [], 0
    for group in detector.groups:
        end = begin + group.number
        parts.append(_points(position[begin:end], group))
        begin = end
    radii, azimuths, z = zip(*parts, strict=True)
    return jnp.concatenate(radii), jnp.concatenate(azimuths), jnp.concatenate(z)


def _points(
    position: Float[Array, "layers 2"], layers: LayerGroup
) -> tuple[Float[Array, " layers"], Float[Array, " layers"], Float[Array, " layers"]]:
    first, second = position[:, 0], position[:, 1]
    if isinstance(layers, Cylinders):
        return layers.radii, first, second
    if isinstance(layers, Discs):
        return second, first, layers.z
    radius = jnp.sqrt(layers.distance**2 + first**2)
    return radius, layers.azimuth + jnp.arctan(first / layers.distance), second
