"""Track parameters, helices in a uniform field, and what deflects them."""

from ._approach import Approach as Approach
from ._cartesian import (
    cartesian_from_perigee as cartesian_from_perigee,
    perigee_from_cartesian as perigee_from_cartesian,
)
from ._closest_line import closest_to_line as closest_to_line
from ._closest_point import closest_to_point as closest_to_point
from ._constants import (
    KAPPA as KAPPA,
    MUON_MASS as MUON_MASS,
    PION_MASS as PION_MASS,
)
from ._cross_layers import cross_layers as cross_layers
from ._crossings import Crossings as Crossings
from ._cylinder import (
    Crossing as Crossing,
    to_cylinder as to_cylinder,
    transverse_crossing as transverse_crossing,
    transverse_slopes as transverse_slopes,
    within_reach as within_reach,
)
from ._integrate import Waypoint as Waypoint, default_steps as default_steps
from ._ionisation import Ionisation as Ionisation, lose_energy as lose_energy
from ._kick import kick_response as kick_response
from ._parameters import curvature as curvature, momentum as momentum
from ._perigee import (
    perigee_at as perigee_at,
    perigee_from_momentum as perigee_from_momentum,
    perigee_from_point as perigee_from_point,
)
from ._plane import PlaneCrossing as PlaneCrossing, to_plane as to_plane
from ._propagate import (
    propagate as propagate,
    propagate_through as propagate_through,
)
from ._propagate_to import propagate_to as propagate_to
from ._scattering import scattering_angle as scattering_angle
from ._trajectory import momentum_at as momentum_at, position_at as position_at
from ._transport import (
    move_perigee as move_perigee,
    perigee_jacobian as perigee_jacobian,
)
from ._uniform import (
    helix_step as helix_step,
    helix_step_jacobian as helix_step_jacobian,
)
