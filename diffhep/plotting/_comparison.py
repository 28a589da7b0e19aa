from collections.abc import Mapping

import numpy as np

from ._style import (
    AFTER,
    BEFORE,
    INK,
    MINUS,
    MUTED,
    Axes,
    Figure,
    Measurement,
    dress,
    new_figure,
    with_error,
)


def sigma_comparison(
    rows: Mapping[str, tuple[Measurement, Measurement]],
    *,
    label: str = r"expected uncertainty $\sigma(\mu)$",
    title: str = "",
) -> Figure:
    """The result before and after, as dots with error bars, one row per evaluation.

    Args:
        rows: From a name ("held out, hard cuts") to (before, after), each of which is
            (value, standard error).
        label: Label of the horizontal axis.
        title: What to write above.

    Returns:
        A matplotlib figure.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: There are no rows.
    """
    if not rows:
        raise ValueError("There is nothing to compare: give at least one row.")
    figure = new_figure(9.6, 1.5 + 0.75 * len(rows))
    axes = figure.subplots()
    for position, (before, after) in enumerate(rows.values()):
        _draw_row(axes, position, before, after)
    axes.set_yticks(range(len(rows)), labels=list(rows))
    axes.set_ylim(len(rows) - 0.5, -0.55)
    dress(axes, title=title, x=label, grid="x")
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0, labelsize=10.5)
    axes.margins(x=0.12)
    for name, colour, marker in (("before", BEFORE, "o"), ("after", AFTER, "D")):
        axes.plot([], [], marker, color=colour, ms=7, label=name)
    axes.legend(
        loc="lower right",
        bbox_to_anchor=(1.0, 1.0),
        ncols=2,
        frameon=False,
        fontsize=10,
        labelcolor=INK,
    )
    return figure


def _draw_row(
    axes: Axes, position: int, before: Measurement, after: Measurement
) -> None:
    old, new = (tuple(float(number) for number in pair) for pair in (before, after))
    arrow = {"arrowstyle": "-|>", "color": "#c3c9d0", "lw": 1.6, "shrinkA": 6}
    axes.annotate(
        "",
        xy=(new[0], position),
        xytext=(old[0], position),
        arrowprops=arrow | {"shrinkB": 6},
        zorder=1,
    )
    # One number below and one above: they stay apart where the two agree.
    for (value, error), colour, marker, offset in (
        (old, BEFORE, "o", -17),
        (new, AFTER, "D", 9),
    ):
        options = {"fmt": marker, "color": colour, "ms": 7, "lw": 1.8, "capsize": 3}
        axes.errorbar([value], [position], xerr=[error], zorder=3, **options)
        axes.annotate(
            with_error(value, error),
            (value, position),
            xytext=(0, offset),
            textcoords="offset points",
            ha="center",
            fontsize=9,
            color=INK if colour == AFTER else MUTED,
        )
    change = 100 * (new[0] / old[0] - 1) if old[0] else np.nan
    axes.annotate(
        f"{change:+.1f} %".replace("-", MINUS),
        (1.01, position),
        xycoords=("axes fraction", "data"),
        va="center",
        fontsize=10.5,
        fontweight="bold",
        color=AFTER if change < 0 else MUTED,
        annotation_clip=False,
    )
