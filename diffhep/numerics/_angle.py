import jax.numpy as jnp
from jaxtyping import Array, Float


def wrap_angle(angle: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """The same angle in [-pi, pi), with unit derivative everywhere.

    Args:
        angle: Any angle, in radians.

    Returns:
        The angle minus a whole number of turns, in radians.
    """
    # `round` has zero derivative, so this is the identity plus a constant.
    return angle - 2 * jnp.pi * jnp.round(angle / (2 * jnp.pi))
