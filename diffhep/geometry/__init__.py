"""What the detector is made of, and what it costs."""

from ._barrel import (
    Barrel as Barrel,
    build_barrel as build_barrel,
    default_barrel as default_barrel,
)
from ._detector import (
    MOST_OBLIQUE as MOST_OBLIQUE,
    STAGGER as STAGGER,
    AbstractDetector as AbstractDetector,
    detector_of as detector_of,
)
from ._endcap import Endcap as Endcap, build_endcap as build_endcap
from ._field import AbstractField as AbstractField, UniformField as UniformField
from ._gridded import (
    GriddedField as GriddedField,
    gridded_field as gridded_field,
    sample_field as sample_field,
)
from ._interpolation import (
    AbstractInterpolation as AbstractInterpolation,
    AbstractOutside as AbstractOutside,
    NearestOutside as NearestOutside,
    Tricubic as Tricubic,
    Trilinear as Trilinear,
    ZeroOutside as ZeroOutside,
)
from ._layers import (
    Cylinders as Cylinders,
    Discs as Discs,
    LayerGroup as LayerGroup,
    Planes as Planes,
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
from ._solenoid import SolenoidField as SolenoidField, build_solenoid as build_solenoid
from ._surfaces import (
    AbstractSurface as AbstractSurface,
    CylinderSurface as CylinderSurface,
    LineSurface as LineSurface,
    PlaneSurface as PlaneSurface,
)
from ._telescope import Telescope as Telescope, build_telescope as build_telescope
from ._tracker import Tracker as Tracker, default_tracker as default_tracker
