"""What the detector is made of, and what it costs."""

from ._barrel import (
    Barrel as Barrel,
    build_barrel as build_barrel,
    default_barrel as default_barrel,
)
from ._detector import (
    STAGGER as STAGGER,
    AbstractDetector as AbstractDetector,
    detector_of as detector_of,
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
from ._surfaces import (
    Cylinders as Cylinders,
    Discs as Discs,
    Planes as Planes,
    Surfaces as Surfaces,
)
from ._telescope import Telescope as Telescope
