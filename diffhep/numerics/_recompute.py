"""Reverse mode that computes again instead of storing, but for what is costly."""

import functools
from collections.abc import Callable
from typing import TypeVar

import jax
from jax.ad_checkpoint import checkpoint_name


_Result = TypeVar("_Result")
_Tree = TypeVar("_Tree")
_STORED = "diffhep: small and costly"


def recompute(function: Callable[..., _Result]) -> Callable[..., _Result]:
    """The function, whose intermediate results reverse mode computes again.

    All but those marked by `store`. Reverse mode needs memory for the arguments, for
    what is stored, and for one call.

    Args:
        function: Any function of arrays.

    Returns:
        The same function.
    """
    policy = jax.checkpoint_policies.save_only_these_names(_STORED)
    return jax.checkpoint(function, policy=policy)


def store(tree: _Tree) -> _Tree:
    """Mark results that are small but costly, the root of a search, say.

    Args:
        tree: Arrays.

    Returns:
        The same arrays, which `recompute` stores.
    """
    return jax.tree.map(functools.partial(checkpoint_name, name=_STORED), tree)
