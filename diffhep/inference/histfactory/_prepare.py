"""What a fit needs of a model, computed once and not in every step."""

import functools
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ...numerics import safe_sqrt
from .._codes import AbstractNormCode, AbstractShapeCode
from ._layout import Interpolated, Layout, PerBin, without_names
from ._model import HistFactoryModel, require_double
from ._parameters import Constraint


class Places(NamedTuple):
    """Indices into parameters and cells; a cell is one bin of one sample."""

    interpolated: np.ndarray
    """Parameters of histosys and normsys modifiers."""
    rank: np.ndarray
    """Of each parameter, its place among these; one past the last if it has none."""
    shapes: np.ndarray
    """Parameter of each histosys modifier."""
    norms: np.ndarray
    """Parameter of each normsys modifier."""
    shape_row: np.ndarray
    """Of each interpolated parameter, its histosys modifier; one past the last if it
    has none."""
    norm_row: np.ndarray
    """The same for normsys."""
    entries: np.ndarray
    """Flat indices of the pairs of sample and channel that any normsys acts on."""
    entry: np.ndarray
    """Of each cell, its place among these; one past the last if it has none."""
    factors: np.ndarray
    """Parameters that are factors on each cell, `[factors cells]`; padded with one past
    the last parameter."""
    bin: np.ndarray
    """Bin of each cell."""
    normal: np.ndarray
    """Parameters with a Gaussian constraint."""
    poisson: np.ndarray
    """Parameters with a Poisson constraint."""
    normal_slot: np.ndarray
    """Where those lie among the auxiliary data."""
    poisson_slot: np.ndarray
    """Where these lie."""


@functools.lru_cache(maxsize=64)
def find_places(layout: Layout) -> Places:
    """The indices of a layout.

    Args:
        layout: The layout.

    Returns:
        Constant arrays.
    """
    size = len(layout.names)
    shapes = np.asarray([x.parameter for x in layout.shapes], int)
    norms = np.asarray([x.parameter for x in layout.norms], int)
    interpolated = np.unique(np.concatenate([shapes, norms])).astype(int)
    channel = np.searchsorted(layout.edges, np.arange(layout.bins), side="right") - 1
    pair = np.arange(len(layout.samples))[:, None] * len(layout.channels) + channel
    acted = {s * len(layout.channels) + c for x in layout.norms for s, c in x.pairs}
    entries = np.asarray(sorted(acted), int)
    depth = max(1, *(len(x) for x in layout.factors))
    factors = np.full((depth, len(layout.factors)), size)
    for cell, parameters in enumerate(layout.factors):
        factors[: len(parameters), cell] = parameters
    constraints = [g.constraint for g in layout.sets for _ in range(g.size)]
    constrained = [i for i, c in enumerate(constraints) if c is not Constraint.NONE]
    kinds = [constraints[i] is Constraint.POISSON for i in constrained]
    kinds = np.asarray(kinds, bool)
    where = np.asarray(constrained, int)
    return Places(
        interpolated,
        _rank(np.arange(size), interpolated),
        shapes,
        norms,
        _rank(interpolated, shapes),
        _rank(interpolated, norms),
        entries,
        _rank(pair.reshape(-1), entries),
        factors,
        np.tile(np.arange(layout.bins), len(layout.samples)),
        where[~kinds],
        where[kinds],
        np.flatnonzero(~kinds),
        np.flatnonzero(kinds),
    )


def _rank(items: np.ndarray, table: np.ndarray) -> np.ndarray:
    lookup = {value: place for place, value in enumerate(table.tolist())}
    return np.asarray([lookup.get(x, len(table)) for x in items.tolist()], int)


class Prepared(eqx.Module):
    """A model, ready for a fit."""

    nominal: Float[Array, " cells"]
    """Templates."""
    slope: Float[Array, "shapes cells"]
    """Half the difference of each histosys modifier's variations."""
    bend: Float[Array, "shapes cells"]
    """Half their sum, less the nominal template."""
    norms: tuple[Float[Array, "norms entries"], ...]
    """Coefficients of the normsys modifiers."""
    width: Float[Array, " normals"]
    """Standard deviations of Gaussian constraints."""
    strength: Float[Array, " poissons"]
    """Number of events that each Poisson constraint is worth."""
    layout: Layout = eqx.field(static=True)
    """Places, without names."""
    shape_code: AbstractShapeCode
    """How histosys modifiers interpolate."""
    norm_code: AbstractNormCode
    """How normsys modifiers interpolate."""


def prepare(model: HistFactoryModel) -> Prepared:
    """What a fit needs of a model.

    Args:
        model: The model.

    Returns:
        The same model, in the form in which it is evaluated.
    """
    require_double(model.nominal)
    layout, places = model.layout, find_places(model.layout)
    cells = len(layout.samples) * layout.bins
    acts = _acting(layout.shapes, layout)
    half = (model.shape_up - model.shape_down) / 2
    middle = (model.shape_up + model.shape_down) / 2 - model.nominal[None]
    slope, bend = (
        jnp.reshape(jnp.where(acts, x, 0.0), (len(layout.shapes), cells))
        for x in (half, middle)
    )
    entries = len(layout.samples) * len(layout.channels)
    acts = np.zeros(
        (len(layout.norms), len(layout.samples), len(layout.channels)), bool
    )
    for row, item in enumerate(layout.norms):
        for sample, channel in item.pairs:
            acts[row, sample, channel] = True
    up, down = (
        jnp.reshape(jnp.where(acts, x, 1.0), (len(layout.norms), entries))
        for x in (model.norm_up, model.norm_down)
    )
    return Prepared(
        jnp.ravel(model.nominal),
        slope,
        bend,
        model.norm_code.coefficients(up[:, places.entries], down[:, places.entries]),
        _widths(model)[places.normal_slot],
        poisson_strength(model),
        without_names(layout),
        model.shape_code,
        model.norm_code,
    )


def _acting(
    items: tuple[Interpolated, ...] | tuple[PerBin, ...], layout: Layout
) -> np.ndarray:
    acts = np.zeros((len(items), len(layout.samples), layout.bins), bool)
    for row, item in enumerate(items):
        for sample, channel in item.pairs:
            acts[row, sample, layout.edges[channel] : layout.edges[channel + 1]] = True
    return acts


def _widths(model: HistFactoryModel) -> Float[Array, " auxiliary"]:
    # Those of staterror modifiers are relative errors of the sum of their samples.
    layout = model.layout
    first, parameter, slots = 0, 0, {}
    for group in layout.sets:
        slots[parameter] = (first, group.width is None)
        parameter += group.size
        first += 0 if group.constraint is Constraint.NONE else group.size
    acts = _acting(layout.stats, layout)
    total = jnp.sum(jnp.where(acts, model.nominal[None], 0.0), axis=1)
    error = safe_sqrt(jnp.sum(jnp.where(acts, model.stat_error, 0.0) ** 2, axis=1))
    good = (total > 0) & (error > 0)
    relative = jnp.where(good, error / jnp.where(good, total, 1.0), 1.0)
    width = model.width
    for row, item in enumerate(layout.stats):
        slot, derived = slots[item.parameter]
        if derived:
            own = relative[row, np.asarray(item.bins)]
            width = width.at[slot : slot + len(item.bins)].set(own)
    return width


def poisson_strength(model: HistFactoryModel) -> Float[Array, " poissons"]:
    """The number of events that each shapesys constraint is worth.

    Args:
        model: The model.

    Returns:
        Template over its uncertainty, squared; 1 where either is zero.
    """
    found = [jnp.zeros(0, model.nominal.dtype)]
    for row, item in enumerate(model.layout.poissons):
        ((sample, _),) = item.pairs
        bins = np.asarray(item.bins)
        nominal, error = (
            model.nominal[sample, bins],
            model.poisson_error[row, sample, bins],
        )
        good = (nominal > 0) & (error > 0)
        ratio = jnp.where(good, nominal, 1.0) / jnp.where(good, error, 1.0)
        found.append(ratio**2)
    return jnp.concatenate(found)
