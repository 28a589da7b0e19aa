import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


class AdaptiveWeights(eqx.Module):
    """How the weight of a track falls with its distance from the vertex.

    The adaptive vertex fit (Fruehwirth, Waltenberger, Vanlaer 2007, CMS NOTE 2007/008).
    """

    temperature: Float[Array, ""]
    """Softness of the cut, in units of chi-squared."""
    cutoff: Float[Array, ""]
    """Distance at which the weight is one half, in standard deviations."""


def adaptive_weight(
    compatibility: Float[Array, " tracks"], adaptive: AdaptiveWeights
) -> Float[Array, " tracks"]:
    """The weight of each track.

    Args:
        compatibility: Chi-squared of each track with the vertex.
        adaptive: How the weight falls.

    Returns:
        `1 / (1 + exp((chi2 - cutoff^2) / (2 temperature)))`.
    """
    excess = compatibility - jnp.square(adaptive.cutoff)
    return jax.nn.sigmoid(-excess / (2 * adaptive.temperature))
