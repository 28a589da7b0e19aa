"""Generalised-kt distances of pseudojets.

The coordinates in which distances are measured are an array [3, ...] of rapidity,
azimuth (in rad) and weight (transverse momentum to the power 2p, in GeV^2p).
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from ..numerics import wrap_angle


# In one array or in three.
Coordinates = Array | tuple[Array, ...]

# The rapidity of a particle along the beam, to which |pz| in GeV is added.
_FAR_FORWARD = 1e5


def coordinates_of(
    momentum: Float[Array, "4 *shape"], power: Float[Array, "*#shape"]
) -> Float[Array, "3 *shape"]:
    """The coordinates in which distances are measured.

    The rapidity is fastjet's: the mass is taken as zero where rounding (or smearing)
    makes its square negative, and particles along the beam are far away, each at a
    place of its own.

    Args:
        momentum: Four-momenta (px, py, pz, E), in GeV.
        power: The power p: -1 anti-kt, 0 Cambridge/Aachen, 1 kt.

    Returns:
        Rapidity, azimuth and weight.
    """
    px, py, pz, energy = momentum
    pt2 = px**2 + py**2
    mass2 = jnp.maximum((energy + pz) * (energy - pz) - pt2, 0.0)
    # Along the beam neither logarithm nor azimuth has a derivative.
    flat, light = pt2 <= 0, pt2 + mass2 <= 0
    mt2 = jnp.where(light, 1.0, pt2 + mass2)
    size = jnp.log(jnp.where(light, 1.0, energy + jnp.abs(pz))) - jnp.log(mt2) / 2
    size = jnp.where(light, _FAR_FORWARD + jnp.abs(pz), size)
    rapidity = jnp.where(pz < 0, -size, size)
    azimuth = jnp.arctan2(py, jnp.where(flat, 1.0, px))
    tiny = jnp.finfo(pt2.dtype).tiny
    weight = jnp.exp(power * jnp.log(jnp.where(flat, tiny, pt2)))
    # No distance may exceed what stands for none at all.
    most = largest_distance(pt2) / (10 * _FAR_FORWARD**2)
    return jnp.stack([rapidity, azimuth, jnp.minimum(weight, most)])


def largest_distance(like: Float[Array, "..."]) -> Float[Array, ""]:
    """A distance beyond all others.

    Finite, so that a probability of zero times it is zero and not NaN.

    Args:
        like: An array of the wanted precision.

    Returns:
        The distance.
    """
    return jnp.asarray(jnp.finfo(like.dtype).max, like.dtype) ** 0.75


def pair_distance(first: Coordinates, second: Coordinates) -> Float[Array, "..."]:
    r"""The distance of two pseudojets, times $R^2$.

    $D_{ij} = \min(w_i, w_j)\,(\Delta y^2 + \Delta\phi^2)$ (Cacciari, Salam, Soyez,
    arXiv 0802.1189, equation 1, multiplied by the square of the radius).

    Args:
        first: Coordinates of pseudojets.
        second: Coordinates of others.

    Returns:
        Their distances, in GeV^2p.
    """
    return jnp.minimum(first[2], second[2]) * plane_distance2(first, second)


def plane_distance2(first: Coordinates, second: Coordinates) -> Float[Array, "..."]:
    """The squared distance in the plane of rapidity and azimuth.

    Args:
        first: Coordinates of pseudojets.
        second: Coordinates of others.

    Returns:
        Their distances, squared.
    """
    azimuth = wrap_angle(first[1] - second[1])
    return (first[0] - second[0]) ** 2 + azimuth**2


def beam_distance(
    coordinates: Float[Array, "3 *shape"], radius: Float[Array, "*#shape"]
) -> Float[Array, "*shape"]:
    r"""The distance to the beam, times $R^2$: $D_{iB} = R^2 w_i$.

    Args:
        coordinates: Coordinates of pseudojets.
        radius: The jet radius.

    Returns:
        The distances, in GeV^2p.
    """
    return radius**2 * coordinates[2]
