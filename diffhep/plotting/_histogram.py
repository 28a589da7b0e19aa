from collections.abc import Mapping

import equinox as eqx
import numpy as np
from jaxtyping import Float

from ._style import (
    BLUES,
    INK,
    MUTED,
    SIGNAL,
    AnyArray,
    Axes,
    Figure,
    dress,
    legend,
    new_figure,
)


class RatioTemplates(eqx.Module):
    """Expected yields in bins of the density ratio, as `ratio_histogram` draws them."""

    edges: Float[AnyArray, " edges"]
    """Edges of the bins."""
    signal: Float[AnyArray, " bins"]
    """Signal at a signal strength of one, in events."""
    backgrounds: Mapping[str, Float[AnyArray, " bins"]]
    """Yield of each background process by its name, in events; the first is drawn at
    the bottom."""
    up: Float[AnyArray, " bins"] | None = None
    """Sum of the backgrounds with the jet energy scale one sigma up, in events."""
    down: Float[AnyArray, " bins"] | None = None
    """The same one sigma down."""
    hard_signal: Float[AnyArray, " bins"] | None = None
    """Signal with hard cuts and hard bins, in events."""
    hard_background: Float[AnyArray, " bins"] | None = None
    """Sum of the backgrounds with hard cuts and hard bins, in events."""

    def __check_init__(self) -> None:
        bins = (np.shape(self.edges)[0] - 1,)
        fields = {"signal": self.signal, "up": self.up, "down": self.down}
        fields |= {"hard_signal": self.hard_signal}
        fields |= {"hard_background": self.hard_background}
        for name, yields in {**fields, **self.backgrounds}.items():
            if yields is not None and np.shape(yields) != bins:
                raise ValueError(
                    f"There are {bins[0]} bins between the edges, and {name!r} has the "
                    f"shape {np.shape(yields)}: give one yield for each bin."
                )
        if not self.backgrounds:
            raise ValueError("`backgrounds` is empty: give at least one process.")


def ratio_histogram(
    templates: Mapping[str, RatioTemplates],
    *,
    label: str = r"density ratio, as $s = p_S / (p_S + p_B)$",
    title: str = "",
) -> Figure:
    """Stacked backgrounds and signal in bins of the density ratio, side by side.

    Filled areas are the soft templates, circles and diamonds the hard ones; the panels
    below show what the jet energy scale does to the background.

    Args:
        templates: From a heading (before, after) to its templates.
        label: Label of the horizontal axis.
        title: What to write above.

    Returns:
        A matplotlib figure.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: There are no templates.
    """
    if not templates:
        raise ValueError("There are no templates to show: give at least one.")
    figure = new_figure(5.4 * len(templates) + 0.4, 5.6)
    if title:
        figure.suptitle(title, fontsize=13, color=INK, fontweight="bold")
    panels = figure.subplots(
        2,
        len(templates),
        squeeze=False,
        sharey="row",
        height_ratios=(3, 1),
    )
    for (upper, lower), (name, template) in zip(
        panels.T, templates.items(), strict=True
    ):
        _draw_stack(upper, template)
        _draw_variation(lower, template)
        first = upper is panels[0, 0]
        dress(upper, title=name, y="events per bin" if first else "")
        dress(lower, x=label, y="variation /\nnominal" if first else "")
    lowest = min(_smallest(template) for template in templates.values())
    panels[0, 0].set_yscale("log")
    panels[0, 0].set_ylim(bottom=0.4 * lowest)
    panels[0, 0].margins(y=0.1)
    legend(panels[0, -1], loc="upper right", ncols=2, columnspacing=1.2)
    low, high = panels[0, 0].get_ylim()
    panels[0, 0].set_ylim(low, high * (high / low) ** 0.28)
    return figure


def _smallest(template: RatioTemplates) -> float:
    # The lowest yield worth a place on the logarithmic axis.
    yields = np.concatenate([np.asarray(template.signal, float), _total(template)])
    positive = yields[yields > 0]
    if not positive.size:
        return 1.0
    return max(float(positive.min()), 1e-4 * float(positive.max()))


def _total(template: RatioTemplates) -> np.ndarray:
    return np.sum([np.asarray(y, float) for y in template.backgrounds.values()], axis=0)


def _draw_stack(axes: Axes, template: RatioTemplates) -> None:
    edges = np.asarray(template.edges, float)
    centre = (edges[:-1] + edges[1:]) / 2
    base = np.zeros(centre.size)
    for which, (name, yields) in enumerate(template.backgrounds.items()):
        top = base + np.asarray(yields, float)
        colour = BLUES[which % len(BLUES)]
        axes.stairs(top, edges, baseline=base, fill=True, color=colour, label=name)
        base = top
    if template.up is not None and template.down is not None:
        up, down = np.asarray(template.up, float), np.asarray(template.down, float)
        axes.stairs(
            np.maximum(up, down),
            edges,
            baseline=np.minimum(up, down),
            fill=True,
            facecolor="none",
            edgecolor=MUTED,
            hatch="//////",
            lw=0,
            label=r"jet energy scale $\pm 1\sigma$",
        )
    signal = np.asarray(template.signal, float)
    axes.stairs(signal, edges, color=SIGNAL, lw=2.2, label="signal, μ = 1")
    marker = {"ls": "none", "ms": 5.5, "mec": "white", "mew": 0.7, "zorder": 5}
    if template.hard_background is not None:
        hard = np.asarray(template.hard_background, float)
        axes.plot(centre, hard, "o", color=INK, label="background, hard", **marker)
    if template.hard_signal is not None:
        hard = np.asarray(template.hard_signal, float)
        axes.plot(centre, hard, "D", color=SIGNAL, label="signal, hard", **marker)


def _draw_variation(axes: Axes, template: RatioTemplates) -> None:
    edges, total = np.asarray(template.edges, float), _total(template)
    nominal = np.where(total > 0, total, np.nan)
    axes.axhline(1.0, color=INK, lw=0.9)
    styles = (
        (template.up, "-", r"$+1\sigma$"),
        (template.down, (0, (4, 2)), r"$-1\sigma$"),
    )
    for varied, style, name in styles:
        if varied is not None:
            ratio = np.asarray(varied, float) / nominal
            options = {"ls": style, "color": BLUES[3], "lw": 1.4, "label": name}
            axes.stairs(ratio, edges, baseline=None, **options)
    if template.hard_background is not None:
        ratio = np.asarray(template.hard_background, float) / nominal
        centre = (edges[:-1] + edges[1:]) / 2
        axes.plot(centre, ratio, "o", color=INK, ms=4, mec="white", label="hard")
    axes.margins(y=0.3)
    if axes.get_legend_handles_labels()[0]:
        legend(axes, loc="best", ncols=3, fontsize=8, columnspacing=1.0)
