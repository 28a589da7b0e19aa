import equinox as eqx
from jaxtyping import PRNGKeyArray

from ..event import Event
from ..pipeline import AbstractStage


TRACES: list[str] = []
"""Names of the stages that `forward` traced, in order."""


@eqx.filter_jit
def forward(stage: AbstractStage, event: Event, key: PRNGKeyArray) -> Event:
    """A stage under jit: one compilation for all checks of the same shapes.

    Args:
        stage: The stage.
        event: One event.
        key: Random key.

    Returns:
        What the stage returns.
    """
    TRACES.append(type(stage).__name__)
    return stage(event, key=key)
