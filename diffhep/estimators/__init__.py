"""How a gradient crosses a discrete choice. What an adjoint is to a solve."""

from ._abstract import (
    AbstractEstimator as AbstractEstimator,
    AbstractSampler as AbstractSampler,
    Gradient as Gradient,
)
from ._baselines import (
    AbstractBaseline as AbstractBaseline,
    AbstractEventBaseline as AbstractEventBaseline,
    BatchMean as BatchMean,
    LeaveOneOut as LeaveOneOut,
    NoBaseline as NoBaseline,
)
from ._detached import Detached as Detached
from ._enumerate import Enumerate as Enumerate
from ._finite_differences import finite_differences as finite_differences
from ._gradient_estimate import (
    GradientEstimate as GradientEstimate,
    score_gradient as score_gradient,
)
from ._log_weight import (
    leave_one_out as leave_one_out,
    score_term as score_term,
    with_score as with_score,
)
from ._recorded import Recorded as Recorded
from ._score import Score as Score
from ._surrogate import surrogate as surrogate
