"""What the detector is made of, and what it costs."""

from ._barrel import (
    Barrel as Barrel,
    barrel_of as barrel_of,
    build_barrel as build_barrel,
    default_barrel as default_barrel,
)
from ._price import (
    Prices as Prices,
    channels as channels,
    detector_price as detector_price,
    price_items as price_items,
    sensor_area as sensor_area,
)
from ._services import (
    SERVICES_PER_DENSITY as SERVICES_PER_DENSITY,
    effective_thickness as effective_thickness,
)
