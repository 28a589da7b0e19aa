import abc

import equinox as eqx
from jaxtyping import PRNGKeyArray

from ..estimators import Gradient
from ..event import Event


class AbstractStage(eqx.Module):
    """A step that acts on ONE event. `run` makes batches of it."""

    @property
    @abc.abstractmethod
    def reads(self) -> frozenset[str]:
        """Fields of `Event` that must be filled."""

    @property
    @abc.abstractmethod
    def writes(self) -> frozenset[str]:
        """Fields of `Event` that it fills, beside `log_weight` and `status`."""

    @property
    @abc.abstractmethod
    def gradient(self) -> Gradient:
        """What it promises about the gradient that it passes on."""

    @abc.abstractmethod
    def __call__(self, event: Event, *, key: PRNGKeyArray) -> Event:
        """The event with the fields named in `writes` filled.

        Args:
            event: One event.
            key: Random key.

        Returns:
            A new event.
        """
