"""Sums of products in which `None` stands for zero, for derivatives by hand.

The compiler may not drop a product with a zero that is a number, for the other factor
might be infinite. Where a rule of differentiation knows that a tangent is zero, it
writes less code by not writing the product at all.
"""

from collections.abc import Iterable
from typing import Any

import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero


def absent_if_zero(tangents: Iterable[Any]) -> list[Any]:
    """The tangents that a rule with `symbolic_zeros=True` gets.

    Args:
        tangents: Arrays, and the symbolic zeros of `jax.custom_jvp`.

    Returns:
        The same, with `None` for zeros.
    """
    return [None if isinstance(x, SymbolicZero) else x for x in tangents]


def zero_if_absent(value: Any, like: Any) -> Any:
    """A tangent to hand back, zero for `None`.

    Args:
        value: An array or `None`.
        like: The result that it is the tangent of.

    Returns:
        An array.
    """
    return jnp.zeros_like(like) if value is None else value


def add_present(*terms: Any) -> Any:
    """A sum.

    Args:
        terms: Arrays, numbers and `None`.

    Returns:
        Their sum; `None` if all of them are.
    """
    total = None
    for term in terms:
        if term is not None:
            total = term if total is None else total + term
    return total


def dot_present(left: Iterable[Any], right: Iterable[Any]) -> Any:
    """The sum of products of two sequences of the same length.

    Args:
        left: Arrays, numbers and `None`.
        right: As many.

    Returns:
        The sum; `None` if every product has a factor that is.
    """
    products = (
        None if a is None or b is None else a * b
        for a, b in zip(left, right, strict=True)
    )
    return add_present(*products)
