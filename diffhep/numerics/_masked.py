from typing import TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree


_Tree = TypeVar("_Tree", bound=PyTree)


def sanitise(values: _Tree, mask: Bool[Array, " slots"], *, fill: float = 0.0) -> _Tree:
    """The arrays with every dead slot replaced by something safe to compute with.

    A dead slot may hold NaN. Replace it before any arithmetic: a `where` after the
    arithmetic still lets the NaN into the gradient.

    Args:
        values: Arrays (or a struct of arrays) whose leading axis is `slots`.
        mask: Which slots are alive.
        fill: What dead slots of inexact arrays shall hold. Integers become zero.

    Returns:
        The same structure. The gradient to dead slots is exactly zero.
    """

    def clean(array: Array) -> Array:
        alive = jnp.reshape(mask, mask.shape + (1,) * (array.ndim - mask.ndim))
        # Integers and Booleans have no NaN, but may hold an index out of range.
        filler = fill if jnp.issubdtype(array.dtype, jnp.inexact) else 0
        return jnp.where(alive, array, jnp.asarray(filler, array.dtype))

    return jax.tree.map(lambda x: clean(x) if eqx.is_array(x) else x, values)


def masked_sum(
    values: Float[Array, "slots *rest"], mask: Bool[Array, " slots"]
) -> Float[Array, "*rest"]:
    """The sum over the leading axis of the slots that are alive.

    Args:
        values: What to add up; dead slots may hold anything.
        mask: Which slots are alive.

    Returns:
        The sum; zero if no slot is alive.
    """
    return jnp.sum(sanitise(values, mask), axis=0)
