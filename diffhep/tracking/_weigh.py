import jax
from jaxtyping import Array, Float

from ..numerics import matmul


@jax.custom_jvp
def weigh(
    weight: Float[Array, "n n"],
    covariance: Float[Array, "n n"],
    vectors: Float[Array, "n columns"],
) -> Float[Array, "n columns"]:
    """The inverse of a covariance times some vectors, with a cheap derivative.

    The derivative never forms that of the inverse: in reverse mode two products with
    the vectors' few columns stand for two of full matrices.

    Args:
        weight: The inverse of `covariance`. It is not differentiated: `covariance` is,
            in its place.
        covariance: A symmetric positive definite matrix.
        vectors: Vectors, as columns.

    Returns:
        `weight @ vectors`.
    """
    del covariance
    return matmul(weight, vectors)


@weigh.defjvp
def _weigh_jvp(
    primals: tuple[Float[Array, "n n"], Float[Array, "n n"], Float[Array, "n columns"]],
    tangents: tuple[
        Float[Array, "n n"], Float[Array, "n n"], Float[Array, "n columns"]
    ],
) -> tuple[Float[Array, "n columns"], Float[Array, "n columns"]]:
    weight, covariance, vectors = primals
    _, covariance_dot, vectors_dot = tangents
    solution = weigh(weight, covariance, vectors)
    change = vectors_dot - matmul(covariance_dot, solution)
    return solution, weigh(weight, covariance, change)
