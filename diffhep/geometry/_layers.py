"""The layers of a detector, in groups of one kind."""

import equinox as eqx
from jaxtyping import Array, Float


class Cylinders(eqx.Module):
    """Cylinders about the z axis. They measure azimuth [rad] and z [mm]."""

    radii: Float[Array, " layers"]
    """Radii, in mm."""
    half_length: Float[Array, " layers"] | None = None
    """Largest absolute z, in mm; None for cylinders without end."""

    @property
    def number(self) -> int:
        """How many."""
        return self.radii.shape[0]


class Discs(eqx.Module):
    """Rings at right angles to the z axis. They measure azimuth [rad], radius [mm]."""

    z: Float[Array, " layers"]
    """Longitudinal positions, in mm."""
    inner: Float[Array, " layers"]
    """Inner radii, in mm."""
    outer: Float[Array, " layers"]
    """Outer radii, in mm."""

    @property
    def number(self) -> int:
        """How many."""
        return self.z.shape[0]


class Planes(eqx.Module):
    """Planes parallel to the z axis, without end: a telescope, or staves of a barrel.

    They measure the distance from the foot of the perpendicular from the z axis, along
    (-sin, cos) of the normal's azimuth [mm], and z [mm].
    """

    distance: Float[Array, " layers"]
    """Distance from the z axis, in mm, positive."""
    azimuth: Float[Array, " layers"]
    """Azimuth of the normal, in rad."""

    @property
    def number(self) -> int:
        """How many."""
        return self.distance.shape[0]


LayerGroup = Cylinders | Discs | Planes
"""What a track may cross."""
