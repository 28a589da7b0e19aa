"""Track parameters, helices in a uniform field, and what deflects them."""

from ._constants import KAPPA as KAPPA
from ._constants import PION_MASS as PION_MASS
from ._cylinder import Crossing as Crossing
from ._cylinder import to_cylinder as to_cylinder
from ._parameters import curvature as curvature
from ._parameters import momentum as momentum
from ._perigee import perigee_at as perigee_at
from ._perigee import perigee_from_momentum as perigee_from_momentum
from ._perigee import perigee_from_point as perigee_from_point
from ._scattering import scattering_angle as scattering_angle
from ._trajectory import momentum_at as momentum_at
from ._trajectory import position_at as position_at
