import abc
from typing import Any

import equinox as eqx
from jaxtyping import Array, Float

from ._layers import LayerGroup


STAGGER = 0.5
"""Width of the step at the edge of a layer, in mm. Modules of a layer are staggered and
tilted, so that a particle that is produced close to the nominal radius, or passes close
to an edge, meets some of them."""


MOST_OBLIQUE = 0.05
"""Least cosine of incidence by which material is divided: beyond it a layer of finite
size is no longer a plane."""


class AbstractDetector(eqx.Module):
    """Layers that measure two coordinates each of a track, in a field along z."""

    field: eqx.AbstractVar[Float[Array, ""]]
    """Magnetic field along z, in T."""
    thickness: eqx.AbstractVar[Float[Array, " layers"]]
    """Material at normal incidence, in radiation lengths, without services."""
    efficiency: eqx.AbstractVar[Float[Array, " layers"]]
    """Probability that a traversing particle leaves a hit, 0 to 1."""

    @property
    @abc.abstractmethod
    def pitch(self) -> Float[Array, "layers 2"]:
        """Pitch of the pixels along both coordinates, in mm."""

    @property
    @abc.abstractmethod
    def groups(self) -> tuple[LayerGroup, ...]:
        """The layers in their order, in groups of one kind."""

    @property
    @abc.abstractmethod
    def ordered(self) -> bool:
        """Whether every track from the z axis crosses the layers in their order."""

    @property
    @abc.abstractmethod
    def example(self) -> Float[Array, " 5"]:
        """Parameters of a track that crosses at least 3 layers."""


def detector_of(detector: Any) -> AbstractDetector:
    """The detector that stands in an event.

    Args:
        detector: The event's `detector`.

    Returns:
        The same, known to be one.

    Raises:
        ValueError: There is none, or it is something else.
    """
    if not isinstance(detector, AbstractDetector):
        found = type(detector).__name__
        raise ValueError(
            f"The event's `detector` is {found}, but an `AbstractDetector` such as "
            "`Barrel` is needed; put `PlaceDetector(barrel)` before."
        )
    return detector
