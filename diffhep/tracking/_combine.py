import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ..geometry import AbstractDetector
from ._model import wrap_azimuths


def combine_hits(
    position: Float[Array, "layers candidates 2"],
    weight: Float[Array, "layers candidates"],
    mask: Bool[Array, "layers candidates"],
    detector: AbstractDetector,
) -> tuple[Float[Array, "layers 2"], Float[Array, " layers"], Bool[Array, " layers"]]:
    """One hit per layer that counts like several candidates with weights.

    For `fit_track`: chi-squared is quadratic in what is measured, so that the weighted
    mean with the sum of the weights leads to the same track as all candidates, each
    with its own. What makes the weights, a network say, is trained through the fit.

    Args:
        position: What was measured, in rad or mm; see the layers. Dead entries may hold
            anything.
        weight: How much each candidate counts, 0 to 1. In a layer the sum should not
            exceed 1: the particle was there once.
        mask: Which candidates exist.
        detector: The detector.

    Returns:
        Weighted mean position, sum of weights, and whether there was any candidate.
    """
    weight = jnp.where(mask, weight, 0.0)
    position = jnp.where(mask[:, :, None], position, 0.0)
    total = jnp.sum(weight, axis=1)
    # Next to nothing has no mean: its derivative would overflow.
    some = (total > jnp.finfo(total.dtype).eps)[:, None]
    share = jnp.where(some, weight, 0.0) / jnp.where(some, total[:, None], 1.0)
    # Azimuths are averaged about that of the heaviest: pi and -pi are neighbours.
    reference = jnp.take_along_axis(
        position, jnp.argmax(weight, axis=1)[:, None, None], axis=1
    )
    apart = wrap_azimuths(position - reference, detector)
    mean = reference[:, 0] + jnp.sum(share[:, :, None] * apart, axis=1)
    return mean, total, jnp.any(mask, axis=1)
