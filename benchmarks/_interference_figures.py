"""The figure of the benchmark `interference`: one toy's curves, and the widths."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure


# Okabe and Ito's colours, and dashes besides: legible with every colour blindness.
STYLES = {
    "exact": ("#22262b", "-"),
    "learnt, unbinned": ("#d55e00", "--"),
    "1-D, m": ("#56b4e9", ":"),
    "1-D, cos": ("#009e73", "-."),
    "1-D, learnt score": ("#cc79a7", (0, (5, 1, 1, 1))),
    "2-D": ("#0072b2", (0, (3, 1))),
}
_TITLE = {"loc": "left", "fontsize": 11}


def draw(folder: Path, shown: dict[str, Any]) -> None:
    """Write the figure.

    Args:
        folder: Where to.
        shown: What a seed records for it: strengths and deviances of one toy, and
            histograms of the widths, by method.
    """
    figure = Figure(figsize=(11, 4.4), layout="constrained")
    panels: Any = figure.subplots(1, 2)
    left, right = panels
    edges = np.asarray(shown["edges"])
    for name, (colour, dashes) in STYLES.items():
        style = {"color": colour, "ls": dashes, "lw": 1.6}
        deviance = np.asarray(shown["deviances"][name], float)
        left.plot(shown["strengths"], deviance, label=name, **style)
        right.stairs(shown["widths"][name], edges, **style)
    left.axhline(1.0, color="#9aa1a9", lw=0.8)
    left.set(xlabel="signal strength μ", ylabel="−2 Δ ln L, profiled", ylim=(0, 6))
    left.set_title("One toy of seed 0: μ = 1, α profiled", **_TITLE)
    right.set(xlabel="width of the 68 % interval of μ", ylabel="toys")
    right.set_title("All toys of seed 0, likewise", **_TITLE)
    for axes in panels:
        axes.grid(visible=True, color="#e4e7eb", lw=0.8)
        axes.spines[["top", "right"]].set_visible(False)
    handles, labels = left.get_legend_handles_labels()
    place = {"loc": "outside lower center", "ncols": 6, "frameon": False}
    figure.legend(handles, labels, **place)
    figure.savefig(folder / "intervals.svg", metadata={"Date": None})
