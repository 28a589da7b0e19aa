"""Masked reductions, safe elementary functions, small solves."""

from ._absent import (
    absent_if_zero as absent_if_zero,
    add_present as add_present,
    dot_present as dot_present,
    zero_if_absent as zero_if_absent,
)
from ._angle import wrap_angle as wrap_angle
from ._block_roots import solve_blocks as solve_blocks
from ._blocks import BlockSolver3 as BlockSolver3, inverse_3x3 as inverse_3x3
from ._bracket import find_root as find_root
from ._cond_few import cond_few as cond_few
from ._general import SmallGeneral as SmallGeneral, inverse_general as inverse_general
from ._linear import (
    SmallCholesky as SmallCholesky,
    cholesky_spd as cholesky_spd,
    inverse_near as inverse_near,
    inverse_spd as inverse_spd,
    is_positive_definite as is_positive_definite,
    matmul as matmul,
    matvec as matvec,
    solve_spd as solve_spd,
)
from ._map_loop import LoopEnds as LoopEnds, map_loop as map_loop
from ._masked import masked_sum as masked_sum, sanitise as sanitise
from ._optimality import solve_optimality as solve_optimality
from ._recompute import recompute as recompute, store as store
from ._safe import (
    arcsine_ratio as arcsine_ratio,
    safe_norm as safe_norm,
    safe_sqrt as safe_sqrt,
    sinc as sinc,
    sinc_defect as sinc_defect,
    smooth_step as smooth_step,
)
from ._solver import AbstractSmallSolver as AbstractSmallSolver
