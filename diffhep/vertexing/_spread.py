"""The covariance of the impact parameters, from that of the track parameters."""

from typing import Any

import jax
from jaxtyping import Array, Float

from ..numerics import absent_if_zero, add_present, dot_present, zero_if_absent


_Tracks = Float[Array, " tracks"]
_Spread = tuple[_Tracks, _Tracks, _Tracks]
_Row = tuple[_Tracks, _Tracks, _Tracks, _Tracks]
UPPER = tuple((a, b) for a in range(5) for b in range(a, 5))
"""The order of the elements of a covariance: its upper triangle, row by row."""
_PLACE = {pair: k for k, pair in enumerate(UPPER)}


@jax.custom_jvp
def spread(covariance: Float[Array, "15 tracks"], across: _Row, along: _Row) -> _Spread:
    """The covariance of d0 and z0 about a point.

    Args:
        covariance: Upper triangle of the covariance of the track parameters.
        across: Derivatives of d0 in d0, phi, theta and q/p of the track; that in its z0
            is 0.
        along: The same of z0; its derivative in z0 of the track is 1.

    Returns:
        The elements (d0 d0, d0 z0, z0 z0).
    """
    rows = _with_z0(across, None), _with_z0(along, 1.0)
    return _contract(rows, _moved(covariance, rows))


def _spread_jvp(
    primals: tuple[Any, ...], tangents: tuple[Any, ...]
) -> tuple[_Spread, _Spread]:
    # The covariance is symmetric: the change of a row counts twice, and needs no
    # product with the covariance. That is half of what automatic differentiation does.
    covariance, across, along = primals
    rows = _with_z0(across, None), _with_z0(along, 1.0)
    one, other = moved = _moved(covariance, rows)
    first, second = (_with_z0(absent_if_zero(row), None) for row in tangents[1:])
    shifts = [
        dot_present((2.0,), (dot_present(first, one),)),
        add_present(dot_present(first, other), dot_present(second, one)),
        dot_present((2.0,), (dot_present(second, other),)),
    ]
    (change,) = absent_if_zero(tangents[:1])
    if change is not None:
        direct = _contract(rows, _moved(change, rows))
        shifts = [add_present(x, y) for x, y in zip(shifts, direct, strict=True)]
    value = _contract(rows, moved)
    a, b, c = (zero_if_absent(x, like) for x, like in zip(shifts, value, strict=True))
    return value, (a, b, c)


spread.defjvp(_spread_jvp, symbolic_zeros=True)


def split_rows(matrix: Float[Array, "n tracks"]) -> list[_Tracks]:
    """The rows of a matrix.

    By a split, whose derivative is one concatenation: that of each slice would be a
    whole matrix.

    Args:
        matrix: A matrix.

    Returns:
        Its rows.
    """
    pieces = jax.lax.split(matrix, (1,) * matrix.shape[0], axis=0)
    return [piece[0] for piece in pieces]


def _with_z0(row: Any, element: float | None) -> list[Any]:
    return [row[0], element, *row[1:]]


def _moved(covariance: Float[Array, "15 tracks"], rows: Any) -> Any:
    # The symmetric matrix times each row.
    elements = split_rows(covariance)
    square = [
        [elements[_PLACE[min(a, b), max(a, b)]] for b in range(5)] for a in range(5)
    ]
    return tuple([dot_present(row, column) for column in square] for row in rows)


def _contract(rows: Any, moved: Any) -> _Spread:
    (across, along), (one, other) = rows, moved
    return (
        dot_present(across, one),
        dot_present(across, other),
        dot_present(along, other),
    )
