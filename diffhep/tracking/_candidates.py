import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ..geometry import AbstractDetector
from ._model import predict, wrap_azimuths


def nearest_clusters(
    parameters: Float[Array, " 5"],
    position: Float[Array, "layers clusters 2"],
    mask: Bool[Array, "layers clusters"],
    detector: AbstractDetector,
    *,
    road: tuple[float, float],
    num: int,
) -> tuple[Int[Array, "layers {num}"], Bool[Array, "layers {num}"]]:
    """The clusters on each layer that lie nearest to a track, within a road.

    A choice without a gradient: a cluster at the edge of the road should count for
    nothing in what comes after (`fit_arms` with a `cutoff` well inside the road).

    Args:
        parameters: Track parameters, of a seed say.
        position: What was measured, in rad or mm; see the layers. Dead entries may hold
            anything.
        mask: Which clusters there are.
        detector: The detector.
        road: Half-widths of the road along the two coordinates, in mm.
        num: How many clusters to take at most.

    Returns:
        Their slots, by growing distance in units of the road; and which of them are in
        the road. No slot is taken twice by the same layer.

    Raises:
        ValueError: A width is not positive, or more are wanted than there are.
    """
    if min(road) <= 0 or not 1 <= num <= mask.shape[1]:
        raise ValueError(
            f"`road` is {road} and `num` is {num}; give positive widths, and a number "
            f"between 1 and that of the clusters, {mask.shape[1]}."
        )
    parameters = jax.lax.stop_gradient(parameters)
    position = jax.lax.stop_gradient(position)
    crossings = predict(parameters, detector)
    apart = jnp.where(mask[:, :, None], position, 0.0) - crossings.position[:, None, :]
    apart = wrap_azimuths(apart, detector)
    across = apart[:, :, 0] * crossings.scale[:, None] / road[0]
    along = apart[:, :, 1] / road[1]
    inside = (jnp.abs(across) < 1) & (jnp.abs(along) < 1)
    inside = inside & mask & crossings.reached[:, None]
    distance = jnp.where(inside, across**2 + along**2, jnp.inf)
    negative, slots = jax.lax.top_k(-distance, num)
    return slots, negative > -jnp.inf
