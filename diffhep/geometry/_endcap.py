from collections.abc import Sequence

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ._checks import check_layers


class Endcap(eqx.Module):
    """Rings of silicon at right angles to the beam, on either side.

    Each array is a parameter of the design. They measure azimuth and radius.
    """

    z: Float[Array, " discs"]
    """Longitudinal positions, in mm; negative on the other side."""
    inner: Float[Array, " discs"]
    """Inner radii, in mm."""
    outer: Float[Array, " discs"]
    """Outer radii, in mm."""
    pitch_azimuth: Float[Array, " discs"]
    """Pixel pitch along the azimuth, in mm. The resolution is pitch / sqrt(12)."""
    pitch_radius: Float[Array, " discs"]
    """Pixel pitch along the radius, in mm."""
    thickness: Float[Array, " discs"]
    """Material at normal incidence, in radiation lengths."""
    efficiency: Float[Array, " discs"]
    """Probability that a traversing particle leaves a hit, 0 to 1."""


def build_endcap(
    *,
    z: Sequence[float],
    inner: Sequence[float],
    outer: Sequence[float],
    pitch_azimuth: Sequence[float],
    pitch_radius: Sequence[float],
    thickness: Sequence[float],
    efficiency: Sequence[float],
) -> Endcap:
    """Discs on both sides from plain numbers for one, checked.

    Args:
        z: Distances of the discs from the middle, increasing, in mm.
        inner: Inner radius of each, in mm.
        outer: Outer radius of each, in mm.
        pitch_azimuth: Pixel pitch along the azimuth of each, in mm.
        pitch_radius: Pixel pitch along the radius of each, in mm.
        thickness: Material of each at normal incidence, in radiation lengths, without
            the services that `effective_thickness` adds.
        efficiency: Probability of a hit, strictly between 0 and 1.

    Returns:
        The discs at positive z, then their mirror images.

    Raises:
        ValueError: A list has another length than `z`, or a number lies outside its
            range.
    """
    lists = {
        "inner": (inner, 0.0, np.inf),
        "outer": (outer, 0.0, np.inf),
        "pitch_azimuth": (pitch_azimuth, 0.0, np.inf),
        "pitch_radius": (pitch_radius, 0.0, np.inf),
        "thickness": (thickness, 0.0, 1.0),
        "efficiency": (efficiency, 0.0, 1.0),
    }
    check_layers(len(z), "discs of one side", lists)
    if len(z) < 1 or z[0] <= 0 or not np.all(np.diff(z) > 0):
        raise ValueError(
            f"`z` is {list(z)}; list positive positions from the middle out, of one "
            "side: the other side is its mirror image."
        )
    if not all(a < b for a, b in zip(inner, outer, strict=True)):
        raise ValueError(
            f"`inner` is {list(inner)} and `outer` {list(outer)}; each disc must begin "
            "before it ends."
        )

    def twice(values: Sequence[float], sign: float = 1.0) -> Float[Array, " discs"]:
        return jnp.asarray([*values, *(sign * value for value in values)], float)

    return Endcap(
        z=twice(z, -1.0),
        inner=twice(inner),
        outer=twice(outer),
        pitch_azimuth=twice(pitch_azimuth),
        pitch_radius=twice(pitch_radius),
        thickness=twice(thickness),
        efficiency=twice(efficiency),
    )
