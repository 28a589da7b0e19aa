"""One small general system, scaled so that its unknowns may have any units."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ._linear import matvec
from ._solver import AbstractSmallSolver


def inverse_general(matrix: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """The inverse of a small general matrix, by elimination with pivots.

    Rows and columns are scaled to a largest entry of one first: those of a system with
    multipliers differ by many orders of magnitude.

    Args:
        matrix: A matrix.

    Returns:
        Its inverse; not finite where the matrix is singular.
    """
    rows = _scale(jnp.max(jnp.abs(matrix), axis=1))
    scaled = matrix * rows[:, None]
    columns = _scale(jnp.max(jnp.abs(scaled), axis=0))
    inverse = jnp.linalg.inv(scaled * columns[None, :])
    return inverse * columns[:, None] * rows[None, :]


def _scale(size: Float[Array, " n"]) -> Float[Array, " n"]:
    # A row of zeros is singular with any scale.
    return 1 / jnp.where(size > 0, size, 1.0)


class SmallGeneral(AbstractSmallSolver):
    """A solver for small general systems, for `optimistix.ImplicitAdjoint`."""

    def invert(
        self,
        multiply: Callable[[Float[Array, " n"]], Float[Array, " n"]],
        like: Float[Array, " n"],
    ) -> Float[Array, "n n"]:
        """Invert the matrix; zero where it is singular: a derivative is none there."""
        columns = jax.vmap(multiply)(jnp.eye(like.shape[0], dtype=like.dtype))
        inverse = inverse_general(columns.T)
        return jnp.where(jnp.all(jnp.isfinite(inverse)), inverse, 0.0)

    def apply(
        self, inverse: Float[Array, "n n"], vector: Float[Array, " n"]
    ) -> Float[Array, " n"]:
        """Multiply with the inverse."""
        return matvec(inverse, vector)

    def transpose(self, state: Any, options: dict[str, Any]) -> Any:
        """The inverse transposed."""
        return state.T, options
