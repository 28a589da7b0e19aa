import math
import re
from collections.abc import Sequence
from typing import SupportsFloat

import equinox as eqx
import numpy as np

from ._style import MINUS, Number


Table = tuple[str, Sequence[str], Sequence[Sequence[object]]]
"""(caption, header, rows)."""


class GradientRow(eqx.Module):
    """One parameter's gradient, beside the value that an oracle gives."""

    parameter: str = eqx.field(static=True)
    """Name of the parameter."""
    value: Number
    """Its value."""
    unit: str = eqx.field(static=True)
    """Its unit; empty if it has none."""
    gradient: Number
    """The gradient, per unit."""
    oracle: Number
    """The oracle's value of the same gradient."""
    error: Number = 0.0
    """Standard error of the gradient."""
    oracle_error: Number = 0.0
    """Standard error of the oracle's value."""
    pull: Number | None = None
    """The difference in standard errors, where the two share random numbers; if `None`
    their errors are taken to be independent."""


def gradient_table(
    rows: Sequence[GradientRow],
    *,
    caption: str = "Gradients by parameter, and the oracle's value beside each.",
    most_errors: float = 4.0,
    tolerance: float = 1e-5,
) -> Table:
    """The table of gradients, with the agreement of each.

    Rows with a standard error agree within `most_errors` of them; rows without one
    agree within the relative `tolerance`.

    Args:
        rows: The gradients.
        caption: Caption of the table.
        most_errors: Largest difference that agrees, in standard errors.
        tolerance: Largest relative difference that agrees.

    Returns:
        Caption, header and rows for `write_report`.
    """
    header = ("parameter", "value", "unit", "gradient", "oracle", "difference", "")
    body = []
    for row in rows:
        text, good = _agreement(row, most_errors, tolerance)
        body.append(
            (
                row.parameter,
                row.value,
                row.unit,
                _with_error(float(row.gradient), float(row.error)),
                _with_error(float(row.oracle), float(row.oracle_error)),
                text,
                "✓ agrees" if good else "✗ differs",
            )
        )
    return caption, header, body


def _agreement(
    row: GradientRow, most_errors: float, tolerance: float
) -> tuple[str, bool]:
    gradient, oracle = float(row.gradient), float(row.oracle)
    difference = gradient - oracle
    error = math.hypot(float(row.error), float(row.oracle_error))
    if error > 0:
        share = difference / error if row.pull is None else float(row.pull)
        return as_text(f"{share:+.2f} s.e."), bool(abs(share) <= most_errors)
    scale = max(abs(gradient), abs(oracle), float(np.finfo(float).tiny))
    relative = abs(difference) / scale
    return as_text(f"{relative:.1e} rel."), bool(relative <= tolerance)


def _with_error(value: float, error: float) -> str:
    # Both with the exponent of the value: gradients span many orders of magnitude.
    if not error > 0:
        return as_text(f"{value:.6g}")
    if not (math.isfinite(value) and math.isfinite(error)):
        return as_text(f"{value:.3g} ± {error:.3g}")
    size = max(abs(value), error)
    exponent = math.floor(math.log10(size))
    if -4 < exponent < 5:
        exponent = 0
    scale = 10.0**exponent
    digits = max(0, 1 - math.floor(math.log10(error / scale)))
    text = f"{value / scale:.{digits}f} ± {error / scale:.{digits}f}"
    return as_text(f"({text})e{exponent}" if exponent else text)


def as_text(cell: object) -> str:
    """A cell of a table as text.

    Args:
        cell: Text, which stays as it is apart from typographic minus signs before
            digits; or a number, which gets four significant digits if it is no integer.

    Returns:
        The text.
    """
    text = str(cell)
    if isinstance(cell, SupportsFloat) and np.asarray(cell).dtype.kind == "f":
        text = f"{float(cell):.4g}"
    # e-05 is e-5, as one writes it.
    text = re.sub(r"(?<=\de)([+-]?)0+(?=\d)", r"\1", text)
    pieces = [
        MINUS
        if character == "-"
        and text[index + 1 : index + 2].isdigit()
        and not text[max(index - 1, 0) : index].strip(" (e")
        else character
        for index, character in enumerate(text)
    ]
    return "".join(pieces)
