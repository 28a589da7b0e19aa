import itertools

import numpy as np
from jaxtyping import Bool, Float

from ._moments import live_values, moments
from ._style import AFTER, INK, AnyArray, Axes, Figure, dress, new_figure


_FEWEST = 20


def resolution_plot(
    momentum: Float[AnyArray, "*batch"],
    impact_residual: Float[AnyArray, "*batch"],
    momentum_residual: Float[AnyArray, "*batch"],
    *,
    mask: Bool[AnyArray, "*batch"] | None = None,
    edges: Float[AnyArray, " edges"] | None = None,
    title: str = "",
) -> Figure:
    """Resolution of impact parameter and of momentum against transverse momentum.

    The resolution is the standard deviation of the residuals in a bin; bins with fewer
    than 20 tracks are left out.

    Args:
        momentum: True transverse momentum, in GeV.
        impact_residual: Fitted minus true transverse impact parameter d0, in mm.
        momentum_residual: Fitted over true transverse momentum, minus one.
        mask: Which tracks are alive; all, if `None`.
        edges: Edges of the bins in transverse momentum, in GeV; ten bins of equal
            ratio over the sample, if `None`.
        title: What to write above.

    Returns:
        A matplotlib figure.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: No track is alive.
    """
    size = live_values(momentum, mask)
    if not np.isfinite(size).any():
        raise ValueError(
            "A resolution plot needs at least one track, and none is alive: "
            "check `mask`, or use more events."
        )
    if edges is None:
        low, high = np.nanpercentile(size, [0.0, 99.5])
        edges = np.geomspace(low, max(high, 1.01 * low), 11)
    edges = np.asarray(edges, float)
    figure = new_figure(10.4, 4.1)
    if title:
        figure.suptitle(title, fontsize=13, color=INK, fontweight="bold")
    left, right = figure.subplots(1, 2)
    impact = 1e3 * live_values(impact_residual, mask)
    _draw(left, size, impact, edges)
    _draw(right, size, 100 * live_values(momentum_residual, mask), edges)
    momentum_label = r"true $p_\mathrm{T}$ [GeV]"
    dress(left, title="Impact parameter", x=momentum_label, y=r"$\sigma(d_0)$ [µm]")
    ratio = r"$\sigma(p_\mathrm{T}) / p_\mathrm{T}$ [%]"
    dress(right, title="Transverse momentum", x=momentum_label, y=ratio)
    return figure


def binned_width(
    position: Float[np.ndarray, " values"],
    residual: Float[np.ndarray, " values"],
    edges: Float[np.ndarray, " edges"],
) -> Float[np.ndarray, "bins 2"]:
    """Standard deviation of residuals in bins, with its standard error.

    Args:
        position: What to bin in.
        residual: The residuals.
        edges: Edges of the bins.

    Returns:
        Width and error for each bin; NaN with fewer than 20 entries.
    """
    rows = []
    for low, high in itertools.pairwise(edges):
        chosen = residual[(position >= low) & (position < high)]
        enough = np.isfinite(chosen).sum() >= _FEWEST
        rows.append(moments(chosen)[2:] if enough else (np.nan, np.nan))
    return np.array(rows)


def _draw(
    axes: Axes, position: np.ndarray, residual: np.ndarray, edges: np.ndarray
) -> None:
    width, error = binned_width(position, residual, edges).T
    good = np.isfinite(width)
    centre = np.sqrt(edges[:-1] * edges[1:])
    spread = np.stack([centre - edges[:-1], edges[1:] - centre])
    axes.errorbar(
        centre[good],
        width[good],
        yerr=error[good],
        xerr=spread[:, good],
        fmt="o",
        color=AFTER,
        ms=5,
        lw=1.3,
    )
    axes.set_xscale("log")
    axes.set_xlim(edges[0], edges[-1])
    axes.set_ylim(bottom=0)
    plain_ticks(axes)


def plain_ticks(axes: Axes) -> None:
    """Write 1, 2, 5, 10 on a logarithmic horizontal axis, not powers of ten."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter  # noqa: PLC0415

    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
