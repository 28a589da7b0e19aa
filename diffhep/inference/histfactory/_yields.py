r"""Expected yields, with their derivatives in closed form.

In each cell (a bin of a sample) the yield is $h\,f\,\varphi$: the interpolated template
$h$, a sum over histosys modifiers; the interpolated normalisation $f$, a product over
normsys modifiers; and the product $\varphi$ of the parameters that are factors. So all
second derivatives together are matrix products of the first ones.
"""

import itertools
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ...numerics import matmul, matvec
from ._prepare import Places, Prepared, find_places


class Expansion(NamedTuple):
    """Expected yields about a point."""

    rate: Float[Array, " bins"]
    """The yields."""
    first: Float[Array, "parameters bins"]
    """Their first derivatives."""
    cells: "Cells"
    """What `second_derivatives` needs."""


class Cells(NamedTuple):
    """The yield of each cell, and its derivatives to interpolated parameters.

    Those of normalisations are the same in all bins of a channel: they are kept once
    for each pair of sample and channel, an entry.
    """

    yields: Float[Array, " cells"]
    """Template times normalisation, without factors."""
    factors: Float[Array, "factors cells"]
    """Its factors, padded with ones."""
    factor: Float[Array, " cells"]
    """Their product."""
    others: Float[Array, "factors cells"]
    """For each factor the product of the others."""
    tilt: Float[Array, "interpolated cells"]
    """First derivative of the template, times normalisation."""
    norm: Float[Array, " cells"]
    """Normalisation."""
    even: Float[Array, " shapes"]
    """Second derivative of the even part of each shape's interpolation."""
    rate: Float[Array, "interpolated entries"]
    """First derivative of the normalisation, over the normalisation."""
    swing: Float[Array, "interpolated entries"]
    """Second derivative of that normsys factor, over the factor, less the square of the
    first."""


def expected_rate(
    prepared: Prepared, parameters: Float[Array, " parameters"]
) -> Float[Array, " bins"]:
    """The expected number of events in each bin.

    Args:
        prepared: The model.
        parameters: The parameters.

    Returns:
        Sums over the samples.
    """
    places = find_places(prepared.layout)
    shift = parameters[places.shapes]
    even = prepared.shape_code.even_part(shift).value
    template = _template(prepared, shift, even)
    norm = _norm_factors(prepared, parameters, places)[0]
    factor = jnp.prod(_factors(parameters, places), axis=0)
    return _sum_samples(prepared, template * norm[places.entry] * factor)


def _template(
    prepared: Prepared, shift: Float[Array, " shapes"], even: Float[Array, " shapes"]
) -> Float[Array, " cells"]:
    # A row times a matrix: no transpose of the matrix.
    change = matmul(shift[None], prepared.slope) + matmul(even[None], prepared.bend)
    return prepared.nominal + change[0]


def _norm_factors(
    prepared: Prepared, parameters: Float[Array, " parameters"], places: Places
) -> tuple[
    Float[Array, " more"],
    Float[Array, "norms entries"],
    Float[Array, "norms entries"],
]:
    # The product over modifiers, with one more entry than there are, for the cells
    # without normsys; first and second derivative over each one's factor.
    shift = parameters[places.norms][:, None]
    value, first, second = prepared.norm_code.factor(prepared.norms, shift)
    # Where a factor is zero, so are its derivatives: from there on it stays zero.
    zero = value == 0
    safe = jnp.where(zero, 1.0, value)
    first = jnp.where(zero, 0.0, first / safe)
    second = jnp.where(zero, 0.0, second / safe)
    product = jnp.pad(jnp.prod(value, axis=0), (0, 1), constant_values=1.0)
    return product, first, second


def _factors(
    parameters: Float[Array, " parameters"], places: Places
) -> Float[Array, "factors cells"]:
    return jnp.pad(parameters, (0, 1), constant_values=1.0)[places.factors]


def _sum_samples(
    prepared: Prepared, cells: Float[Array, "*rows cells"]
) -> Float[Array, "*rows bins"]:
    layout = prepared.layout
    shape = (*cells.shape[:-1], len(layout.samples), layout.bins)
    return jnp.sum(jnp.reshape(cells, shape), axis=-2)


def _all_but_one(
    factors: Float[Array, "factors cells"],
) -> Float[Array, "factors cells"]:
    # Not by division: a factor may be zero.
    count = factors.shape[0]
    rows = [np.delete(np.arange(count), row) for row in range(count)]
    return jnp.stack([jnp.prod(factors[row], axis=0) for row in rows])


def expand(prepared: Prepared, parameters: Float[Array, " parameters"]) -> Expansion:
    """The expected yields with their first derivatives, and what leads to the second.

    Args:
        prepared: The model.
        parameters: The parameters.

    Returns:
        The expansion.
    """
    places = find_places(prepared.layout)
    shift = parameters[places.shapes]
    even = prepared.shape_code.even_part(shift)
    template = _template(prepared, shift, even.value)
    product, first, second = _norm_factors(prepared, parameters, places)
    norm = product[places.entry]
    tilt = prepared.slope + even.first[:, None] * prepared.bend
    rate = _rows(first, places.norm_row)
    factors = _factors(parameters, places)
    others, factor = _all_but_one(factors), jnp.prod(factors, axis=0)
    yields = template * norm
    cells = Cells(
        yields,
        factors,
        factor,
        others,
        _rows(tilt * norm[None], places.shape_row),
        norm,
        even.second,
        rate,
        _rows(second, places.norm_row) - rate**2,
    )
    whole = yields * factor
    total = _sum_samples(prepared, cells.tilt * factor[None])
    bins, entries = prepared.layout.bins, len(places.entries)
    total = total + matmul(
        rate, _collect(whole, places.entry, places.bin, entries, bins)
    )
    size = parameters.shape[0]
    own = _collect(others * yields[None], places.factors, places.bin, size, bins)
    return Expansion(
        _sum_samples(prepared, whole), own + _rows(total, places.rank), cells
    )


def second_derivatives(
    prepared: Prepared, expansion: Expansion, weight: Float[Array, " bins"]
) -> Float[Array, "parameters parameters"]:
    """The second derivatives of the expected yields, summed over bins with weights.

    Args:
        prepared: The model.
        expansion: Its expansion about a point.
        weight: The weights.

    Returns:
        A symmetric matrix.
    """
    places = find_places(prepared.layout)
    cells = expansion.cells
    size, entries = expansion.first.shape[0], len(places.entries)
    weights = weight[places.bin]
    # Two interpolated parameters.
    scaled = weights * cells.factor
    sums = _collect(scaled * cells.yields, places.entry, 0, entries, 1)[:, 0]
    member = jnp.asarray(places.entry[:, None] == np.arange(entries), weight.dtype)
    mixed = matmul(cells.tilt, scaled[:, None] * member)
    swap = matmul(mixed + cells.rate * sums[None] / 2, cells.rate.T)
    bend = cells.even * matvec(prepared.bend, scaled * cells.norm)
    diagonal = _rows(bend[:, None], places.shape_row)[:, 0]
    diagonal = diagonal + matvec(cells.swing, sums)
    inner = swap + swap.T + jnp.diag(diagonal)
    # An interpolated parameter and a factor.
    others = weights[None] * cells.others
    parts = others[:, :, None] * cells.tilt.T[None]
    cross = jnp.zeros((size, parts.shape[2]), weight.dtype)
    cross = cross.at[places.factors].add(parts, mode="drop")
    others = others * cells.yields[None]
    sums = _collect(others, places.factors, places.entry, size, entries)
    cross = cross + matmul(sums, cells.rate.T)
    # Two factors: each parameter occurs in a cell once.
    outer = _rows(cross.T, places.rank).T
    for one, two in itertools.combinations(range(len(places.factors)), 2):
        rest = np.delete(np.arange(len(places.factors)), [one, two])
        value = jnp.prod(cells.factors[rest], axis=0) * weights * cells.yields
        outer = outer.at[places.factors[one], places.factors[two]].add(
            value, mode="drop"
        )
    inner = _rows(_rows(inner, places.rank).T, places.rank)
    return inner + outer + outer.T


def _collect(
    values: Float[Array, "*shape"],
    rows: np.ndarray,
    columns: np.ndarray | int,
    number: int,
    width: int,
) -> Float[Array, "number width"]:
    # Sums of what shares row and column; beyond the last row or column it drops out.
    rows, columns = (np.broadcast_to(x, values.shape) for x in (rows, columns))
    table = jnp.zeros((number, width), values.dtype)
    if table.size == 0:
        # Of a scatter into nothing JAX has no derivative.
        return table
    return table.at[rows, columns].add(values, mode="drop")


def _rows(
    table: Float[Array, "rows any"], which: np.ndarray
) -> Float[Array, "more any"]:
    # Rows of the table; one past the last is zero.
    return jnp.pad(table, ((0, 1), (0, 0)))[which]
