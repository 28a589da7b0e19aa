"""What parameters must keep to, as values, and the projection onto it."""

import abc
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree


_Tree = TypeVar("_Tree", bound=PyTree)


class AbstractConstraint(eqx.Module):
    """A closed convex set of arrays."""

    @abc.abstractmethod
    def project(self, values: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """The nearest point of the set.

        Args:
            values: Any array.

        Returns:
            The array inside the set with the least Euclidean distance.
        """


class Box(AbstractConstraint):
    """Every element between two bounds.

    Raises:
        ValueError: The lower bound is above the upper.
    """

    low: float = eqx.field(static=True)
    """Lower bound; minus infinity for none."""
    high: float = eqx.field(static=True)
    """Upper bound; infinity for none."""

    def __check_init__(self):
        if not self.low <= self.high:
            raise ValueError(
                f"The lower bound {self.low} is not below the upper bound {self.high}; "
                "exchange them."
            )

    def project(self, values: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """The array with each element clipped to the bounds."""
        return jnp.clip(values, self.low, self.high)


class Increasing(AbstractConstraint):
    """A vector between two bounds whose elements grow by at least a gap each.

    Raises:
        ValueError: The lower bound is above the upper, or the gap is negative; when
            it is applied, that so many elements do not fit between the bounds.
    """

    low: float = eqx.field(static=True)
    """Lower bound of the first element; minus infinity for none."""
    high: float = eqx.field(static=True)
    """Upper bound of the last element; infinity for none."""
    gap: float = eqx.field(static=True)
    """Least difference of neighbours."""

    def __check_init__(self):
        if not self.low <= self.high:
            raise ValueError(
                f"The lower bound {self.low} is not below the upper bound {self.high}; "
                "exchange them."
            )
        if not self.gap >= 0:
            raise ValueError(f"The gap is {self.gap}, but must not be negative.")

    def project(self, values: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """The nearest such vector.

        With the gaps subtracted it is an isotonic regression, here in its min-max form
        (Robertson, Wright, Dykstra, Order Restricted Statistical Inference, 1988,
        theorem 1.4.4), clipped to the bounds.
        """
        if values.ndim != 1:
            raise ValueError(
                f"`Increasing` wants a vector, but got the shape {values.shape}."
            )
        number = values.shape[0]
        steps = self.gap * np.arange(number)
        highest = self.high - steps[-1]
        if highest < self.low:
            raise ValueError(
                f"{number} elements {self.gap} apart do not fit between {self.low} and "
                f"{self.high}; reduce the gap, or widen the bounds."
            )
        offset = jnp.asarray(steps, values.dtype)
        flat = _isotonic(values - offset)
        return jnp.clip(flat, self.low, highest) + offset


def _isotonic(values: Float[Array, " n"]) -> Float[Array, " n"]:
    # The nearest non-decreasing vector: max over starts j <= i of the min over ends
    # k >= i of the mean from j to k. Cubic, for the few layers of a detector.
    number = values.shape[0]
    start, end, item = np.indices((number, number, number))
    inside = (start <= item) & (item <= end)
    total = jnp.sum(jnp.where(inside, values[None, None, :], 0.0), axis=-1)
    count = np.maximum(np.sum(inside, axis=-1), 1)
    # Indexed by start and end; no such stretch where the end lies before the start.
    mean = total / jnp.asarray(count, values.dtype)
    # The least mean from each start to an end at or after each element; then the
    # largest of those from a start at or before the element.
    least = jnp.min(jnp.where(inside, mean[:, :, None], jnp.inf), axis=1)
    return jnp.max(jnp.where(start[:, 0] <= item[:, 0], least, -jnp.inf), axis=0)


Constraints = Sequence[tuple[Callable[[Any], Array], AbstractConstraint]]
"""Pairs of `where` (from a tree to one of its arrays) and what it must keep to."""


def project(tree: _Tree, constraints: Constraints) -> _Tree:
    """The tree with constraints imposed on some of its arrays.

    Args:
        tree: A pipeline, say.
        constraints: Pairs of `where`, from the tree to one of its arrays, and what
            that array must keep to. Each array at most once.

    Returns:
        A tree of the same structure, the nearest that keeps to the constraints.
    """
    for where, constraint in constraints:
        tree = eqx.tree_at(where, tree, replace_fn=constraint.project)
    return tree
