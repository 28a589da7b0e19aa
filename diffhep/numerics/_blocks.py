"""Many small general systems at once: a block-diagonal matrix without LAPACK."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ._solver import AbstractSmallSolver


def inverse_3x3(matrix: Float[Array, "3 3"]) -> Float[Array, "3 3"]:
    """The inverse of a general 3 x 3 matrix with a positive diagonal.

    By the adjugate, of the matrix scaled to unit diagonal: the rows and columns may
    have different units.

    Args:
        matrix: A matrix, not necessarily symmetric.

    Returns:
        Its inverse; not finite where the matrix is singular.
    """
    scale = jax.lax.rsqrt(jnp.abs(jnp.diagonal(matrix)))
    a, b, c = matrix * scale[:, None] * scale[None, :]
    # The columns of the adjugate are cross products of the rows.
    columns = jnp.stack([_cross(b, c), _cross(c, a), _cross(a, b)], axis=1)
    determinant = jnp.sum(a * columns[:, 0])
    return columns / determinant * scale[:, None] * scale[None, :]


def _cross(a: Float[Array, " 3"], b: Float[Array, " 3"]) -> Float[Array, " 3"]:
    return jnp.stack(
        [
            a[1] * b[2] - a[2] * b[1],
            a[2] * b[0] - a[0] * b[2],
            a[0] * b[1] - a[1] * b[0],
        ]
    )


def inverse_blocks(blocks: Float[Array, "blocks 3 3"]) -> Float[Array, "blocks 3 3"]:
    """The inverse of each block; zero where one is singular.

    Args:
        blocks: Matrices, as for `inverse_3x3`.

    Returns:
        Their inverses.
    """
    inverse = jax.vmap(inverse_3x3)(blocks)
    finite = jnp.all(jnp.isfinite(inverse), axis=(1, 2), keepdims=True)
    return jnp.where(finite, inverse, 0.0)


class BlockSolver3(AbstractSmallSolver):
    """A lineax solver for block-diagonal systems of general 3 x 3 blocks.

    For unknowns that are the flattened positions of any number of independent vertices.
    Three products with the operator reveal all blocks at once. The operator must be
    block diagonal: what lies outside the blocks is silently added to them.
    """

    def invert(
        self,
        multiply: Callable[[Float[Array, " n"]], Float[Array, " n"]],
        like: Float[Array, " n"],
    ) -> Float[Array, "blocks 3 3"]:
        """Invert the blocks; zero where one is singular: a derivative is none there."""
        number = like.shape[0] // 3
        probes = jnp.tile(jnp.eye(3, dtype=like.dtype), (1, number))
        columns = jax.vmap(multiply)(probes)
        blocks = jnp.moveaxis(jnp.reshape(columns, (3, number, 3)), 0, -1)
        return inverse_blocks(blocks)

    def apply(
        self, inverse: Float[Array, "blocks 3 3"], vector: Float[Array, " n"]
    ) -> Float[Array, " n"]:
        """Multiply with the inverses."""
        right = jnp.reshape(vector, (-1, 1, 3))
        return jnp.reshape(jnp.sum(inverse * right, axis=2), vector.shape)

    def transpose(self, state: Any, options: dict[str, Any]) -> Any:
        """The blocks transposed."""
        return jnp.swapaxes(state, 1, 2), options
