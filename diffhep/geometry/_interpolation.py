"""How a regular grid becomes a function: between its nodes and beyond them."""

import abc
from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


class AbstractInterpolation(eqx.Module):
    """A rule along one axis; three axes are its product."""

    taps: eqx.AbstractClassVar[int]
    """How many nodes along each axis take part. A grid needs as many at least."""

    @abc.abstractmethod
    def weights(
        self, coordinate: Float[Array, ""], size: int
    ) -> tuple[Int[Array, ""], Float[Array, " taps"]]:
        """What the nodes contribute.

        Args:
            coordinate: The position in units of the spacing, from the first node, not
                outside of the grid.
            size: Number of nodes along the axis.

        Returns:
            The first node that takes part, and the weights from there on. They add up
            to one.
        """


class Trilinear(AbstractInterpolation):
    """Continuous; linear fields are exact, the error falls with the spacing squared."""

    taps: ClassVar[int] = 2

    def weights(
        self, coordinate: Float[Array, ""], size: int
    ) -> tuple[Int[Array, ""], Float[Array, " taps"]]:
        """Those of the two nodes around the point."""
        cell, fraction = _cell(coordinate, size)
        return cell, jnp.stack([1 - fraction, fraction])


class Tricubic(AbstractInterpolation):
    """With continuous derivative; the error falls with the third power of the spacing.

    Cubic convolution: Keys, IEEE Trans. ASSP 29 (1981) 1153, with a = -1/2 and his
    boundary condition. Quadratic fields are exact. An adaptive integration along a
    track takes fewer steps than with `Trilinear`.
    """

    taps: ClassVar[int] = 4

    def weights(
        self, coordinate: Float[Array, ""], size: int
    ) -> tuple[Int[Array, ""], Float[Array, " taps"]]:
        """Those of the four nodes around the point, or next to the border."""
        cell, u = _cell(coordinate, size)
        below = (-u + 2 * u**2 - u**3) / 2
        left = (2 - 5 * u**2 + 3 * u**3) / 2
        right = (u + 4 * u**2 - 3 * u**3) / 2
        above = (u**3 - u**2) / 2
        inside = jnp.stack([below, left, right, above])
        # The node beyond the border is 3 f0 - 3 f1 + f2, and the window moves inwards.
        zero = jnp.zeros_like(u)
        low = jnp.stack([left + 3 * below, right - 3 * below, above + below, zero])
        high = jnp.stack([zero, below + above, left - 3 * above, right + 3 * above])
        weights = jnp.where(cell == 0, low, jnp.where(cell == size - 2, high, inside))
        return jnp.clip(cell - 1, 0, size - 4), weights


class AbstractOutside(eqx.Module):
    """What a gridded field is beyond its grid. Never NaN."""

    @abc.abstractmethod
    def __call__(
        self, value: Float[Array, " 3"], inside: Bool[Array, ""]
    ) -> Float[Array, " 3"]:
        """The field there.

        Args:
            value: The field at the point of the grid next to the position, in T.
            inside: Whether the position is in the grid.

        Returns:
            The field, in T.
        """


class ZeroOutside(AbstractOutside):
    """No field beyond the grid.

    The field jumps at the border, and the derivative of a track that crosses it misses
    how the point of crossing moves. Make the grid so large that this is negligible.
    """

    def __call__(
        self, value: Float[Array, " 3"], inside: Bool[Array, ""]
    ) -> Float[Array, " 3"]:
        """The value inside, zero outside."""
        return jnp.where(inside, value, 0.0)


class NearestOutside(AbstractOutside):
    """The field of the nearest point of the grid. Continuous."""

    def __call__(
        self, value: Float[Array, " 3"], inside: Bool[Array, ""]
    ) -> Float[Array, " 3"]:
        """The value."""
        del inside
        return value


def _cell(
    coordinate: Float[Array, ""], size: int
) -> tuple[Int[Array, ""], Float[Array, ""]]:
    # The node below and the way from there. The last node belongs to the last cell.
    floor = jnp.clip(jnp.floor(coordinate), 0, size - 2)
    return floor.astype(int), coordinate - floor
