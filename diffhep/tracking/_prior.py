import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..numerics import inverse_spd, matmul, wrap_angle


class TrackPrior(eqx.Module):
    """What is known of a track before its hits: by a beam spot, by another detector."""

    parameters: Float[Array, "*batch 5"]
    """(d0 [mm], z0 [mm], phi [rad], theta [rad], q/p [1/GeV])."""
    covariance: Float[Array, "*batch 5 5"]
    """Covariance of `parameters`; large where nothing is known."""


def prior_information(
    parameters: Float[Array, " 5"], prior: TrackPrior
) -> Float[Array, "6 6"]:
    """The quadratic form of a prior about some parameters, as `information` has it.

    Args:
        parameters: Track parameters.
        prior: The prior.

    Returns:
        The inverse covariance; in the last column its product with prior minus
        parameters; and last the chi-squared of these.
    """
    weight = inverse_spd(prior.covariance)
    apart = prior.parameters - parameters
    apart = jnp.where(jnp.arange(5) == 2, wrap_angle(apart), apart)
    rows = jnp.concatenate([jnp.eye(5, dtype=apart.dtype), apart[:, None]], axis=1)
    return matmul(rows.T, matmul(weight, rows))
