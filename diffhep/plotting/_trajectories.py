from collections.abc import Mapping

import numpy as np

from ._style import AFTER, BLUES, INK, Axes, Figure, Series, dress, new_figure


def parameter_trajectories(
    step: Series,
    parameters: Mapping[str, Series],
    *,
    units: Mapping[str, str] | None = None,
    title: str = "",
) -> Figure:
    """How the parameters moved during the training.

    Args:
        step: Steps of the training.
        parameters: From the name of a parameter to its values: `[steps]`, or
            `[steps, entries]` for one with an entry per layer.
        units: From the name of a parameter to its unit; none if left out.
        title: What to write above.

    Returns:
        A matplotlib figure.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: There is no parameter, or a length differs from that of `step`.
    """
    if not parameters:
        raise ValueError("There is no parameter to show: give at least one.")
    steps = np.asarray(step, float)
    num_rows = -(-len(parameters) // 4)
    num_columns = -(-len(parameters) // num_rows)
    figure = new_figure(3.9 * num_columns, 2.8 * num_rows + 0.3)
    if title:
        figure.suptitle(title, fontsize=13, color=INK, fontweight="bold")
    panels = figure.subplots(num_rows, num_columns, squeeze=False).reshape(-1)
    for axes, (name, values) in zip(panels, parameters.items(), strict=False):
        unit = (units or {}).get(name, "")
        _draw_trajectory(axes, steps, name, np.asarray(values, float))
        label = f"[{unit}]" if unit else ""
        dress(axes, title=name, x="optimisation step", y=label)
    for axes in panels[len(parameters) :]:
        axes.set_axis_off()
    return figure


def _draw_trajectory(
    axes: Axes, steps: np.ndarray, name: str, values: np.ndarray
) -> None:
    if values.shape[:1] != steps.shape or values.ndim > 2:
        raise ValueError(
            f"There are {steps.size} steps, and {name!r} has the shape {values.shape}: "
            "give [steps] or [steps, entries]."
        )
    lines = values.reshape(steps.size, -1).T
    for which, line in enumerate(lines):
        shade = 1 - which / max(len(lines) - 1, 1)
        colour = _between(BLUES[1], BLUES[4], 1 - shade) if len(lines) > 1 else AFTER
        axes.plot(steps, line, color=colour, lw=1.5)
        if len(lines) > 1:
            axes.annotate(
                f"{which + 1}",
                (steps[-1], line[-1]),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
                color=colour,
            )


def _between(first: str, second: str, share: float) -> tuple[float, ...]:
    from matplotlib.colors import to_rgb  # noqa: PLC0415

    mixed = (1 - share) * np.array(to_rgb(first)) + share * np.array(to_rgb(second))
    return tuple(float(channel) for channel in mixed)
