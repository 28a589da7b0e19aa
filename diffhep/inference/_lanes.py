"""Many fits at a time, none of which waits for another."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.lax import stop_gradient
from jaxtyping import PyTree

from ..numerics import LoopEnds, map_loop
from ._newton import FitResult, describe_end
from ._search import Search


def search_in_lanes(
    pose: Callable[[PyTree, Any], Search],
    shared: PyTree,
    questions: PyTree,
    *,
    lanes: int,
) -> LoopEnds:
    """The ends of many searches, some at a time; without a derivative.

    Args:
        pose: The search, `(shared, question) -> search`.
        shared: What all have in common. It is not copied.
        questions: What they do not, along a leading axis.
        lanes: How many to search at a time.

    Returns:
        The last state of each search.
    """
    shared, questions = stop_gradient((shared, questions))
    return map_loop(
        lambda question: pose(shared, question).begin(),
        lambda state, question: pose(shared, question).proceed(state),
        lambda state, question: pose(shared, question).advance(state),
        questions,
        lanes=lanes,
    )


def fit_in_lanes(
    pose: Callable[[PyTree, Any], Search],
    shared: PyTree,
    questions: PyTree,
    *,
    lanes: int,
) -> FitResult:
    """Many fits, some at a time.

    Args:
        pose: The search, `(shared, question) -> search`.
        shared: What all have in common. It is not copied.
        questions: What they do not, along a leading axis.
        lanes: How many fits at a time.

    Returns:
        The results, with a leading axis and with their implicit derivatives.
    """
    # Also of data that NumPy holds.
    questions = jax.tree.map(jnp.asarray, questions)
    found = search_in_lanes(pose, shared, questions, lanes=lanes)

    def describe(item: Any) -> FitResult:
        question, end = item
        return describe_end(end, pose(shared, question).problem)

    ends = found.states.point
    # Of nothing no batch can be made.
    size = lanes if ends.shape[0] else None
    return jax.lax.map(describe, (questions, ends), batch_size=size)


def check_batch_size(batch_size: int | None) -> None:
    """Raise where no fit would ever be made.

    Args:
        batch_size: How many fits at a time; one by one if None.

    Raises:
        ValueError: It is less than one.
    """
    if batch_size is not None and batch_size < 1:
        raise ValueError(
            f"`batch_size` is {batch_size}, but must be at least 1; leave it out to "
            "fit one by one."
        )
