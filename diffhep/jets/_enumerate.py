import itertools

import jax
import jax.numpy as jnp
import numpy as np

from ..event import MergeHistory


def enumerate_histories(number: int) -> MergeHistory:
    """All clustering histories of a few constituents: for exact expectations.

    There are 3, 18, 180 and 2700 of them for 2 to 5 constituents: each step has a pair
    or a beam to choose from.

    Args:
        number: Number of constituents, 1 to 6.

    Returns:
        The histories, with a leading axis.

    Raises:
        ValueError: There would be too many (or none) to list.
    """
    if not 1 <= number <= 6:
        raise ValueError(
            f"`number` is {number}, but histories can be listed for 1 to 6 "
            "constituents; draw them with `sample_history`."
        )
    rows: list[list[tuple[int, int]]] = []

    def extend(done: list[tuple[int, int]], left: tuple[int, ...]) -> None:
        if not left:
            rows.append(done)
        for keep in left:
            rest = tuple(slot for slot in left if slot != keep)
            extend([*done, (keep, -1)], rest)
        for keep, take in itertools.combinations(left, 2):
            rest = tuple(slot for slot in left if slot != take)
            extend([*done, (keep, take)], rest)

    extend([], tuple(range(number)))
    table = jnp.asarray(np.asarray(rows, np.int32))
    return jax.vmap(MergeHistory)(table[..., 0], table[..., 1])
