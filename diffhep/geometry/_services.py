from jaxtyping import Array, Float

from ._detector import AbstractDetector


SERVICES_PER_DENSITY = 1e-5
"""Cooling, cables and power lines, in radiation lengths per (channel per mm^2). An
assumption: heat grows with the number of channels (some 0.5 W/cm^2 for 50 x 50
micrometre pixels, that is 400 channels per mm^2), and what carries it away is taken to
be 0.4 % of a radiation length there."""


def effective_thickness(detector: AbstractDetector) -> Float[Array, " layers"]:
    """The material of each layer with the services that its channels need.

    What simulation and fit use: finer pixels cost scattering.

    Args:
        detector: The detector.

    Returns:
        Material at normal incidence, in radiation lengths.
    """
    density = 1 / (detector.pitch[:, 0] * detector.pitch[:, 1])
    return detector.thickness + SERVICES_PER_DENSITY * density
