from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

from ._moments import live_values, moments
from ._style import (
    AFTER,
    INK,
    SIGNAL,
    AnyArray,
    Axes,
    Figure,
    dress,
    legend,
    new_figure,
    with_error,
)


TRACK_PULLS = ("$d_0$", "$z_0$", r"$\phi$", r"$\theta$", "$q/p$")
VERTEX_PULLS = ("$x$", "$y$", "$z$")


def pull_plot(
    pulls: Float[AnyArray, "*batch quantities"],
    *,
    names: Sequence[str] = TRACK_PULLS,
    mask: Bool[AnyArray, "*batch"] | None = None,
    title: str = "",
) -> Figure:
    """Histograms of pulls over the unit Gaussian, with mean and width in figures.

    Args:
        pulls: (fit - truth) / error of each quantity, of one event or of a batch.
        names: Names of the quantities, `TRACK_PULLS` or `VERTEX_PULLS` for instance.
        mask: Which tracks or vertices are alive; all, if `None`.
        title: What to write above.

    Returns:
        A matplotlib figure.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: The number of names differs, or a quantity has no values.
    """
    if pulls.shape[-1] != len(names):
        raise ValueError(
            f"There are {pulls.shape[-1]} quantities on the last axis of `pulls` and "
            f"{len(names)} names: give one name each."
        )
    figure = new_figure(2.75 * len(names) + 0.5, 3.3)
    if title:
        figure.suptitle(title, fontsize=13, color=INK, fontweight="bold")
    panels = figure.subplots(1, len(names), sharey=True)
    columns = zip(np.atleast_1d(panels), names, strict=True)
    highest = [
        _draw_pull(axes, live_values(pulls[..., column], mask), name)
        for column, (axes, name) in enumerate(columns)
    ]
    first, last = np.atleast_1d(panels)[[0, -1]]
    first.set_ylabel("entries / total / width of bin", fontsize=10)
    first.set_ylim(0, max(0.52, 1.12 * max(highest)))
    legend(last, loc="upper right", handlelength=1.2)
    return figure


def _draw_pull(axes: Axes, values: np.ndarray, name: str) -> float:
    mean, mean_error, width, width_error = moments(values)
    num_bins = int(np.clip(1.2 * np.sqrt(values.size), 12, 45))
    edges = np.linspace(-4.5, 4.5, num_bins + 1)
    counts, _ = np.histogram(values, edges)
    density = counts / (np.isfinite(values).sum() * np.diff(edges))
    axes.stairs(density, edges, fill=True, color=AFTER, alpha=0.35)
    axes.stairs(density, edges, color=AFTER, lw=1.1)
    x = np.linspace(-4.5, 4.5, 181)
    gauss = np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi)
    axes.plot(x, gauss, color=SIGNAL, lw=1.6, label="unit\nGaussian")
    outside = np.mean(np.abs(values[np.isfinite(values)]) > 4.5)
    lines = [
        f"mean {with_error(mean, mean_error)}",
        f"width {with_error(width, width_error)}",
    ]
    if outside > 0:
        lines.append(f"{100 * outside:.2g} % outside")
    title = "\n".join([name, *lines])
    dress(axes, x=f"pull of {name}")
    axes.set_title(title, loc="left", fontsize=9.5, color=INK)
    axes.set_xlim(-4.5, 4.5)
    return float(density.max())
