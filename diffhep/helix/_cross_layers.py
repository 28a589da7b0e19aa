from jaxtyping import Array, Float

from ..geometry import Cylinders, LayerGroup, Planes
from ._cross_cylinders import cross_cylinders
from ._cross_discs import cross_discs
from ._cross_planes import cross_planes
from ._crossings import Crossings


def cross_layers(
    parameters: Float[Array, " 5"], layers: LayerGroup, field: Float[Array, ""]
) -> Crossings:
    """The first crossings of some layers after the perigee, with their derivatives.

    In single precision positions lose less than 0.5 micrometres and derivatives 1e-6,
    from 0.1 GeV to 1 TeV in a tracker of 1 m by 2.5 m.

    Args:
        parameters: Track parameters about the z axis.
        layers: The layers.
        field: Magnetic field along z, in T.

    Returns:
        The crossings. The derivatives are in closed form, and may be differentiated
        again.
    """
    if isinstance(layers, Cylinders):
        return cross_cylinders(parameters, layers, field)
    if isinstance(layers, Planes):
        return cross_planes(parameters, layers, field)
    return cross_discs(parameters, layers, field)
