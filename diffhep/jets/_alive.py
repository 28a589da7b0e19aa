import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ..numerics import sanitise


def alive_momentum(
    momentum: Float[Array, "constituents 4"], mask: Bool[Array, " constituents"]
) -> Float[Array, "constituents 4"]:
    """The momenta with every dead slot holding one that is safe to compute with."""
    safe = jnp.asarray([1.0, 0.0, 0.0, 2.0], momentum.dtype)
    return jnp.where(mask[:, None], sanitise(momentum, mask), safe[None])
