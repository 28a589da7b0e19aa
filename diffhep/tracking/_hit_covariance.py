import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ..geometry import AbstractDetector
from ..helix import Crossings
from ..numerics import matmul
from ._model import resolution, scattering_kicks


def hit_covariance(
    parameters: Float[Array, " 5"],
    crossings: Crossings,
    mask: Bool[Array, " layers"],
    detector: AbstractDetector,
) -> Float[Array, "hits hits"]:
    """The covariance of the hits: pixels, and scattering in the layers before.

    Scattering at a layer moves all hits further on together. The linear response is
    exact, and in closed form: the helix after a kick is described at its perigee.

    Args:
        parameters: Track parameters of a pion.
        crossings: Its crossings.
        mask: Which hits were found; the others get a unit variance and no correlation.
        detector: The detector. The order of its layers does not matter.

    Returns:
        Covariance of the first coordinates of all layers, then of the second ones, in
        the units of the measured coordinates.
    """
    alive = jnp.concatenate([mask, mask])
    kicks = scattering_kicks(parameters, crossings, detector)
    layers = kicks.shape[0]
    # All kicks side by side: first those in phi, then those in theta.
    columns = jnp.reshape(jnp.transpose(kicks, (1, 2, 0)), (5, 2 * layers))
    rows = jnp.reshape(jnp.transpose(crossings.jacobian, (1, 0, 2)), (2 * layers, 5))
    later = crossings.arc[:, None] > crossings.arc[None, :]
    response = jnp.where(jnp.tile(later, (2, 2)), matmul(rows, columns), 0.0)
    response = jnp.where(alive[:, None], response, 0.0)
    pixels = jnp.reshape(resolution(crossings, detector).T, 2 * layers)
    variance = jnp.where(alive, pixels**2, 1.0)
    identity = jnp.eye(2 * layers, dtype=variance.dtype)
    return matmul(response, response.T) + identity * variance[:, None]
