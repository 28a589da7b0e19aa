from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ._checks import check_field, check_layers
from ._detector import AbstractDetector
from ._layers import Cylinders, LayerGroup


class Barrel(AbstractDetector):
    """Concentric cylindrical silicon layers in a uniform field along z.

    Long enough that acceptance is set by the generator's pseudorapidity cut. Each array
    is a parameter of the design.
    """

    radii: Float[Array, " layers"]
    """Radii, increasing, in mm."""
    pitch_azimuth: Float[Array, " layers"]
    """Pixel pitch along the azimuth, in mm. The resolution is pitch / sqrt(12)."""
    pitch_z: Float[Array, " layers"]
    """Pixel pitch along z, in mm."""
    thickness: Float[Array, " layers"]
    """Material at normal incidence, in radiation lengths (0.01 is one per cent)."""
    efficiency: Float[Array, " layers"]
    """Probability that a traversing particle leaves a hit, 0 to 1."""
    field: Float[Array, ""]
    """Magnetic field along z, in T."""

    @property
    def pitch(self) -> Float[Array, "layers 2"]:
        """Both pitches, in mm."""
        return jnp.stack([self.pitch_azimuth, self.pitch_z], axis=1)

    @property
    def groups(self) -> tuple[LayerGroup, ...]:
        """Cylinders without end."""
        return (Cylinders(self.radii),)

    @property
    def ordered(self) -> bool:
        """Radii increase."""
        return True

    @property
    def example(self) -> Float[Array, " 5"]:
        """A track of 10 GeV at right angles to the beam."""
        return jnp.asarray([0.0, 0.0, 0.0, np.pi / 2, 0.1], self.radii.dtype)


def build_barrel(
    *,
    radii: Sequence[float],
    pitch_azimuth: Sequence[float],
    pitch_z: Sequence[float],
    thickness: Sequence[float],
    efficiency: Sequence[float],
    field: float,
) -> Barrel:
    """A barrel from plain numbers, checked.

    Args:
        radii: Radii of the layers, increasing, in mm. At least 3.
        pitch_azimuth: Pixel pitch along the azimuth of each layer, in mm.
        pitch_z: Pixel pitch along z of each layer, in mm.
        thickness: Material of each layer at normal incidence, in radiation lengths,
            without the services that `effective_thickness` adds.
        efficiency: Probability of a hit, strictly between 0 and 1.
        field: Magnetic field along z, in T, not zero.

    Returns:
        The barrel.

    Raises:
        ValueError: A list has another length than `radii`, or a number lies outside its
            range.
    """
    layers = len(radii)
    if layers < 3:
        raise ValueError(
            f"A helix needs at least 3 layers, but there are {layers} radii; add some."
        )
    lists = {
        "pitch_azimuth": (pitch_azimuth, 0.0, np.inf),
        "pitch_z": (pitch_z, 0.0, np.inf),
        "thickness": (thickness, 0.0, 1.0),
        "efficiency": (efficiency, 0.0, 1.0),
    }
    check_layers(layers, "layers", lists)
    if radii[0] <= 0 or not np.all(np.diff(radii) > 0):
        raise ValueError(
            f"`radii` is {list(radii)}; list positive radii from the inside out."
        )
    check_field(field)
    # Without a dtype literal: whatever precision the user has switched on.
    return Barrel(
        radii=jnp.asarray(list(radii), float),
        pitch_azimuth=jnp.asarray(list(pitch_azimuth), float),
        pitch_z=jnp.asarray(list(pitch_z), float),
        thickness=jnp.asarray(list(thickness), float),
        efficiency=jnp.asarray(list(efficiency), float),
        field=jnp.asarray(field, float),
    )


def default_barrel() -> Barrel:
    """A small but realistic tracker: three pixel layers and three of short strips.

    Radii and pixels between today's and tomorrow's detectors of the LHC: the innermost
    radius (32 mm) and the pixel of 50 x 250 micrometres are those of the ATLAS inner
    B-layer (33 mm, 50 x 250 micrometres, about 1.9 % of a radiation length;
    ATLAS-TDR-19), the outer layers are macro-pixels in the spirit of the upgraded CMS
    outer tracker (CMS-TDR-014). Field of the ATLAS solenoid: 2 T.

    Returns:
        The barrel.
    """
    return build_barrel(
        radii=(32.0, 70.0, 120.0, 250.0, 500.0, 900.0),
        pitch_azimuth=(0.05, 0.05, 0.05, 0.08, 0.08, 0.08),
        pitch_z=(0.25, 0.25, 0.25, 0.5, 0.5, 0.5),
        thickness=(0.015, 0.015, 0.015, 0.02, 0.02, 0.02),
        efficiency=(0.97,) * 6,
        field=2.0,
    )
