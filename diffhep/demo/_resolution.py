import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..event import Event
from ..helix import perigee_from_momentum


def track_truth(
    events: Event, field: Float[Array, ""]
) -> Float[Array, "events particles 5"]:
    """The true perigee parameters of each particle.

    Args:
        events: A batch of events.
        field: Magnetic field along z, in T.

    Returns:
        (d0, z0, phi, theta, q/p) about the z axis, in mm, rad, 1/GeV; of a canned
        particle in the slots that hold no charged particle.
    """
    particles = events.particles
    if particles is None:
        raise ValueError("The events lack `particles`; name them in `keep`.")
    charged = particles.mask & (particles.charge != 0)
    position = jnp.where(charged[..., None], particles.vertex, 0.0)
    canned = jnp.asarray([1.0, 0.0, 0.0], position.dtype)
    momentum = jnp.where(charged[..., None], particles.momentum[..., :3], canned)
    charge = jnp.where(charged, particles.charge, 1.0)
    one = jax.vmap(perigee_from_momentum, in_axes=(0, 0, 0, None))
    return jax.vmap(one, in_axes=(0, 0, 0, None))(position, momentum, charge, field)
