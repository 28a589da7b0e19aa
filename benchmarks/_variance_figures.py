"""The figure of the benchmark `variance`: its table of noise against sharpness."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure


# Okabe and Ito's colours, and markers besides: legible with every colour blindness.
STYLES = {
    "raw": ("plain score", "#d55e00", "s"),
    "batch": ("batch baseline", "#e69f00", "^"),
    "leave-one-out": ("leave-one-out baseline", "#0072b2", "o"),
    "finite differences": ("finite differences, common random numbers", "#009e73", "D"),
}
NAMES = {"all": "all pairs", "nearest": "nearest neighbours"}


def draw(
    folder: Path, found: dict[str, dict[str, dict[str, dict[str, float]]]]
) -> None:
    """Write the figure.

    Args:
        folder: Where to.
        found: By candidates, sharpness and estimator, what the benchmark records.
    """
    figure = Figure(figsize=(11, 4.4), layout="constrained")
    panels: Any = figure.subplots(1, len(found), sharey=True, squeeze=False)[0]
    for axes, (name, by_sharpness) in zip(panels, found.items(), strict=True):
        sharpness = [float(x) for x in by_sharpness]
        for estimator, (label, colour, marker) in STYLES.items():
            noise = [x[estimator]["deviation"] for x in by_sharpness.values()]
            style = {"color": colour, "marker": marker, "ms": 6, "lw": 1.6}
            axes.loglog(sharpness, noise, label=label, **style)
        axes.set_title(f"candidates: {NAMES.get(name, name)}", fontsize=11, loc="left")
        axes.set_xlabel("sharpness α (no unit)")
        axes.set_xticks(sharpness, [f"{x:g}" for x in sharpness])
        axes.minorticks_off()
        axes.grid(visible=True, color="#e4e7eb", lw=0.8)
        axes.spines[["top", "right"]].set_visible(False)
    ticks = np.array([300, 1000, 3000, 10_000, 30_000])
    panels[0].set_yticks(ticks, [f"{x:,}" for x in ticks])
    panels[0].set_ylabel("standard deviation per history\nof d E[m_jj] / dR  [GeV]")
    handles, labels = panels[0].get_legend_handles_labels()
    place = {"loc": "outside lower center", "ncols": 4, "frameon": False}
    figure.legend(handles, labels, **place)
    figure.savefig(folder / "variance.svg", metadata={"Date": None})
