import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ..geometry import AbstractDetector
from ..numerics import inverse_spd, matmul
from ._hit_covariance import hit_covariance
from ._model import predict


def expected_covariance(
    parameters: Float[Array, " 5"],
    mask: Bool[Array, " layers"],
    detector: AbstractDetector,
) -> Float[Array, "5 5"]:
    """The covariance that a fit of a track's hits will have, without drawing hits.

    The bound of Cramer and Rao for the hits with their scattering, which `fit_track`
    reaches: a smooth function of the layout, for its design.

    Args:
        parameters: Parameters of the track, a pion.
        mask: Which layers find it, at least 3.
        detector: The detector. The order of its layers does not matter.

    Returns:
        Covariance of (d0 [mm], z0 [mm], phi [rad], theta [rad], q/p [1/GeV]).
    """
    crossings = predict(parameters, detector)
    weight = inverse_spd(hit_covariance(parameters, crossings, mask, detector))
    jacobian = jnp.where(mask[:, None, None], crossings.jacobian, 0.0)
    jacobian = jnp.concatenate([jacobian[:, 0], jacobian[:, 1]])
    return inverse_spd(matmul(jacobian.T, matmul(weight, jacobian)))
