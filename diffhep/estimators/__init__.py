"""How a gradient crosses a discrete choice. What an adjoint is to a solve."""

from ._abstract import (
    AbstractEstimator as AbstractEstimator,
    AbstractSampler as AbstractSampler,
    Gradient as Gradient,
)
from ._detached import Detached as Detached
from ._enumerate import Enumerate as Enumerate
from ._log_weight import (
    leave_one_out as leave_one_out,
    score_term as score_term,
    with_score as with_score,
)
from ._recorded import Recorded as Recorded
from ._score import Score as Score
