"""Masked reductions, safe elementary functions, small solves."""

from ._angle import wrap_angle as wrap_angle
from ._linear import (
    SmallCholesky as SmallCholesky,
)
from ._linear import (
    inverse_spd as inverse_spd,
)
from ._linear import (
    matmul as matmul,
)
from ._linear import (
    matvec as matvec,
)
from ._linear import (
    solve_spd as solve_spd,
)
from ._masked import masked_sum as masked_sum
from ._masked import sanitise as sanitise
from ._optimality import solve_optimality as solve_optimality
from ._safe import (
    safe_norm as safe_norm,
)
from ._safe import (
    safe_sqrt as safe_sqrt,
)
from ._safe import (
    sinc as sinc,
)
from ._safe import (
    smooth_step as smooth_step,
)
