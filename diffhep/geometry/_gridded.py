from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ._field import AbstractField
from ._interpolation import (
    AbstractInterpolation,
    AbstractOutside,
    NearestOutside,
    Tricubic,
)


class GriddedField(AbstractField):
    """A map on a regular grid, as measured or computed.

    Differentiable in the values, the position, the origin and the spacing. The field
    between the nodes is `interpolation`, the field beyond them `outside`.
    """

    values: Float[Array, "nx ny nz 3"]
    """The field (Bx, By, Bz) at each node, in T."""
    origin: Float[Array, " 3"]
    """Position of the first node (x, y, z), in mm."""
    spacing: Float[Array, " 3"]
    """Distance between neighbours along each axis, in mm, positive."""
    interpolation: AbstractInterpolation = Tricubic()
    """What happens between the nodes."""
    outside: AbstractOutside = NearestOutside()
    """What happens beyond them."""

    def __check_init__(self) -> None:
        """Too small a grid is an error."""
        least = self.interpolation.taps
        if min(self.values.shape[:3]) < least:
            raise ValueError(
                f"The grid has {self.values.shape[:3]} nodes, but "
                f"{type(self.interpolation).__name__} needs at least {least} along "
                "each axis; give more, or use `Trilinear()`."
            )

    def __call__(self, position: Float[Array, " 3"]) -> Float[Array, " 3"]:
        """The field at a point."""
        nodes = self.values.shape[:3]
        last = jnp.asarray(nodes, position.dtype) - 1
        coordinates = (position - self.origin) / self.spacing
        inside = jnp.all((coordinates >= 0) & (coordinates <= last))
        coordinates = jnp.clip(coordinates, 0, last)
        rules = [
            self.interpolation.weights(coordinate, size)
            for coordinate, size in zip(coordinates, nodes, strict=True)
        ]
        start = [first for first, _ in rules]
        taps = (self.interpolation.taps,) * 3
        value = jax.lax.dynamic_slice(
            self.values, (*start, jnp.zeros_like(start[0])), (*taps, 3)
        )
        for _, weights in rules:
            # One axis less each time.
            shape = (weights.shape[0],) + (1,) * (value.ndim - 1)
            value = jnp.sum(value * jnp.reshape(weights, shape), axis=0)
        return self.outside(value, inside)


def gridded_field(
    axes: Sequence[Float[np.ndarray, " _"]],
    values: Float[np.ndarray, "_ _ _ _"],
    *,
    interpolation: AbstractInterpolation | None = None,
    outside: AbstractOutside | None = None,
) -> GriddedField:
    """A map from arrays, checked.

    Args:
        axes: The coordinates of the nodes along x, y and z, in mm: three increasing,
            equally spaced lists.
        values: The field (Bx, By, Bz) at each node, in T, of shape (nx, ny, nz, 3).
        interpolation: What happens between the nodes; by default `Tricubic()`.
        outside: What happens beyond them; by default `NearestOutside()`.

    Returns:
        The field.

    Raises:
        ValueError: An axis is not regular, the shapes do not fit, or a value is not
            finite.
    """
    if len(axes) != 3:
        raise ValueError(f"`axes` has {len(axes)} entries; give those of x, y and z.")
    for name, axis in zip("xyz", axes, strict=True):
        steps = np.diff(axis)
        if axis.size < 2 or not np.all(steps > 0):
            raise ValueError(
                f"The nodes along {name} are {axis}; list at least 2 coordinates in "
                "increasing order."
            )
        if np.ptp(steps) > 1e-6 * np.mean(steps):
            raise ValueError(
                f"The nodes along {name} lie {np.min(steps):g} to {np.max(steps):g} mm "
                "apart; resample the map on a regular grid."
            )
    expected = (*(axis.size for axis in axes), 3)
    if values.shape != expected:
        raise ValueError(
            f"`values` has the shape {values.shape}, but the axes make {expected}; "
            "order it as x, y, z, component."
        )
    if not np.all(np.isfinite(values)):
        raise ValueError(
            f"{np.sum(~np.isfinite(values))} numbers of the map are not finite; fill "
            "the holes first."
        )
    spacing = [(axis[-1] - axis[0]) / (axis.size - 1) for axis in axes]
    return GriddedField(
        values=jnp.asarray(values, float),
        origin=jnp.asarray([axis[0] for axis in axes], float),
        spacing=jnp.asarray(spacing, float),
        interpolation=Tricubic() if interpolation is None else interpolation,
        outside=NearestOutside() if outside is None else outside,
    )


def sample_field(
    field: AbstractField,
    *,
    low: Sequence[float],
    high: Sequence[float],
    nodes: Sequence[int],
    interpolation: AbstractInterpolation | None = None,
    outside: AbstractOutside | None = None,
) -> GriddedField:
    """A map of another field. Differentiable in that field's parameters.

    Args:
        field: The field to tabulate.
        low: Corner of the grid (x, y, z), in mm.
        high: The opposite corner, in mm; larger in each coordinate.
        nodes: Number of nodes along x, y and z, at least 2.
        interpolation: What happens between the nodes; by default `Tricubic()`.
        outside: What happens beyond them; by default `NearestOutside()`.

    Returns:
        The map.

    Raises:
        ValueError: A list has not 3 entries, or a number lies outside its range.
    """
    for name, values in {"low": low, "high": high, "nodes": nodes}.items():
        if len(values) != 3:
            raise ValueError(
                f"`{name}` has {len(values)} entries; give one for x, y and z each."
            )
    if min(nodes) < 2 or not all(a < b for a, b in zip(low, high, strict=True)):
        raise ValueError(
            f"A grid from {list(low)} to {list(high)} mm with {list(nodes)} nodes is "
            "empty; `high` must exceed `low`, with 2 nodes or more."
        )
    lists = [jnp.linspace(*ends) for ends in zip(low, high, nodes, strict=True)]
    mesh = jnp.stack(jnp.meshgrid(*lists, indexing="ij"), axis=-1)
    # In batches: the intermediate results of a large map would not fit.
    points = jnp.reshape(mesh, (-1, 3))
    values = jax.lax.map(field, points, batch_size=4096)
    return GriddedField(
        values=jnp.reshape(values, mesh.shape),
        origin=jnp.stack([axis[0] for axis in lists]),
        spacing=jnp.stack([axis[1] - axis[0] for axis in lists]),
        interpolation=Tricubic() if interpolation is None else interpolation,
        outside=NearestOutside() if outside is None else outside,
    )
