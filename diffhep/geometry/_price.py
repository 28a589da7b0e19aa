import math

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from ._barrel import Barrel


class Prices(eqx.Module):
    """What things cost, in units of one square metre of plain silicon.

    The proportions are assumptions, not quotes. They decide where an optimum lies, and
    are configuration for that reason.
    """

    channel: float = 2e-8
    """Per channel: 50 million channels cost as much as one square metre."""
    area: float = 1.0
    """Per square metre of sensor."""
    thinness: float = 0.3
    """Per square metre of a layer of 1 % of a radiation length, and inversely
    proportional to the thickness: thinning, light supports, yield."""
    efficiency: float = 0.2
    """Per square metre for each factor e by which the inefficiency falls below one:
    redundancy, time resolution, overlaps."""
    magnet: float = 0.1
    """Of a solenoid of 1 MJ; grows with the stored energy to the power 0.66."""
    coil_radius: float = 1200.0
    """Radius of the solenoid, in mm."""
    coil_length: float = 5000.0
    """Length of the solenoid, in mm."""


def sensor_area(
    barrel: Barrel, *, eta_coverage: float = 2.0
) -> Float[Array, " layers"]:
    """The area of silicon that covers a range of pseudorapidity.

    Args:
        barrel: The detector.
        eta_coverage: Largest absolute pseudorapidity, seen from the origin.

    Returns:
        The area of each layer, in mm^2: circumference times a length of 2 r sinh(eta).
    """
    return 2 * math.pi * barrel.radii * 2 * barrel.radii * math.sinh(eta_coverage)


def channels(barrel: Barrel, *, eta_coverage: float = 2.0) -> Float[Array, " layers"]:
    """The number of channels of each layer, as a real number.

    Args:
        barrel: The detector.
        eta_coverage: Largest absolute pseudorapidity, seen from the origin.

    Returns:
        Area over the area of a pixel.
    """
    pixel = barrel.pitch_azimuth * barrel.pitch_z
    return sensor_area(barrel, eta_coverage=eta_coverage) / pixel


def price_items(
    barrel: Barrel, *, eta_coverage: float = 2.0, prices: Prices | None = None
) -> dict[str, Float[Array, ""]]:
    """What each part of the detector costs.

    Args:
        barrel: The detector.
        eta_coverage: Largest absolute pseudorapidity, seen from the origin.
        prices: What things cost.

    Returns:
        Price by item, in the unit of `Prices`. Each is a smooth function of the design,
        as long as pitches and thicknesses are positive and efficiencies below one.
    """
    prices = Prices() if prices is None else prices
    square_metres = sensor_area(barrel, eta_coverage=eta_coverage) * 1e-6
    # The energy density is B^2 / (2 mu0), 0.398 MJ/m^3 at 1 T. The exponent is that of
    # built solenoids: Green and St. Lorant, Adv. Cryog. Eng. 39 (1994) 271.
    volume = math.pi * prices.coil_radius**2 * prices.coil_length * 1e-9
    energy = 0.398 * volume * barrel.field**2
    return {
        "channels": prices.channel
        * jnp.sum(channels(barrel, eta_coverage=eta_coverage)),
        "sensors": prices.area * jnp.sum(square_metres),
        "thinness": prices.thinness * jnp.sum(square_metres * 0.01 / barrel.thickness),
        "efficiency": -prices.efficiency
        * jnp.sum(square_metres * jnp.log1p(-barrel.efficiency)),
        "magnet": prices.magnet * energy**0.66,
    }


def detector_price(
    barrel: Barrel, *, eta_coverage: float = 2.0, prices: Prices | None = None
) -> Float[Array, ""]:
    """The price of the detector.

    Args:
        barrel: The detector.
        eta_coverage: Largest absolute pseudorapidity, seen from the origin.
        prices: What things cost.

    Returns:
        The sum of `price_items`, in units of one square metre of plain silicon.
    """
    items = price_items(barrel, eta_coverage=eta_coverage, prices=prices)
    return sum(items.values(), start=jnp.zeros_like(barrel.field))
