import abc

import equinox as eqx
from jaxtyping import Array, Float


class AbstractField(eqx.Module):
    """A static magnetic field: a function of the position."""

    @abc.abstractmethod
    def __call__(self, position: Float[Array, " 3"]) -> Float[Array, " 3"]:
        """The field at a point.

        Args:
            position: The point (x, y, z), in mm.

        Returns:
            The field (Bx, By, Bz), in T.
        """


class UniformField(AbstractField):
    """The same field everywhere, in any direction."""

    value: Float[Array, " 3"]
    """The field (Bx, By, Bz), in T."""

    def __call__(self, position: Float[Array, " 3"]) -> Float[Array, " 3"]:
        """The field, whatever the point."""
        del position
        return self.value
