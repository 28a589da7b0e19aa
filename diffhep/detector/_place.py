from typing import ClassVar

from jaxtyping import PRNGKeyArray

from ..estimators import Gradient
from ..event import Event
from ..geometry import AbstractDetector
from ..pipeline import AbstractStage


class PlaceDetector(AbstractStage):
    """Puts the detector into the event, so that all stages share its parameters."""

    detector: AbstractDetector
    """The detector: the leaves that the pipeline's gradient has for it."""

    reads: ClassVar[frozenset[str]] = frozenset()
    writes: ClassVar[frozenset[str]] = frozenset({"detector"})

    @property
    def gradient(self) -> Gradient:
        """Exact."""
        return Gradient.EXACT

    def __call__(self, event: Event, *, key: PRNGKeyArray) -> Event:
        """The event with its detector."""
        del key
        return event.replace(detector=self.detector)
