import numpy as np

from ..tagging import JetTracks, JetTruth, JetVertex
from ._curves import covariance_ellipse, helix_points
from ._style import (
    AFTER,
    INK,
    MUTED,
    SIGNAL,
    Axes,
    Figure,
    dress,
    legend,
    new_figure,
    patch,
)


# Half-width of the view, in mm: at least, and relative to the flight.
_NARROWEST, _MARGIN = 1.0, 0.6


def jet_display(
    jet: JetTracks,
    vertex: JetVertex,
    *,
    truth: JetTruth | None = None,
    title: str = "",
) -> Figure:
    """A tagged jet: its tracks, as strong as their weights, and its fitted vertex.

    Seen along the beam, and from the side, in the plane of the jet and the beam. The
    primary vertex is the origin.

    Args:
        jet: One jet.
        vertex: Its displaced vertex, as of `FlavourTagger`.
        truth: The truth about it, whose decay is drawn too.
        title: What to write above.

    Returns:
        A matplotlib figure.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: The jet is a batch of jets.
    """
    if np.ndim(jet.momentum) != 1:
        raise ValueError(
            "A jet display shows one jet, and this is a batch of shape "
            f"{np.shape(jet.momentum)[:-1]}: take one with "
            "`jax.tree.map(lambda x: x[0], jets)`."
        )
    figure = new_figure(12.4, 6.4)
    if title:
        figure.suptitle(title, fontsize=13, color=INK, fontweight="bold")
    panels = figure.subplots(2, 2, height_ratios=(1, 0.08))
    x, y, _, _ = np.asarray(jet.momentum, float)
    radial = np.array([x, y, 0.0]) / max(np.hypot(x, y), 1e-9)
    views = (
        (np.eye(3)[:2], "Along the beam", "x [mm]", "y [mm]"),
        (np.stack([np.eye(3)[2], radial]), "From the side", "z [mm]", "radius [mm]"),
    )
    for axes, (frame, name, right, up) in zip(panels[0], views, strict=True):
        _draw(axes, frame, jet, vertex, truth)
        dress(axes, title=name, x=right, y=up)
    handles, labels = panels[0, 0].get_legend_handles_labels()
    for axes in panels[1]:
        axes.set_axis_off()
    legend(panels[1, 0], handles=handles, labels=labels, loc="center", ncols=3)
    return figure


def _draw(
    axes: Axes,
    frame: np.ndarray,
    jet: JetTracks,
    vertex: JetVertex,
    truth: JetTruth | None,
) -> None:
    flight = frame @ np.asarray(vertex.flight, float)
    points = [np.zeros(2), flight]
    if truth is not None:
        points.append(frame @ np.asarray(truth.flight, float))
    centre = (np.min(points, axis=0) + np.max(points, axis=0)) / 2
    extent = np.max(np.ptp(points, axis=0))
    half = max(_MARGIN * extent, 0) + _NARROWEST
    _draw_tracks(axes, frame, jet, np.asarray(vertex.weight, float), 3 * half)
    origin = frame @ np.asarray(jet.primary_covariance, float) @ frame.T
    spread = frame @ np.asarray(vertex.covariance, float) @ frame.T
    for place, covariance, marker, colour, label in (
        (np.zeros(2), origin, "o", INK, "primary vertex"),
        (flight, spread, "D", AFTER, r"fitted vertex, $2\sigma$"),
    ):
        long, short, angle = covariance_ellipse(covariance, 2.0)
        size = {"width": 2 * long, "height": 2 * short, "angle": np.degrees(angle)}
        style = {"ec": colour, "fc": "none", "lw": 1.4, "zorder": 6}
        axes.add_patch(patch("Ellipse", place, **size, **style))
        axes.plot(*place, marker, color=colour, ms=6.5, mec="white", label=label)
    if truth is not None:
        style = {"color": SIGNAL, "ms": 9, "mew": 2, "zorder": 8}
        axes.plot(*points[2], "x", label="true decay", **style)
    axes.set(
        xlim=(centre[0] - half, centre[0] + half),
        ylim=(centre[1] - half, centre[1] + half),
        aspect="equal",
    )


def _draw_tracks(
    axes: Axes, frame: np.ndarray, jet: JetTracks, weight: np.ndarray, reach: float
) -> None:
    parameters = np.asarray(jet.parameters, float)
    for slot in np.flatnonzero(np.asarray(jet.mask)):
        # A track near the beam goes many times as far along it.
        length = reach + abs(parameters[slot, 0])
        arcs = np.linspace(-length, length, 61)
        line = frame @ helix_points(parameters[slot], float(jet.field), arcs).T
        share = float(np.clip(weight[slot], 0.0, 1.0))
        style = {"color": AFTER if share > 0.5 else MUTED, "zorder": 3}
        axes.plot(*line[:, 30:], lw=0.7 + 1.3 * share, alpha=0.9, **style)
        axes.plot(*line[:, :31], lw=0.7 + 1.3 * share, alpha=0.25, **style)
    axes.plot([], [], color=AFTER, lw=2, label="track, weight above one half")
    axes.plot([], [], color=MUTED, lw=0.8, label="other track")
