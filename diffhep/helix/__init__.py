"""Track parameters, helices in a uniform field, and what deflects them."""

from ._constants import KAPPA as KAPPA, PION_MASS as PION_MASS
from ._crossings import Crossings as Crossings, cross_layers as cross_layers
from ._cylinder import (
    Crossing as Crossing,
    to_cylinder as to_cylinder,
    transverse_crossing as transverse_crossing,
    transverse_slopes as transverse_slopes,
    within_reach as within_reach,
)
from ._kick import kick_response as kick_response
from ._parameters import curvature as curvature, momentum as momentum
from ._perigee import (
    perigee_at as perigee_at,
    perigee_from_momentum as perigee_from_momentum,
    perigee_from_point as perigee_from_point,
)
from ._plane import PlaneCrossing as PlaneCrossing, to_plane as to_plane
from ._scattering import scattering_angle as scattering_angle
from ._trajectory import momentum_at as momentum_at, position_at as position_at
from ._transport import (
    move_perigee as move_perigee,
    perigee_jacobian as perigee_jacobian,
)
