import itertools
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from ._resolution import plain_ticks
from ._style import CYCLE, INK, AnyArray, Figure, dress, legend, new_figure


_FEWEST = 20


def flight_resolution(
    flights: Float[AnyArray, "jets 3"],
    fitted: Mapping[str, Float[AnyArray, "jets 3"]],
    *,
    edges: Float[AnyArray, " edges"],
    title: str = "",
) -> Figure:
    """Distance of fitted vertices from the true decays, against the decay length.

    For each fit the median, with its standard error, and the band that holds the
    central 68 % of the vertices. Bins of fewer than 20 vertices are left out.

    Args:
        flights: True flights, in mm.
        fitted: By name, the fitted flights of the same jets, in mm.
        edges: Edges of the bins in the length of the true flight, in mm.
        title: What to write above.

    Returns:
        A matplotlib figure.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: There are more fits than colours, or none.
    """
    if not 0 < len(fitted) <= len(CYCLE):
        raise ValueError(
            f"There are {len(fitted)} fits to draw; give 1 to {len(CYCLE)}."
        )
    true, edges = np.asarray(flights, float), np.asarray(edges, float)
    length = np.linalg.norm(true, axis=1)
    figure = new_figure(7.2, 4.6)
    if title:
        figure.suptitle(title, fontsize=13, color=INK, fontweight="bold")
    axes = figure.subplots()
    centre = np.sqrt(edges[:-1] * edges[1:])
    for colour, (name, values) in zip(CYCLE, fitted.items(), strict=False):
        error = np.linalg.norm(np.asarray(values, float) - true, axis=1)
        low, middle, high, spread = binned_quantiles(length, error, edges).T
        axes.errorbar(centre, middle, spread, fmt="o-", color=colour, ms=4, label=name)
        axes.fill_between(centre, low, high, color=colour, alpha=0.12, lw=0)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(edges[0], edges[-1])
    plain_ticks(axes)
    dress(axes, x="true decay length [mm]", y="distance from the true decay [mm]")
    legend(axes)
    return figure


def binned_quantiles(
    position: Float[np.ndarray, " values"],
    size: Float[np.ndarray, " values"],
    edges: Float[np.ndarray, " edges"],
) -> Float[np.ndarray, "bins 4"]:
    """Quantiles 0.16, 0.5 and 0.84 in bins, and the standard error of the median.

    The error is half the distance of the quantiles that lie one standard deviation of
    a binomial count above and below.

    Args:
        position: What to bin in.
        size: The values.
        edges: Edges of the bins.

    Returns:
        Four numbers for each bin; NaN with fewer than 20 entries.
    """
    rows = []
    for low, high in itertools.pairwise(edges):
        chosen = size[(position >= low) & (position < high) & np.isfinite(size)]
        if len(chosen) < _FEWEST:
            rows.append((np.nan,) * 4)
            continue
        step = 0.5 / np.sqrt(len(chosen))
        levels = (0.16, 0.5, 0.84, 0.5 + step, 0.5 - step)
        *three, above, below = np.quantile(chosen, levels)
        rows.append((*three, (above - below) / 2))
    return np.array(rows)
