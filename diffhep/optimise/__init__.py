"""Training loop with constraints, checkpoints and progress."""

from ._checkpoint import OtherCheckpointError as OtherCheckpointError
from ._constraints import (
    AbstractConstraint as AbstractConstraint,
    Box as Box,
    Increasing as Increasing,
    project as project,
)
from ._progress import progress_bar as progress_bar
from ._scales import scale_updates as scale_updates
from ._train import (
    TrainResult as TrainResult,
    train as train,
    value_and_gradient as value_and_gradient,
)
