"""Whether a learnt density ratio is right: the figures of `inference`'s diagnostics."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from ..inference import Calibration, Closure, ProfileScan
from ._style import CYCLE, INK, MUTED, AnyArray, Figure, dress, legend, new_figure


def calibration_plot(
    curves: Mapping[str, Calibration], *, title: str = "", label: str = "label 1"
) -> Figure:
    """How often a classifier is right, against what it says.

    Args:
        curves: From a name to its curve.
        title: What to write above.
        label: What the class with label 1 is.

    Returns:
        A matplotlib figure. Bins without entries are left out.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: There is no curve.
    """
    _require(curves, "curves")
    figure = new_figure(5.2, 4.6)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=MUTED, lw=1.1, ls=(0, (4, 3)), label="calibrated")
    for which, (name, curve) in enumerate(curves.items()):
        predicted, observed, error = (np.asarray(x, float) for x in curve)
        some = np.isfinite(predicted) & np.isfinite(observed)
        axes.errorbar(
            predicted[some],
            observed[some],
            error[some],
            color=CYCLE[which % len(CYCLE)],
            fmt="o",
            ms=4,
            lw=1.2,
            label=name,
        )
    axes.set(xlim=(0, 1), ylim=(0, 1))
    dress(axes, title=title, x="output s of the classifier", y=f"share with {label}")
    legend(axes, loc="upper left")
    return figure


def closure_plot(
    closures: Mapping[str, Closure],
    edges: Mapping[str, Float[AnyArray, " edges"]],
    *,
    names: tuple[str, str] = ("reweighted", "target"),
    title: str = "",
) -> Figure:
    """Reweighted histograms over those that they should be, with pulls below.

    That of `overtraining` as well: its two classes in place of features, the training's
    events in place of reweighted ones.

    Args:
        closures: From a feature to its comparison.
        edges: From a feature to the edges of its bins.
        names: What the two histograms are called.
        title: What to write above.

    Returns:
        A matplotlib figure with a panel for each feature.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: There is no comparison, or edges do not fit.
    """
    _require(closures, "closures")
    for feature, found in closures.items():
        wanted = np.shape(found.target)[0] + 1
        if feature not in edges or np.shape(edges[feature]) != (wanted,):
            got = np.shape(edges[feature]) if feature in edges else "nothing"
            raise ValueError(
                f"{feature!r} has {wanted - 1} bins, but its edges are of shape {got}; "
                f"give the {wanted} edges of its bins."
            )
    figure = new_figure(4.4 * len(closures), 4.4)
    upper, lower = figure.subplots(
        2, len(closures), squeeze=False, height_ratios=(3, 1), sharex="col"
    )
    for column, (feature, found) in enumerate(closures.items()):
        ours, theirs, error = (np.asarray(x, float) for x in found[:3])
        limits = np.asarray(edges[feature], float)
        top, bottom = upper[column], lower[column]
        top.stairs(theirs, limits, color=INK, lw=1.4, label=names[1])
        middle = (limits[1:] + limits[:-1]) / 2
        top.errorbar(
            middle, ours, error, color=CYCLE[0], fmt="o", ms=3.5, lw=1.1, label=names[0]
        )
        number = int(np.sum(error > 0))
        heading = f"χ² = {float(found.chi2):.1f} / {number}"
        dress(top, title=f"{title} {heading}".strip(), y="share of events")
        legend(top)
        some = error > 0
        pull = (ours - theirs)[some] / error[some]
        bottom.axhline(0.0, color=MUTED, lw=1.0)
        bottom.plot(middle[some], pull, "o", color=CYCLE[0], ms=3.5)
        reach = max(3.5, 1.15 * float(np.max(np.abs(pull), initial=0.0)))
        bottom.set_ylim(-reach, reach)
        dress(bottom, x=feature, y="pull")
    return figure


def profile_scan_plot(
    scans: Mapping[str, ProfileScan],
    *,
    truth: float | None = None,
    highest: float = 9.0,
    title: str = "",
) -> Figure:
    """Profile likelihoods along the strength of the signal.

    Args:
        scans: From a name to its scan.
        truth: Strength that the data were simulated with.
        highest: Highest deviance that is shown.
        title: What to write above.

    Returns:
        A matplotlib figure, with lines at one and two standard deviations.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: There is no scan.
    """
    _require(scans, "scans")
    figure = new_figure(5.6, 4.4)
    axes = figure.subplots()
    for which, (name, scan) in enumerate(scans.items()):
        color = CYCLE[which % len(CYCLE)]
        strength, rise = (np.asarray(x, float) for x in (scan.strength, scan.deviance))
        axes.plot(strength, rise, color=color, lw=1.8, label=name)
        axes.plot(float(scan.best), 0.0, "o", color=color, ms=5, clip_on=False)
    for level in (1.0, 4.0):
        axes.axhline(level, color=MUTED, lw=1.0, ls=(0, (4, 3)))
    if truth is not None:
        axes.axvline(truth, color=INK, lw=1.0, label="truth")
    axes.set_ylim(0.0, highest)
    dress(axes, title=title, x="signal strength μ", y="−2 Δ log L")
    legend(axes)
    return figure


def _require(items: Mapping, name: str) -> None:
    if not items:
        raise ValueError(f"`{name}` is empty: give at least one to draw.")
