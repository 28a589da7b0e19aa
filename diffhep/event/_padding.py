from typing import Any

import numpy as np
from jaxtyping import Bool, Int, Shaped


def pad_jagged(
    values: Shaped[np.ndarray, "entries ..."],
    counts: Int[np.ndarray, " events"],
    *,
    capacity: int,
) -> tuple[
    Shaped[np.ndarray, "events {capacity} ..."],
    Bool[np.ndarray, "events {capacity}"],
]:
    """Lists of different lengths as one array with a mask; the overflow is cut off.

    Args:
        values: The elements of all lists, one list after the other.
        counts: Length of each list.
        capacity: Slots per list. Of a longer list only the first elements are kept:
            put the important ones first, and compare `counts` with the capacity.

    Returns:
        The padded array, zero in the dead slots, and the mask of the living ones.

    Raises:
        ValueError: The capacity is not positive, or the counts do not add up.
    """
    if capacity <= 0:
        raise ValueError(f"`capacity` must be positive, but is {capacity}; raise it.")
    if counts.sum() != len(values):
        raise ValueError(
            f"`counts` add up to {counts.sum()}, but there are {len(values)} values; "
            "give the length of each list."
        )
    slots = np.arange(capacity)
    mask = slots[None, :] < counts[:, None]
    starts = np.cumsum(counts) - counts
    padded = np.zeros((len(counts), capacity, *values.shape[1:]), values.dtype)
    padded[mask] = values[(starts[:, None] + slots[None, :])[mask]]
    return padded, mask


def flatten_padded(
    padded: Shaped[np.ndarray, "events capacity ..."],
    mask: Bool[np.ndarray, "events capacity"],
) -> tuple[Shaped[np.ndarray, "entries ..."], Int[np.ndarray, " events"]]:
    """The living slots of a padded array, one list after the other.

    Args:
        padded: The padded array.
        mask: Which slots live.

    Returns:
        The elements of all lists, and the length of each list.
    """
    return padded[mask], mask.sum(axis=1)


def pad_awkward(
    array: Any, *, capacity: int
) -> tuple[
    Shaped[np.ndarray, "events {capacity}"], Bool[np.ndarray, "events {capacity}"]
]:
    """A jagged awkward array as one array with a mask; the overflow is cut off.

    Args:
        array: An `awkward.Array` of lists of numbers.
        capacity: Slots per list; the first elements are kept.

    Returns:
        The padded array, zero in the dead slots, and the mask of the living ones.

    Raises:
        ImportError: The package `awkward` is missing.
        ValueError: The capacity is not positive.
    """
    awkward = _awkward()
    values = awkward.to_numpy(awkward.flatten(array, axis=1))
    counts = awkward.to_numpy(awkward.num(array, axis=1))
    return pad_jagged(values, counts, capacity=capacity)


def awkward_from_padded(
    padded: Shaped[np.ndarray, "events capacity ..."],
    mask: Bool[np.ndarray, "events capacity"],
) -> Any:
    """The living slots of a padded array as an `awkward.Array` of lists.

    Args:
        padded: The padded array.
        mask: Which slots live.

    Returns:
        The jagged array.

    Raises:
        ImportError: The package `awkward` is missing.
    """
    values, counts = flatten_padded(padded, mask)
    return _awkward().unflatten(values, counts)


def _awkward() -> Any:
    try:
        import awkward  # noqa: PLC0415 (optional: nothing else needs it)
    except ImportError as error:
        raise ImportError(
            "Jagged arrays need the package awkward; run pip install awkward."
        ) from error
    return awkward
