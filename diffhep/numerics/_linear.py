"""Small dense algebra by broadcasting: a batch of LAPACK calls would dominate.

And it would hang: a batch of LAPACK calls waits for tasks in the pool of threads that
it runs on, and two CPU devices at once wait for each other (jaxlib 0.10.2).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ._solver import AbstractSmallSolver


def matmul(
    left: Float[Array, "rows inner"], right: Float[Array, "inner columns"]
) -> Float[Array, "rows columns"]:
    """The product of two small matrices, in full precision.

    Args:
        left: A matrix.
        right: A matrix.

    Returns:
        Their product. Under `vmap`, 12 x 12 by 12 x 5 takes 0.26 microseconds, and
        1.0 with its gradient, where multiply and sum by broadcasting takes 1.6 and 17
        (jaxlib 0.10 on a CPU, float64).
    """
    return jnp.matmul(left, right, precision=jax.lax.Precision.HIGHEST)


def matvec(
    matrix: Float[Array, "rows columns"], vector: Float[Array, " columns"]
) -> Float[Array, " rows"]:
    """The product of a small matrix and a vector, in full precision.

    Args:
        matrix: A matrix.
        vector: A vector.

    Returns:
        Their product.
    """
    return jnp.matmul(matrix, vector, precision=jax.lax.Precision.HIGHEST)


def cholesky_spd(matrix: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """The Cholesky factor of a symmetric positive definite matrix, n up to about 4.

    Args:
        matrix: A symmetric positive definite matrix, of any scale.

    Returns:
        A lower triangular matrix L with L L^T the matrix; NaN where that is not
        positive definite.
    """
    # Right-looking: n rank-one updates of the whole matrix, no scatter.
    size = matrix.shape[0]
    row = jnp.arange(size)
    columns = []
    rest = matrix
    for k in range(size):
        pivot = rest[k, k]
        # A matrix that is not positive definite gives NaN, never a wrong number.
        column = jnp.where(row >= k, rest[:, k], 0.0) / jnp.sqrt(pivot)
        columns.append(column)
        rest = rest - column[:, None] * column[None, :]
    return jnp.stack(columns, axis=1)


def _solve_factored(
    factor: Float[Array, "n n"], right: Float[Array, "n columns"]
) -> Float[Array, "n columns"]:
    size = factor.shape[0]
    forward = []
    rest = right
    for k in range(size):
        value = rest[k] / factor[k, k]
        forward.append(value)
        rest = rest - factor[:, k, None] * value[None, :]
    rest = jnp.stack(forward)
    backward = [rest[0]] * size
    for k in reversed(range(size)):
        value = rest[k] / factor[k, k]
        backward[k] = value
        rest = rest - factor[k, :, None] * value[None, :]
    return jnp.stack(backward)


# Up to here the unrolled factorisation fuses with what is around it. A 12 x 12 matrix
# takes 31 microseconds and 6 seconds to compile that way, 4 and 0.4 with the sweep.
_UNROLLED = 4


def _sweep(matrix: Float[Array, "n n"]) -> Float[Array, "n n"]:
    # Gauss-Jordan in place, one rank-one update per pivot, in a loop: no derivative is
    # taken through it. Stable without pivoting for positive definite matrices.
    row = jnp.arange(matrix.shape[0])

    def eliminate(k: Array, rest: Float[Array, "n n"]) -> Float[Array, "n n"]:
        column = jax.lax.dynamic_index_in_dim(rest, k, 1, keepdims=False)
        pivot = jax.lax.dynamic_index_in_dim(column, k, 0, keepdims=False)
        # A matrix that is not positive definite gives NaN, never a wrong number.
        pivot = jnp.where(pivot > 0, pivot, jnp.nan)
        here = row == k
        column = jnp.where(here, -1.0, column)
        others = jnp.where(here[:, None] | here[None, :], 0.0, rest)
        return others - column[:, None] * (column / pivot)[None, :]

    return -jax.lax.fori_loop(0, matrix.shape[0], eliminate, matrix)


# From here on the sweep takes eight pivots at a time, as one matrix product: of 64 x 64
# it takes 46 microseconds in place of 340 (LAPACK: 40 for one right-hand side).
_BLOCKED = 16
_BLOCK = 8


def _sweep_blocks(matrix: Float[Array, "n n"]) -> Float[Array, "n n"]:
    size = matrix.shape[0]
    padded = -(-size // _BLOCK) * _BLOCK
    identity = jnp.eye(padded, dtype=matrix.dtype)
    whole = jax.lax.dynamic_update_slice(identity, matrix, (0, 0))
    unit = -jnp.eye(_BLOCK, dtype=matrix.dtype)
    block = jnp.arange(padded) // _BLOCK

    def eliminate(k: Array, rest: Float[Array, "m m"]) -> Float[Array, "m m"]:
        first = k * _BLOCK
        columns = jax.lax.dynamic_slice_in_dim(rest, first, _BLOCK, axis=1)
        pivot = jax.lax.dynamic_slice_in_dim(columns, first, _BLOCK, axis=0)
        columns = jax.lax.dynamic_update_slice_in_dim(columns, unit, first, axis=0)
        here = block == k
        others = jnp.where(here[:, None] | here[None, :], 0.0, rest)
        return others - matmul(matmul(columns, inverse_spd(pivot)), columns.T)

    return -jax.lax.fori_loop(0, padded // _BLOCK, eliminate, whole)[:size, :size]


def _adjugate(matrix: Float[Array, "2 2"]) -> Float[Array, "2 2"]:
    first, second, off = matrix[0, 0], matrix[1, 1], matrix[0, 1]
    determinant = first * second - off**2
    good = (determinant > 0) & (first > 0)
    factor = 1 / jnp.where(good, determinant, jnp.nan)
    entries = [second * factor, -off * factor, -off * factor, first * factor]
    return jnp.reshape(jnp.stack(entries), (2, 2))


@jax.custom_jvp
def inverse_spd(matrix: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """The inverse of a small symmetric positive definite matrix.

    Scaled to unit diagonal first, so that parameters in mm and in 1/GeV may share a
    matrix.

    Args:
        matrix: A symmetric positive definite matrix, n up to a few hundred.

    Returns:
        Its inverse; NaN where the matrix is not positive definite.
    """
    if matrix.shape[0] == 2:
        return _adjugate(matrix)
    scale = jax.lax.rsqrt(jnp.diagonal(matrix))
    scaled = matrix * scale[:, None] * scale[None, :]
    if matrix.shape[0] > _BLOCKED:
        inverse = _sweep_blocks(scaled)
    elif matrix.shape[0] > _UNROLLED:
        inverse = _sweep(scaled)
    else:
        identity = jnp.eye(matrix.shape[0], dtype=matrix.dtype)
        inverse = _solve_factored(cholesky_spd(scaled), identity)
    inverse = (inverse + inverse.T) / 2
    return inverse * scale[:, None] * scale[None, :]


@inverse_spd.defjvp
def _inverse_spd_jvp(
    primals: tuple[Float[Array, "n n"]], tangents: tuple[Float[Array, "n n"]]
) -> tuple[Float[Array, "n n"], Float[Array, "n n"]]:
    # d(A^-1) = -A^-1 dA A^-1: two products instead of a differentiated factorisation.
    (matrix,), (tangent,) = primals, tangents
    inverse = inverse_spd(matrix)
    return inverse, -matmul(inverse, matmul(tangent, inverse))


def is_positive_definite(
    matrix: Float[Array, "n n"], *, margin: float = 4.0
) -> Bool[Array, ""]:
    """Whether a small symmetric matrix is positive definite, beyond rounding.

    Args:
        matrix: A symmetric matrix, of which the lower triangle counts. No gradient
            flows through the answer.
        margin: The least share of each diagonal element that has to be left when what
            the elements before it determine is taken away, in units of the rounding of
            one.

    Returns:
        The answer; no, if there is an element that counts and is not finite.
    """
    # A loop, 0.2 microseconds for 5 x 5 (as with LAPACK): what is written out would be
    # computed anew, and compiled, wherever the answer decides.
    matrix = jax.lax.stop_gradient(matrix)
    least = margin * jnp.finfo(matrix.dtype).eps * jnp.diagonal(matrix)

    def eliminate(
        k: Array, carry: tuple[Float[Array, "n n"], Bool[Array, ""]]
    ) -> tuple[Float[Array, "n n"], Bool[Array, ""]]:
        rest, good = carry
        column = jax.lax.dynamic_index_in_dim(rest, k, 1, keepdims=False)
        pivot, bound = (
            jax.lax.dynamic_index_in_dim(x, k, 0, keepdims=False)
            for x in (column, least)
        )
        # False for NaN, and for infinity.
        good = good & (pivot > bound) & (pivot < jnp.inf)
        return rest - column[:, None] * (column / pivot)[None, :], good

    lower = jnp.tril(matrix)
    whole = lower + jnp.tril(matrix, -1).T
    start = (whole, jnp.asarray(True))
    _, answer = jax.lax.fori_loop(0, matrix.shape[0], eliminate, start)
    return answer


def inverse_near(
    matrix: Float[Array, "n n"], guess: Float[Array, "n n"]
) -> Float[Array, "n n"]:
    """The inverse of a small matrix of which an approximate inverse is known.

    Three steps of Newton and Schulz: a relative error of 1 % in the guess ends at
    1e-16.

    Args:
        matrix: Any matrix.
        guess: Its inverse, approximately.

    Returns:
        The inverse.
    """
    for _ in range(3):
        guess = 2 * guess - matmul(guess, matmul(matrix, guess))
    return guess


def solve_spd(
    matrix: Float[Array, "n n"], right: Float[Array, " n"]
) -> Float[Array, " n"]:
    """The solution of a small symmetric positive definite system.

    Args:
        matrix: A symmetric positive definite matrix.
        right: The right-hand side.

    Returns:
        `matrix^-1 right`; NaN where the matrix is not positive definite.
    """
    if matrix.shape[0] > _BLOCKED:
        return _solve_large(matrix, right)
    return matvec(inverse_spd(matrix), right)


@jax.custom_jvp
def _solve_large(
    matrix: Float[Array, "n n"], right: Float[Array, " n"]
) -> Float[Array, " n"]:
    scale = jax.lax.rsqrt(jnp.diagonal(matrix))
    scaled = matrix * scale[:, None] * scale[None, :]
    return scale * _solve_scaled(scaled, scale * right)


@_solve_large.defjvp
def _solve_large_jvp(
    primals: tuple[Array, Array], tangents: tuple[Array, Array]
) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
    (matrix, right), (to_matrix, to_right) = primals, tangents
    inverse = inverse_spd(matrix)
    solution = matvec(inverse, right)
    return solution, matvec(inverse, to_right - matvec(to_matrix, solution))


# A single system is no batch, and may be LAPACK's: of 64 x 64 it takes 15 microseconds,
# where the inverse takes 50. (200,000 on each of two CPU devices at once did not hang.)
@jax.custom_batching.custom_vmap
def _solve_scaled(
    matrix: Float[Array, "n n"], right: Float[Array, " n"]
) -> Float[Array, " n"]:
    factor = jax.lax.linalg.cholesky(matrix, symmetrize_input=False)
    column = right[:, None]
    for transpose in (False, True):
        column = jax.lax.linalg.triangular_solve(
            factor, column, left_side=True, lower=True, transpose_a=transpose
        )
    return column[:, 0]


@_solve_scaled.def_vmap
def _solve_scaled_vmap(
    size: int, batched: list[bool], matrix: Array, right: Array
) -> tuple[Array, bool]:
    axes = [0 if x else None for x in batched]
    solve = jax.vmap(lambda a, b: matvec(inverse_spd(a), b), axes, axis_size=size)
    return solve(matrix, right), True


class SmallCholesky(AbstractSmallSolver):
    """A lineax solver for small symmetric positive definite systems.

    For use in `optimistix.ImplicitAdjoint(linear_solver=SmallCholesky())`: the same
    answer as `lineax.Cholesky`, without one LAPACK call per track.
    """

    def invert(
        self,
        multiply: Callable[[Float[Array, " n"]], Float[Array, " n"]],
        like: Float[Array, " n"],
    ) -> Float[Array, "n n"]:
        """Invert the matrix."""
        matrix = jax.vmap(multiply)(jnp.eye(like.shape[0], dtype=like.dtype))
        return inverse_spd((matrix + matrix.T) / 2)

    def apply(
        self, inverse: Float[Array, "n n"], vector: Float[Array, " n"]
    ) -> Float[Array, " n"]:
        """Multiply with the inverse."""
        return matvec(inverse, vector)

    def transpose(self, state: Any, options: dict[str, Any]) -> Any:
        """The operator is symmetric."""
        return state, options
