"""One small general system, scaled so that its unknowns may have any units."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ._linear import matmul, matvec
from ._solver import AbstractSmallSolver


@jax.custom_jvp
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
    inverse = _eliminated(scaled * columns[None, :])
    return inverse * columns[:, None] * rows[None, :]


@inverse_general.defjvp
def _inverse_general_jvp(
    primals: tuple[Float[Array, "n n"]], tangents: tuple[Float[Array, "n n"]]
) -> tuple[Float[Array, "n n"], Float[Array, "n n"]]:
    (matrix,), (tangent,) = primals, tangents
    inverse = inverse_general(matrix)
    return inverse, -matmul(inverse, matmul(tangent, inverse))


def _eliminated(matrix: Float[Array, "n n"]) -> Float[Array, "n n"]:
    # Gauss-Jordan on the matrix with the identity beside it, the largest element of the
    # column as pivot: no derivative is taken through the loop.
    size = matrix.shape[0]
    row = jnp.arange(size)

    def eliminate(k: Array, rest: Float[Array, "n 2*n"]) -> Float[Array, "n 2*n"]:
        column = jax.lax.dynamic_index_in_dim(rest, k, 1, keepdims=False)
        # NaN counts as the largest, and stays.
        place = jnp.argmax(jnp.where(row >= k, jnp.abs(column), -1.0))
        here, there = (row == k)[:, None], (row == place)[:, None]
        first = jax.lax.dynamic_index_in_dim(rest, k, 0, keepdims=True)
        chosen = jnp.sum(jnp.where(there, rest, 0.0), axis=0, keepdims=True)
        # The two rows change places; where they are one, the pivot's is written over.
        rest = jnp.where(there, first, rest)
        column = jax.lax.dynamic_index_in_dim(rest, k, 1)
        chosen = chosen / jax.lax.dynamic_index_in_dim(chosen, k, 1)
        return jnp.where(here, chosen, rest - column * chosen)

    both = jnp.concatenate([matrix, jnp.eye(size, dtype=matrix.dtype)], axis=1)
    return jax.lax.fori_loop(0, size, eliminate, both)[:, size:]


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
