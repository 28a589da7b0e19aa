import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ._barrel import Barrel, build_barrel
from ._detector import AbstractDetector
from ._endcap import Endcap, build_endcap
from ._layers import Cylinders, Discs, LayerGroup


class Tracker(AbstractDetector):
    """A barrel of finite length between two endcaps.

    Its layers are those of the barrel, then the discs. Which a track crosses, and in
    which order, depends on the track.
    """

    barrel: Barrel
    """The barrel, with the field."""
    half_length: Float[Array, " layers"]
    """Largest absolute z of each layer of the barrel, in mm."""
    endcap: Endcap
    """The discs of both sides."""

    def __check_init__(self) -> None:
        if self.half_length.shape != self.barrel.radii.shape:
            raise ValueError(
                f"`half_length` has the shape {self.half_length.shape}, but the radii "
                f"of the barrel have {self.barrel.radii.shape}; give one length per "
                "layer."
            )

    @property
    def field(self) -> Float[Array, ""]:
        """Magnetic field along z, in T."""
        return self.barrel.field

    @property
    def pitch(self) -> Float[Array, "layers 2"]:
        """Both pitches, in mm."""
        discs = [self.endcap.pitch_azimuth, self.endcap.pitch_radius]
        return jnp.concatenate([self.barrel.pitch, jnp.stack(discs, axis=1)])

    @property
    def thickness(self) -> Float[Array, " layers"]:
        """Material at normal incidence, in radiation lengths."""
        return jnp.concatenate([self.barrel.thickness, self.endcap.thickness])

    @property
    def efficiency(self) -> Float[Array, " layers"]:
        """Probability that a traversing particle leaves a hit, 0 to 1."""
        return jnp.concatenate([self.barrel.efficiency, self.endcap.efficiency])

    @property
    def groups(self) -> tuple[LayerGroup, ...]:
        """Cylinders, then discs."""
        endcap = self.endcap
        return (
            Cylinders(self.barrel.radii, self.half_length),
            Discs(endcap.z, endcap.inner, endcap.outer),
        )

    @property
    def ordered(self) -> bool:
        """The order depends on the track."""
        return False

    @property
    def example(self) -> Float[Array, " 5"]:
        """That of the barrel."""
        return self.barrel.example


def default_tracker() -> Tracker:
    """A small but realistic tracker up to a pseudorapidity of about 2.7.

    The layers of `default_barrel`, shortened to 400 mm (pixels) and 1200 mm, with three
    discs of pixels and four of short strips on either side. Positions and pitches in
    the spirit of today's detectors of the LHC, not those of one of them.

    Returns:
        The tracker.
    """
    radii = (32.0, 70.0, 120.0, 250.0, 500.0, 900.0)
    # Pyright takes the abstract fields, which are properties here, for arguments.
    return Tracker(  # pyright: ignore[reportCallIssue]
        barrel=build_barrel(
            radii=radii,
            pitch_azimuth=(0.05, 0.05, 0.05, 0.08, 0.08, 0.08),
            pitch_z=(0.25, 0.25, 0.25, 0.5, 0.5, 0.5),
            thickness=(0.015, 0.015, 0.015, 0.02, 0.02, 0.02),
            efficiency=(0.97,) * len(radii),
            field=2.0,
        ),
        half_length=jnp.asarray(np.repeat([400.0, 1200.0], 3), float),
        endcap=build_endcap(
            z=(500.0, 580.0, 650.0, 1350.0, 1650.0, 2050.0, 2550.0),
            inner=(50.0,) * 3 + (150.0, 180.0, 220.0, 270.0),
            outer=(150.0,) * 3 + (950.0,) * 4,
            pitch_azimuth=(0.05,) * 3 + (0.08,) * 4,
            pitch_radius=(0.25,) * 3 + (0.5,) * 4,
            thickness=(0.015,) * 3 + (0.02,) * 4,
            efficiency=(0.97,) * 7,
        ),
    )
