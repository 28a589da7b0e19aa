"""Generalised-kt distances of pseudojets.

The coordinates in which distances are measured are an array [3, ...] of rapidity,
azimuth (in rad) and weight (transverse momentum to the power 2p, in GeV^2p).
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from ..numerics import wrap_angle


def coordinates_of(
    momentum: Float[Array, "4 *shape"], power: Float[Array, "*#shape"]
) -> Float[Array, "3 *shape"]:
    """The coordinates in which distances are measured.

    The rapidity is fastjet's: the mass is taken as zero where rounding (or smearing)
    makes its square negative.

    Args:
        momentum: Four-momenta (px, py, pz, E), in GeV, of non-zero transverse momentum.
        power: The power p: -1 anti-kt, 0 Cambridge/Aachen, 1 kt.

    Returns:
        Rapidity, azimuth and weight.
    """
    px, py, pz, energy = momentum
    pt2 = px**2 + py**2
    mass2 = jnp.maximum((energy + pz) * (energy - pz) - pt2, 0.0)
    size = jnp.log(energy + jnp.abs(pz)) - jnp.log(pt2 + mass2) / 2
    rapidity = jnp.where(pz < 0, -size, size)
    weight = jnp.exp(power * jnp.log(pt2))
    return jnp.stack([rapidity, jnp.arctan2(py, px), weight])


def pair_distance(
    first: Float[Array, "3 *#shape"], second: Float[Array, "3 *#shape"]
) -> Float[Array, "*shape"]:
    r"""The distance of two pseudojets, times $R^2$.

    $D_{ij} = \min(w_i, w_j)\,(\Delta y^2 + \Delta\phi^2)$ (Cacciari, Salam, Soyez,
    arXiv 0802.1189, equation 1, multiplied by the square of the radius).

    Args:
        first: Coordinates of pseudojets.
        second: Coordinates of others.

    Returns:
        Their distances, in GeV^2p.
    """
    rapidity = first[0] - second[0]
    azimuth = wrap_angle(first[1] - second[1])
    return jnp.minimum(first[2], second[2]) * (rapidity**2 + azimuth**2)


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
