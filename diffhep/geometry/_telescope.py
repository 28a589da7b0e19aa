from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ._checks import check_field, check_layers
from ._detector import AbstractDetector
from ._layers import LayerGroup, Planes


class Telescope(AbstractDetector):
    """Parallel planes of silicon, one behind the other, in a field along z.

    The z axis lies in their direction; particles come from it, along the normal.
    """

    distance: Float[Array, " layers"]
    """Distances from the z axis, increasing, in mm."""
    pitch_across: Float[Array, " layers"]
    """Pixel pitch at right angles to z, in mm. The resolution is pitch / sqrt(12)."""
    pitch_z: Float[Array, " layers"]
    """Pixel pitch along z, in mm."""
    thickness: Float[Array, " layers"]
    """Material at normal incidence, in radiation lengths."""
    efficiency: Float[Array, " layers"]
    """Probability that a traversing particle leaves a hit, 0 to 1."""
    field: Float[Array, ""]
    """Magnetic field along z, in T."""
    azimuth: Float[Array, ""]
    """Azimuth of the planes' normal, in rad."""

    @property
    def pitch(self) -> Float[Array, "layers 2"]:
        """Both pitches, in mm."""
        return jnp.stack([self.pitch_across, self.pitch_z], axis=1)

    @property
    def groups(self) -> tuple[LayerGroup, ...]:
        """Planes without end."""
        azimuth = jnp.broadcast_to(self.azimuth, self.distance.shape)
        return (Planes(self.distance, azimuth),)

    @property
    def ordered(self) -> bool:
        """Distances increase."""
        return True

    @property
    def example(self) -> Float[Array, " 5"]:
        """A track of 10 GeV along the normal."""
        still = jnp.zeros_like(self.azimuth)
        return jnp.stack([still, still, self.azimuth, still + jnp.pi / 2, still + 0.1])


def build_telescope(
    *,
    distance: Sequence[float],
    pitch_across: Sequence[float],
    pitch_z: Sequence[float],
    thickness: Sequence[float],
    efficiency: Sequence[float],
    field: float,
    azimuth: float = 0.0,
) -> Telescope:
    """A telescope from plain numbers, checked.

    Args:
        distance: Distances of the planes from the z axis, in mm; 3 or more, growing.
        pitch_across: Pixel pitch at right angles to z of each plane, in mm.
        pitch_z: Pixel pitch along z of each plane, in mm.
        thickness: Material of each plane at normal incidence, in radiation lengths,
            without the services that `effective_thickness` adds.
        efficiency: Probability of a hit, strictly between 0 and 1.
        field: Magnetic field along z, in T, not zero.
        azimuth: Azimuth of the planes' normal, in rad.

    Returns:
        The telescope.

    Raises:
        ValueError: A list has another length than `distance`, or a number lies outside
            its range.
    """
    planes = len(distance)
    if planes < 3 or distance[0] <= 0 or not np.all(np.diff(distance) > 0):
        raise ValueError(
            f"`distance` is {list(distance)}; list at least 3 positive distances from "
            "the front to the back."
        )
    lists = {
        "pitch_across": (pitch_across, 0.0, np.inf),
        "pitch_z": (pitch_z, 0.0, np.inf),
        "thickness": (thickness, 0.0, 1.0),
        "efficiency": (efficiency, 0.0, 1.0),
    }
    check_layers(planes, "planes", lists)
    check_field(field)
    return Telescope(
        distance=jnp.asarray(list(distance), float),
        pitch_across=jnp.asarray(list(pitch_across), float),
        pitch_z=jnp.asarray(list(pitch_z), float),
        thickness=jnp.asarray(list(thickness), float),
        efficiency=jnp.asarray(list(efficiency), float),
        field=jnp.asarray(field, float),
        azimuth=jnp.asarray(azimuth, float),
    )
