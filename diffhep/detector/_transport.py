import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ..geometry import Barrel, effective_thickness
from ..helix import (
    perigee_from_momentum,
    perigee_from_point,
    scattering_angle,
    to_cylinder,
)


STAGGER = 0.5
"""Width of the step in radius at which a layer begins to see a particle, in mm. Modules
of a layer are staggered and tilted, so that a particle produced close to the nominal
radius meets some of them."""

_WIDTHS = 12.0
_MOST_OBLIQUE = 0.05


class SimulatedHits(eqx.Module):
    """What the layers would measure of one particle, were every hit found."""

    azimuth: Float[Array, " layers"]
    """Measured azimuth, in rad."""
    z: Float[Array, " layers"]
    """Measured longitudinal position, in mm."""
    logit: Float[Array, " layers"]
    """Log-odds that the hit is found; minus infinity where `reached` is false."""
    reached: Bool[Array, " layers"]
    """Which layers the particle crosses."""


def simulate_hits(
    position: Float[Array, " 3"],
    momentum: Float[Array, " 4"],
    charge: Float[Array, ""],
    barrel: Barrel,
    noise: Float[Array, "layers 4"],
) -> SimulatedHits:
    """The hits of a charged particle, by exact helices between the layers.

    At each layer the position is measured with the Gaussian resolution of its pixels,
    pitch / sqrt(12), and then the direction changes by multiple scattering. No energy
    is lost. Everything is differentiable in the barrel and in the particle.

    A layer sees a particle that is produced inside of it. So that the radius may be a
    parameter, this is no cut: the probability of a hit is the efficiency times a
    logistic function of the distance, of the width `STAGGER`, and so is the fraction of
    the scattering. More than 12 widths outside (a probability below 1e-5) a hit is
    impossible.

    Args:
        position: Production vertex (x, y, z), in mm.
        momentum: Four-momentum (px, py, pz, E), in GeV, not along z.
        charge: Charge, in units of e.
        barrel: The detector.
        noise: Independent standard normal numbers: pixels in azimuth and z, scattering
            in phi and theta.

    Returns:
        The hits, finite everywhere.
    """
    start = perigee_from_momentum(position, momentum[:3], charge, barrel.field)
    total = jnp.sqrt(jnp.sum(momentum[:3] ** 2))
    # A photon's rounding must not make anybody faster than light.
    beta = jnp.minimum(total / momentum[3], 1.0)
    material = effective_thickness(barrel)
    # An impact parameter of zero has no derivative as a square root.
    origin = jnp.sqrt(position[0] ** 2 + position[1] ** 2 + STAGGER**2 / 100)
    depth = (barrel.radii - origin) / STAGGER

    def cross(parameters, layer):
        radius, thickness, depth, kick = layer
        crossing = to_cylinder(parameters, radius, barrel.field)
        theta = parameters[3]
        sine = jnp.sin(theta)
        incidence = sine * jnp.cos(crossing.direction - crossing.azimuth)
        path = thickness / jnp.maximum(incidence, _MOST_OBLIQUE)
        width = scattering_angle(path, total, beta) * jax.nn.sigmoid(depth)
        point = jnp.stack(
            [
                radius * jnp.cos(crossing.azimuth),
                radius * jnp.sin(crossing.azimuth),
                crossing.z,
            ]
        )
        after = perigee_from_point(
            point,
            crossing.direction + width / sine * kick[0],
            theta + width * kick[1],
            parameters[4],
            barrel.field,
        )
        # A layer that is not reached changes nothing.
        after = jnp.where(crossing.reached, after, parameters)
        return after, (crossing.azimuth, crossing.z, crossing.reached)

    layers = (barrel.radii, material, depth, noise[:, 2:])
    _, (azimuth, z, reached) = jax.lax.scan(cross, start, layers)
    reached = reached & (depth > -_WIDTHS)
    root = jnp.sqrt(jnp.asarray(12.0, azimuth.dtype))
    azimuth = azimuth + barrel.pitch_azimuth / barrel.radii / root * noise[:, 0]
    z = z + barrel.pitch_z / root * noise[:, 1]
    log_found = jnp.log(barrel.efficiency) + jax.nn.log_sigmoid(
        jnp.where(reached, depth, 0.0)
    )
    logit = log_found - jnp.log1p(-jnp.exp(log_found))
    return SimulatedHits(azimuth, z, jnp.where(reached, logit, -jnp.inf), reached)
