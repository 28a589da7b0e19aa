"""The HistFactory model: a pytree whose leaves are the numbers of a workspace."""

from collections.abc import Iterator
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from .._codes import AbstractNormCode, AbstractShapeCode, Code4, Code4p
from ._layout import Layout, lay_out
from ._parameters import Constraint
from ._workspace import Workspace, find_measurement


class HistFactoryModel(eqx.Module):
    """Expected yields of samples in bins, with their systematic variations.

    The bins of all channels lie one after the other. Every array is differentiated, and
    may depend on parameters upstream: see `with_templates`. Where, by the layout, a
    modifier does not act, its numbers do not matter.
    """

    nominal: Float[Array, "samples bins"]
    """Expected number of events."""
    shape_up: Float[Array, "shapes samples bins"]
    """The same with a histosys parameter at plus one."""
    shape_down: Float[Array, "shapes samples bins"]
    """The same, at minus one."""
    norm_up: Float[Array, "norms samples channels"]
    """Factor on all bins of a channel with a normsys parameter at plus one."""
    norm_down: Float[Array, "norms samples channels"]
    """The same, at minus one."""
    poisson_error: Float[Array, "poissons samples bins"]
    """Absolute uncertainties of shapesys modifiers."""
    stat_error: Float[Array, "stats samples bins"]
    """Absolute statistical errors of the simulation, of staterror modifiers: a factor
    for each bin, on the sum of its samples, with a Gaussian constraint. That is the
    light version of Barlow's and Beeston's method (Conway, arXiv 1103.0354), as in
    pyhf; shapesys modifiers are its Poisson variant, for one sample each."""
    centre: Float[Array, " auxiliary"]
    """Outcome of each auxiliary measurement, where it is Gaussian."""
    width: Float[Array, " auxiliary"]
    """Its standard deviation, where the templates do not determine it."""
    layout: Layout = eqx.field(static=True)
    """Names and places."""
    shape_code: AbstractShapeCode = Code4p()
    """How histosys modifiers interpolate."""
    norm_code: AbstractNormCode = Code4()
    """How normsys modifiers interpolate."""

    def __check_init__(self):
        """Raise where the precision is too low."""
        require_double(self.nominal)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the parameters."""
        return self.layout.names

    @property
    def start(self) -> Float[Array, " parameters"]:
        """Where a fit begins."""
        return jnp.asarray([x for group in self.layout.sets for x in group.start])

    @property
    def lower(self) -> Float[Array, " parameters"]:
        """Lower bounds."""
        return jnp.asarray([b[0] for group in self.layout.sets for b in group.bounds])

    @property
    def upper(self) -> Float[Array, " parameters"]:
        """Upper bounds."""
        return jnp.asarray([b[1] for group in self.layout.sets for b in group.bounds])

    @property
    def fixed(self) -> Bool[Array, " parameters"]:
        """Which parameters a fit keeps."""
        return jnp.asarray([x for group in self.layout.sets for x in group.fixed])


class HistFactoryData(eqx.Module):
    """What was observed."""

    counts: Float[Array, " bins"]
    """Number of events; need not be whole."""
    auxiliary: Float[Array, " auxiliary"]
    """Outcome of the auxiliary measurement of each constrained parameter, in the order
    of the parameters: an estimate of it where the constraint is Gaussian, a number of
    events where it is Poisson."""


def require_double(array: Array) -> None:
    """Raise where an array, or JAX, has too few digits for a likelihood.

    Args:
        array: Any array.

    Raises:
        ValueError: It is not of 64 bits.
    """
    if array.dtype != np.float64:
        raise ValueError(
            f"HistFactory likelihoods need 64-bit floating point, not {array.dtype}; "
            'call jax.config.update("jax_enable_x64", True) when the program starts, '
            "and cast templates that come from elsewhere."
        )


def build_model(
    workspace: Workspace,
    *,
    measurement: str | None = None,
    shape_code: AbstractShapeCode | None = None,
    norm_code: AbstractNormCode | None = None,
) -> HistFactoryModel:
    """The model of a workspace.

    Args:
        workspace: The workspace.
        measurement: Name of the measurement; the first unless given.
        shape_code: How histosys modifiers interpolate; `Code4p()` unless given.
        norm_code: How normsys modifiers interpolate; `Code4()` unless given.

    Returns:
        The model, in 64 bits.

    Raises:
        ValueError: The measurement does not fit the channels, or JAX is in 32 bits.
    """
    channels = workspace.content["channels"]
    layout = lay_out(channels, find_measurement(workspace, measurement)["config"])
    arrays = {name: value for name, value in _fill(channels, layout).items()}
    groups = [g for g in layout.sets if g.constraint is not Constraint.NONE]
    arrays["centre"] = np.asarray([x for g in groups for x in g.centre], float)
    arrays["width"] = np.asarray(
        [x for g in groups for x in g.width or (1.0,) * g.size], float
    )
    return HistFactoryModel(
        **{name: jnp.asarray(value) for name, value in arrays.items()},
        layout=layout,
        shape_code=Code4p() if shape_code is None else shape_code,
        norm_code=Code4() if norm_code is None else norm_code,
    )


def walk_numbers(
    channels: list[Any], layout: Layout
) -> Iterator[tuple[str, tuple[Any, ...], dict[str, Any] | list[Any], Any]]:
    """Where each number of a workspace lies in the arrays of its model.

    One walk for reading and writing.

    Args:
        channels: The channels of a workspace.
        layout: Their layout.

    Yields:
        Name of the array, index into it, and the container and the key of the number
        or the list of numbers in the workspace.
    """
    tables = {
        "histosys": layout.shapes,
        "normsys": layout.norms,
        "shapesys": layout.poissons,
        "staterror": layout.stats,
    }
    rows = {
        kind: {item.name: row for row, item in enumerate(table)}
        for kind, table in tables.items()
    }
    for channel in channels:
        at = layout.channels.index(channel["name"])
        bins = slice(layout.edges[at], layout.edges[at + 1])
        for sample in channel["samples"]:
            place = layout.samples.index(sample["name"])
            yield "nominal", (place, bins), sample, "data"
            for modifier in sample.get("modifiers", ()):
                kind, data = modifier["type"], modifier.get("data")
                row = rows.get(kind, {}).get(modifier["name"])
                if kind == "histosys":
                    yield "shape_up", (row, place, bins), data, "hi_data"
                    yield "shape_down", (row, place, bins), data, "lo_data"
                elif kind == "normsys":
                    yield "norm_up", (row, place, at), data, "hi"
                    yield "norm_down", (row, place, at), data, "lo"
                elif kind == "shapesys":
                    yield "poisson_error", (row, place, bins), modifier, "data"
                elif kind == "staterror":
                    yield "stat_error", (row, place, bins), modifier, "data"


def _fill(channels: list[Any], layout: Layout) -> dict[str, np.ndarray]:
    grid = (len(layout.samples), layout.bins)
    pairs = (len(layout.samples), len(layout.channels))
    arrays = {
        "nominal": np.zeros(grid),
        "shape_up": np.zeros((len(layout.shapes), *grid)),
        "shape_down": np.zeros((len(layout.shapes), *grid)),
        "norm_up": np.ones((len(layout.norms), *pairs)),
        "norm_down": np.ones((len(layout.norms), *pairs)),
        "poisson_error": np.zeros((len(layout.poissons), *grid)),
        "stat_error": np.zeros((len(layout.stats), *grid)),
    }
    for name, index, container, key in walk_numbers(channels, layout):
        arrays[name][index] = container[key]
    return arrays
