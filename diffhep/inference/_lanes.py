"""Many fits at a time, none of which waits for another."""

from collections.abc import Callable
from typing import Any

import jax
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
    found = search_in_lanes(pose, shared, questions, lanes=lanes)

    def describe(item: Any) -> FitResult:
        question, end = item
        return describe_end(end, pose(shared, question).problem)

    ends = found.states.point
    return jax.lax.map(describe, (questions, ends), batch_size=lanes)
