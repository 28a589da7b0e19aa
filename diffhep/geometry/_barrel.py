import equinox as eqx
from jaxtyping import Array, Float


class Barrel(eqx.Module):
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
