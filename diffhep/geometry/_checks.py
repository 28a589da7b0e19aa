"""Checks of the plain numbers that a detector is built from."""

from collections.abc import Mapping, Sequence

import numpy as np


def check_layers(
    count: int, what: str, lists: Mapping[str, tuple[Sequence[float], float, float]]
) -> None:
    """Raise unless each list has one number per layer, within its range.

    Args:
        count: Number of layers.
        what: What the layers are called, in the plural.
        lists: By name: the numbers, and what they must lie strictly between.

    Raises:
        ValueError: A list has another length, or a number lies outside its range.
    """
    for name, (values, low, high) in lists.items():
        if len(values) != count:
            raise ValueError(
                f"`{name}` has {len(values)} entries, but there are {count} {what}; "
                f"give one number for each of the {what}."
            )
        if not all(low < value < high for value in values):
            raise ValueError(
                f"`{name}` is {list(values)}; every entry must lie strictly between "
                f"{low:g} and {high:g}."
            )


def check_field(field: float) -> None:
    """Raise unless a field can measure momenta.

    Args:
        field: Magnetic field along z, in T.

    Raises:
        ValueError: It is zero or not finite.
    """
    if field == 0 or not np.isfinite(field):
        raise ValueError(
            f"`field` is {field}, but momenta are measured by their curvature; give a "
            "finite field other than zero."
        )
