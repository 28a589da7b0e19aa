import jax.numpy as jnp
from jaxtyping import Array, Float

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
