import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ..geometry import Barrel
from ..numerics import inverse_spd, matmul
from ._hit_covariance import hit_covariance
from ._model import predict


def expected_covariance(
    parameters: Float[Array, " 5"],
    mask: Bool[Array, " layers"],
    barrel: Barrel,
) -> Float[Array, "5 5"]:
    """The covariance that a fit of a track's hits will have, without drawing hits.

    The bound of Cramer and Rao for the hits with their scattering, which `fit_track`
    reaches: a smooth function of the layout, for its design.

    Args:
        parameters: Parameters of the track, a pion.
        mask: Which layers find it, at least 3.
        barrel: The detector. The order of its radii does not matter.

    Returns:
        Covariance of (d0 [mm], z0 [mm], phi [rad], theta [rad], q/p [1/GeV]).
    """
    prediction = predict(parameters, barrel.radii, barrel.field)
    weight = inverse_spd(hit_covariance(parameters, prediction, mask, barrel))
    alive = jnp.concatenate([mask, mask])
    jacobian = jnp.where(alive[:, None], prediction.jacobian, 0.0)
    return inverse_spd(matmul(jacobian.T, matmul(weight, jacobian)))
