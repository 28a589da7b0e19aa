from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree


# Central differences by their order: the sum over n of weight * (f(x + n * eps * t) -
# f(x - n * eps * t)), over eps.
_STENCILS = {4: (2 / 3, -1 / 12), 8: (4 / 5, -1 / 5, 4 / 105, -1 / 280)}


def random_direction(
    point: PyTree, generator: np.random.Generator, *, scale_of_zero: float = 1.0
) -> PyTree:
    """A random direction, scaled to the point element by element.

    Args:
        point: Floating-point arrays.
        generator: Where the random numbers come from.
        scale_of_zero: How far a zero is moved. Zero where a zero is a statement, as
            the charge of a neutral particle is.

    Returns:
        The same structure. A covariance is only scaled as a whole, because it has to
        stay symmetric and positive definite; what is not finite is not moved.
    """

    def draw(path: tuple, leaf: jax.Array) -> jax.Array:
        values = np.asarray(leaf)
        covariance = getattr(path[-1], "name", "") == "covariance" if path else False
        shape = (*values.shape[:-2], 1, 1) if covariance else values.shape
        scale = np.where(values == 0, 0.0 if covariance else scale_of_zero, values)
        scale = np.where(np.isfinite(values), scale, 0.0)
        return jnp.asarray(scale * generator.normal(size=shape), leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, point)


def finite_difference(
    function: Callable[[PyTree], PyTree],
    point: PyTree,
    direction: PyTree,
    *,
    eps: float,
    order: int = 4,
) -> PyTree:
    """The derivative of a function along a direction, by a central difference.

    Args:
        function: From floating-point arrays to such.
        point: Where.
        direction: Along what.
        eps: Step, in units of `direction`.
        order: Order of the error in `eps`: 4 or 8.

    Returns:
        What forward mode would return.
    """
    if order not in _STENCILS:
        raise ValueError(f"`order` is {order}; take one of {sorted(_STENCILS)}.")
    total = None
    half = _STENCILS[order]
    stencil = [(s * (n + 1), s * w) for n, w in enumerate(half) for s in (1, -1)]
    for shift, weight in stencil:
        moved = jax.tree.map(lambda x, t, s=shift: x + s * eps * t, point, direction)
        term = jax.tree.map(
            lambda y, w=weight: w / eps * np.asarray(y), function(moved)
        )
        total = term if total is None else jax.tree.map(np.add, total, term)
    return total


def rounding_error(value: PyTree, *, eps: float) -> PyTree:
    """How far the rounding of a value may throw its finite difference off.

    Args:
        value: What the function returns at the point.
        eps: Step of the difference.

    Returns:
        One number per array, a generous bound.
    """

    def bound(array: jax.Array) -> float:
        values = np.asarray(array)
        largest = np.max(np.abs(values), initial=0.0, where=np.isfinite(values))
        return float(100 * np.finfo(values.dtype).eps * largest / eps)

    return jax.tree.map(bound, value)


def inner_product(left: PyTree, right: PyTree) -> float:
    """The sum of the products of all elements of two structures.

    Args:
        left: Arrays.
        right: Arrays of the same structure.

    Returns:
        The sum. Where `right` is zero, `left` does not count, whatever it is.
    """
    pairs = zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True)
    products = ((np.asarray(a), np.asarray(b)) for a, b in pairs)
    return float(sum(np.sum(np.where(b == 0, 0, a) * b) for a, b in products))
