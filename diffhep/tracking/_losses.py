import jax.numpy as jnp
from jaxtyping import Array, Float

from ..geometry import AbstractDetector
from ..helix import PION_MASS, Crossings, Ionisation, kick_response, lose_energy
from ._model import material_crossed, momentum_of


def loss_kicks(
    parameters: Float[Array, " 5"],
    crossings: Crossings,
    detector: AbstractDetector,
    ionisation: Ionisation,
) -> tuple[Float[Array, "layers 5"], Float[Array, "layers 5"]]:
    """The change of the track parameters by the energy lost in each layer.

    Args:
        parameters: Track parameters of a pion, at the perigee.
        crossings: Where it crosses the layers.
        detector: The detector.
        ionisation: How much energy is lost.

    Returns:
        The change by the mean loss, and by one standard deviation of its fluctuation.
        Losses are small: each is taken at the momentum of the perigee.
    """
    charge = parameters[4]
    momentum = momentum_of(parameters)
    path, present = material_crossed(crossings, detector)
    path = path * present
    loss = ionisation.mean(path, momentum, PION_MASS)
    width = ionisation.width(path, momentum, PION_MASS)
    charges = jnp.broadcast_to(charge, loss.shape)
    mean = lose_energy(charges, loss, PION_MASS) - charge
    spread = lose_energy(charges, loss + width, PION_MASS) - charge - mean
    response = kick_response(parameters, crossings.arc, detector.field)[:, :, 2]
    return response * mean[:, None], response * spread[:, None]
