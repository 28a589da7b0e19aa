from collections.abc import Mapping

import numpy as np

from ._style import AFTER, INK, SIGNAL, Axes, Figure, Series, dress, new_figure


_CURVES = {
    "objective": ("Training objective", "objective", INK),
    "sigma_mu": ("Expected uncertainty on μ", r"$\sigma(\mu)$", AFTER),
    "price": ("Price of the detector", "price [relative units]", SIGNAL),
}


def loss_curve(history: Mapping[str, Series], *, title: str = "") -> Figure:
    """How the training went: objective, expected uncertainty and price by step.

    Args:
        history: `step` and one or more of `objective`, `sigma_mu` and `price`, each
            with one number per step; `objective_error`, `sigma_mu_error` and
            `price_error` add bands of one standard error.
        title: What to write above.

    Returns:
        A matplotlib figure.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: A key is unknown or missing, or lengths differ.
    """
    step, curves = _check_history(history)
    figure = new_figure(4.6 * len(curves), 3.6)
    if title:
        figure.suptitle(title, fontsize=13, color=INK, fontweight="bold")
    panels = np.atleast_1d(figure.subplots(1, len(curves)))
    for axes, name in zip(panels, curves, strict=True):
        heading, label, colour = _CURVES[name]
        error = history.get(f"{name}_error")
        _draw_curve(axes, step, np.asarray(history[name], float), error, colour)
        dress(axes, title=heading, x="optimisation step", y=label)
    return figure


def _check_history(
    history: Mapping[str, Series],
) -> tuple[np.ndarray, list[str]]:
    known = {"step", *_CURVES, *(f"{name}_error" for name in _CURVES)}
    if unknown := sorted(set(history) - known):
        raise ValueError(
            f"The history has a key {unknown[0]!r} that no curve shows; "
            f"the keys are {sorted(known)}."
        )
    curves = [name for name in _CURVES if name in history]
    if "step" not in history or not curves:
        raise ValueError(
            "A loss curve needs `step` and at least one of `objective`, `sigma_mu` and "
            f"`price` in the history, and {sorted(history)} came."
        )
    step = np.asarray(history["step"], float)
    for name, values in history.items():
        if np.shape(values) != step.shape:
            raise ValueError(
                f"The history has {step.size} steps, and `{name}` has the shape "
                f"{np.shape(values)}: give one number per step."
            )
    return step, curves


def _draw_curve(
    axes: Axes,
    step: np.ndarray,
    values: np.ndarray,
    error: Series | None,
    colour: str,
) -> None:
    finite = np.isfinite(values)
    if error is not None:
        spread = np.where(np.isfinite(np.asarray(error, float)), error, 0.0)
        low, high = (values - spread)[finite], (values + spread)[finite]
        axes.fill_between(step[finite], low, high, color=colour, alpha=0.16, lw=0)
    axes.plot(step[finite], values[finite], color=colour, lw=1.6)
    for which in (0, -1):
        x, y = step[finite][which], values[finite][which]
        axes.plot(x, y, "o", color=colour, ms=5, mec="white", zorder=4)
        axes.annotate(
            f"{y:.4g}",
            (x, y),
            xytext=(6 if which == 0 else -6, 9),
            textcoords="offset points",
            ha="left" if which == 0 else "right",
            fontsize=9,
            color=colour,
            fontweight="bold",
        )
    axes.margins(y=0.18)
