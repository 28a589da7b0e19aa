import numpy as np

from ..event import Event, Vertices
from ._curves import covariance_ellipse, helix_points
from ._live import jet_colour, live_jets, live_slots, owner_of_slots
from ._style import INK, MUTED, Axes, dress, patch


# Half-width of the view, in mm: at least, and at most.
_NARROWEST, _WIDEST = 0.6, 8.0


def draw_interaction_region(axes: Axes, event: Event, field: float) -> None:
    """Draw the vertices and the tracks near the beam, seen along the beam.

    Args:
        axes: Where.
        event: One event.
        field: Magnetic field along z, in T.
    """
    centre, half = _window(event)
    _draw_jet_axes(axes, event, half)
    _draw_tracks(axes, event, field, half + float(np.hypot(*centre)))
    _draw_true_decays(axes, event)
    for jet, vertex in _vertices(event.secondary_vertices):
        _draw_vertex(axes, vertex, "D", jet_colour(jet))
    for _, vertex in _vertices(event.primary_vertex):
        _draw_vertex(axes, vertex, "o", INK)
    axes.plot([], [], "o", color=INK, ms=6, label="primary vertex")
    axes.plot([], [], "D", color=MUTED, ms=6, label="secondary vertex")
    axes.plot([], [], color=INK, lw=1.4, label=r"$2\sigma$ contour of the fit")
    axes.set(
        xlim=(centre[0] - half, centre[0] + half),
        ylim=(centre[1] - half, centre[1] + half),
        aspect="equal",
    )
    dress(axes, title="Interaction region", x="x [mm]", y="y [mm]")


def _vertices(vertices: Vertices | None) -> list[tuple[int, tuple]]:
    # (slot, (position, covariance)) of each live vertex.
    if vertices is None:
        return []
    position = np.asarray(vertices.position, float)
    covariance = np.asarray(vertices.covariance, float)
    live = np.flatnonzero(np.asarray(vertices.mask))
    return [(int(slot), (position[slot], covariance[slot])) for slot in live]


def _window(event: Event) -> tuple[np.ndarray, float]:
    # A square around all vertices that lie within reach of the primary vertex.
    primary = [position[:2] for _, (position, _) in _vertices(event.primary_vertex)]
    origin = primary[0] if primary else np.zeros(2)
    points = [position[:2] for _, (position, _) in _vertices(event.secondary_vertices)]
    points = [point for point in points if np.hypot(*(point - origin)) < _WIDEST]
    points = np.stack([origin, *points])
    low, high = points.min(axis=0), points.max(axis=0)
    half = 0.72 * float((high - low).max())
    return (low + high) / 2, min(max(half, _NARROWEST), _WIDEST)


def _draw_jet_axes(axes: Axes, event: Event, half: float) -> None:
    if event.jets is None:
        return
    start = [position[:2] for _, (position, _) in _vertices(event.primary_vertex)]
    x, y = start[0] if start else (0.0, 0.0)
    for jet in np.flatnonzero(live_jets(event.jets)).tolist():
        px, py = np.asarray(event.jets.momentum, float)[jet, :2]
        scale = 4 * half / max(float(np.hypot(px, py)), 1e-9)
        axes.plot(
            [x, x + scale * px],
            [y, y + scale * py],
            color=jet_colour(jet),
            lw=9,
            alpha=0.13,
            solid_capstyle="butt",
            zorder=1,
        )


def _draw_tracks(axes: Axes, event: Event, field: float, reach: float) -> None:
    if event.tracks is None:
        return
    mask = np.asarray(event.tracks.mask)
    parameters = np.asarray(event.tracks.parameters, float)
    owner = owner_of_slots(event, mask.size)
    displaced = _slots_of_secondary_vertices(event, mask.size)
    for slot in live_slots(event):
        length = 2 * reach + abs(parameters[slot, 0])
        arcs = np.linspace(-length, length, 41)
        x, y, _ = helix_points(parameters[slot], field, arcs).T
        bold = displaced[slot]
        style = {"color": jet_colour(owner[slot]), "zorder": 3 if bold else 2}
        width, alpha = (1.5, 0.95) if bold else (0.8, 0.45)
        axes.plot(x[20:], y[20:], lw=width, alpha=alpha, **style)
        axes.plot(x[:21], y[:21], lw=width, alpha=0.3 * alpha, **style)
    axes.plot([], [], color=MUTED, lw=1.6, label="track of a secondary vertex")
    axes.plot([], [], color=MUTED, lw=0.8, alpha=0.6, label="other track")


def _slots_of_secondary_vertices(event: Event, num_slots: int) -> np.ndarray:
    if event.secondary_vertices is None:
        return np.zeros(num_slots, bool)
    live = np.asarray(event.secondary_vertices.mask)
    weight = np.asarray(event.secondary_vertices.track_weight, float)
    return np.any(weight[live] > 0.5, axis=0, keepdims=True)[0]


def _draw_true_decays(axes: Axes, event: Event) -> None:
    if event.particles is None:
        return
    particles = event.particles
    chosen = np.asarray(particles.mask) & (np.asarray(particles.origin) > 0)
    chosen &= np.asarray(particles.charge) != 0
    points = np.unique(np.asarray(particles.vertex, float)[chosen][:, :2], axis=0)
    axes.plot(*points.T, "x", color=INK, ms=6, mew=1.2, zorder=8)
    axes.plot([], [], "x", color=INK, ms=6, mew=1.1, label="true b or c decay")


def _draw_vertex(axes: Axes, vertex: tuple, marker: str, colour: str) -> None:
    position, covariance = vertex
    long, short, angle = covariance_ellipse(covariance[:2, :2], 2.0)
    size = {"width": 2 * long, "height": 2 * short, "angle": np.degrees(angle)}
    # A white line below the dark one: the ellipse of a boosted decay is a needle along
    # its tracks, and would be lost among them.
    for width, edge, order in ((4.0, "white", 5.5), (1.4, INK, 6)):
        style = {"ec": edge, "fc": "none", "lw": width, "zorder": order}
        axes.add_patch(patch("Ellipse", position[:2], **size, **style))
    style = {"color": colour, "ms": 6.5, "mec": "white", "mew": 1.0, "zorder": 7}
    axes.plot(*position[:2], marker, **style)
