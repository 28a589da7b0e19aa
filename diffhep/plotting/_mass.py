from collections.abc import Mapping

import numpy as np

from ._style import CYCLE, INK, AnyArray, Figure, dress, legend, new_figure


def mass_distribution(
    samples: Mapping[str, tuple[AnyArray, AnyArray]],
    edges: AnyArray,
    *,
    label: str = r"$m_{jj}$ [GeV]",
    title: str = "",
) -> Figure:
    """Shapes of a mass, or of any other quantity, each of unit area.

    Args:
        samples: From a name to values and weights; values that are not finite are left
            out.
        edges: Edges of the bins, in the unit of the values.
        label: Label of the horizontal axis, with the unit.
        title: What to write above.

    Returns:
        A matplotlib figure.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: There is no sample.
    """
    if not samples:
        raise ValueError("There is no sample to show: give at least one.")
    figure = new_figure(6.6, 4.2)
    axes = figure.subplots()
    bins = np.asarray(edges, float)
    for which, (name, (values, weights)) in enumerate(samples.items()):
        value, weight = np.asarray(values, float), np.asarray(weights, float)
        good = np.isfinite(value) & np.isfinite(weight)
        counts, _ = np.histogram(value[good], bins, weights=weight[good])
        squares, _ = np.histogram(value[good], bins, weights=weight[good] ** 2)
        norm = max(weight[good].sum(), np.finfo(float).tiny) * np.diff(bins)
        density, error = counts / norm, np.sqrt(squares) / norm
        colour = CYCLE[which % len(CYCLE)]
        axes.stairs(density, bins, color=colour, lw=1.8, label=name)
        options = {"fill": True, "color": colour, "alpha": 0.18, "lw": 0}
        axes.stairs(density + error, bins, baseline=density - error, **options)
    axes.set(xlim=(bins[0], bins[-1]), ylim=(0, None))
    dress(axes, x=label, y="density [1 / unit of the axis]")
    axes.set_title(title, loc="left", fontsize=11, color=INK, fontweight="bold")
    legend(axes)
    return figure
