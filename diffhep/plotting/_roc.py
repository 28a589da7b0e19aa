from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from ._style import CYCLE, AnyArray, Figure, dress, legend, new_figure


def roc_points(
    signal: Float[AnyArray, " signal"],
    background: Float[AnyArray, " background"],
    *,
    signal_weight: Float[AnyArray, " signal"] | None = None,
    background_weight: Float[AnyArray, " background"] | None = None,
) -> tuple[Float[np.ndarray, " points"], Float[np.ndarray, " points"], float]:
    """Efficiencies at every threshold, and the area under the curve.

    Equal scores are passed together, so that ties count one half in the area.

    Args:
        signal: Scores of the signal; those that are not finite are left out.
        background: Scores of the background.
        signal_weight: Weights of the signal; one each, if `None`.
        background_weight: Weights of the background.

    Returns:
        Efficiencies of the signal and of the background from 0 to 1, and the area.

    Raises:
        ValueError: One of the two has no finite score.
    """
    scores, shares = [], []
    for name, score, weight in (
        ("signal", signal, signal_weight),
        ("background", background, background_weight),
    ):
        values = np.asarray(score, float)
        weights = np.ones_like(values) if weight is None else np.asarray(weight, float)
        good = np.isfinite(values) & np.isfinite(weights)
        if not good.any():
            raise ValueError(
                f"No score of the {name} is finite: a ROC curve needs events of both "
                "kinds."
            )
        scores.append(values[good])
        shares.append(weights[good] / weights[good].sum())
    thresholds = np.unique(np.concatenate(scores))[::-1]
    curves = []
    for values, weights in zip(scores, shares, strict=True):
        order = np.argsort(-values)
        cumulative = np.concatenate([[0.0], np.cumsum(weights[order])])
        passed = np.searchsorted(-values[order], -thresholds, side="right")
        curves.append(np.concatenate([[0.0], cumulative[passed]]))
    area = float(np.trapezoid(curves[0], curves[1]))
    return curves[0], curves[1], area


def roc_curve(
    scores: Mapping[str, tuple[AnyArray, AnyArray]], *, title: str = ""
) -> Figure:
    """Rejection of the background against efficiency of the signal.

    Args:
        scores: From a name to the scores of signal and of background.
        title: What to write above.

    Returns:
        A matplotlib figure with the areas in its legend.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: A sample has no finite score.
    """
    figure = new_figure(5.8, 4.6)
    axes = figure.subplots()
    for which, (name, (signal, background)) in enumerate(scores.items()):
        efficiency, accepted, area = roc_points(signal, background)
        # Below five events of background the curve is noise.
        fewest = 5 / max(np.isfinite(np.asarray(background, float)).sum(), 1)
        shown = (accepted >= fewest) & (efficiency > 0)
        axes.plot(
            efficiency[shown],
            1 / accepted[shown],
            color=CYCLE[which % len(CYCLE)],
            lw=1.8,
            label=f"{name} (area {area:.3f})",
        )
    x = np.linspace(0.01, 1, 100)
    axes.plot(x, 1 / x, color="#9aa3ad", lw=1.1, ls=(0, (4, 3)), label="no information")
    axes.set_yscale("log")
    axes.set(xlim=(0, 1.01), ylim=(0.9, None))
    dress(axes, title=title, x="signal efficiency", y="background rejection, 1 / ε")
    legend(axes, loc="upper right")
    return figure
