"""What all figures share: palette, fonts, grid. No global state of matplotlib's."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, SupportsFloat

import numpy as np
from jax import Array


if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
else:
    # matplotlib is an optional extra: the run-time type check must not need it.
    Axes = Figure = Any

AnyArray = np.ndarray | Array
# One number per step, from a list as much as from an array.
Series = Sequence[Any] | AnyArray
# Float, numpy scalar, or JAX array without axes.
Number = SupportsFloat
Measurement = tuple[Number, Number]
"""(value, standard error)."""

MINUS = "\N{MINUS SIGN}"

INK = "#22262b"
MUTED = "#6b7280"
GRID = "#e4e7eb"
BEFORE = "#8a929c"
AFTER = "#0072b2"
SIGNAL = "#d55e00"
# Okabe and Ito, https://jfly.uni-koeln.de/color: distinct with every colour blindness.
CYCLE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#a88a00")
BLUES = ("#cfdde8", "#8fb4d0", "#3f7fae", "#1d4e74", "#0b2a44")


def new_figure(width: float, height: float) -> Figure:
    """An empty white figure that lays its axes out itself.

    Args:
        width: Width, in inches.
        height: Height, in inches.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure as MatplotlibFigure  # noqa: PLC0415
    except ImportError as error:
        raise ImportError(
            "Figures need matplotlib, which is not installed; "
            "run `pip install 'diffhep[plot]'`."
        ) from error
    return MatplotlibFigure(
        figsize=(width, height), dpi=150, facecolor="white", layout="constrained"
    )


def dress(
    axes: Axes, *, title: str = "", x: str = "", y: str = "", grid: str = "both"
) -> None:
    """Give axes their labels, fonts, grid and spines.

    Args:
        axes: What to dress.
        title: Title, at the left.
        x: Label of the horizontal axis, with the unit.
        y: Label of the vertical axis, with the unit.
        grid: `both`, `x`, `y`, or empty for none.
    """
    axes.set_title(title, loc="left", fontsize=11, color=INK, fontweight="bold")
    axes.set_xlabel(x, fontsize=10.5, color=INK)
    axes.set_ylabel(y, fontsize=10.5, color=INK)
    axes.tick_params(which="both", labelsize=9.5, color=MUTED, labelcolor=INK)
    axes.set_axisbelow(True)
    if grid:
        axes.grid(visible=True, axis=grid, color=GRID, linewidth=0.8)  # pyright: ignore[reportArgumentType]
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(MUTED)


def legend(axes: Axes, **options: Any) -> None:
    """Add a legend without a frame.

    Args:
        axes: Where.
        **options: As of `Axes.legend`.
    """
    defaults = {"frameon": False, "fontsize": 9, "labelcolor": INK}
    axes.legend(**(defaults | options))


def patch(kind: str, *arguments: Any, **options: Any) -> Any:
    """A shape to add to axes.

    Args:
        kind: Name of the class in `matplotlib.patches`.
        *arguments: As of that class.
        **options: As of that class.

    Returns:
        The patch.
    """
    from matplotlib import patches  # noqa: PLC0415

    return getattr(patches, kind)(*arguments, **options)


def with_error(value: float, error: float) -> str:
    """A value and its error, with two significant digits of the error.

    Args:
        value: The value.
        error: Its standard error.

    Returns:
        For instance `0.981 ± 0.014`.
    """
    if not (np.isfinite(error) and error > 0):
        text = f"{value:.4g}"
    else:
        digits = max(0, 1 - int(np.floor(np.log10(error))))
        text = f"{value:.{digits}f} ± {error:.{digits}f}"
    return text.replace("-", MINUS)
