"""Surfaces that a track is propagated to, as a condition on where it is and goes."""

import abc

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..numerics import safe_norm


class AbstractSurface(eqx.Module):
    """A condition on position and direction that changes sign where it is met."""

    upwards: eqx.AbstractClassVar[bool | None]
    """The change that counts, along the track: to positive, to negative or both
    (None)."""

    @abc.abstractmethod
    def __call__(
        self, position: Float[Array, " 3"], direction: Float[Array, " 3"]
    ) -> Float[Array, ""]:
        """How far a track is from the surface.

        Args:
            position: A point of the track (x, y, z), in mm.
            direction: Unit vector along the track.

        Returns:
            A signed distance, in mm; zero on the surface.
        """


class PlaneSurface(AbstractSurface):
    """A plane: a disc of an endcap or a flat module."""

    upwards = None

    point: Float[Array, " 3"]
    """A point of the plane (x, y, z), in mm."""
    normal: Float[Array, " 3"]
    """A vector normal to the plane, of any length but zero."""

    def __call__(
        self, position: Float[Array, " 3"], direction: Float[Array, " 3"]
    ) -> Float[Array, ""]:
        """The distance along the normal."""
        del direction
        length = jnp.sqrt(jnp.sum(self.normal**2))
        return jnp.sum((position - self.point) * self.normal) / length


class CylinderSurface(AbstractSurface):
    """A cylinder about the z axis, crossed in either direction."""

    upwards = None

    radius: Float[Array, ""]
    """The radius, in mm."""

    def __call__(
        self, position: Float[Array, " 3"], direction: Float[Array, " 3"]
    ) -> Float[Array, ""]:
        """The distance, positive outside."""
        del direction
        return safe_norm(position[:2]) - self.radius


class LineSurface(AbstractSurface):
    """The closest approach to a line: the perigee, if the line is along z."""

    upwards = True

    point: Float[Array, " 3"]
    """A point of the line (x, y, z), in mm."""
    along: Float[Array, " 3"]
    """A vector along the line, of any length but zero."""

    def __call__(
        self, position: Float[Array, " 3"], direction: Float[Array, " 3"]
    ) -> Float[Array, ""]:
        """The way past the closest approach of the tangent, times sin^2 of the angle.

        The angle is that between the track and the line.
        """
        square = jnp.sum(self.along**2)
        offset = position - self.point
        offset = offset - self.along * (jnp.sum(offset * self.along) / square)
        return jnp.sum(offset * direction)
