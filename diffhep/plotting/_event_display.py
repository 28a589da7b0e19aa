import numpy as np
from jaxtyping import Float

from ..event import Event
from ..geometry import Barrel
from ._curves import arcs_to_radii, helix_points
from ._interaction_region import draw_interaction_region
from ._live import jet_colour, live_jets, live_slots, owner_of_slots
from ._style import INK, MUTED, Axes, Figure, dress, legend, new_figure, patch


_NUM_SECTORS = 90
# In units of the outermost radius: towers from, longest tower, wedges to, labels at.
_TOWERS, _LONGEST, _WEDGE, _LABELS = 1.05, 0.29, 1.4, 1.62


def event_display(
    event: Event, barrel: Barrel, *, jet_radius: float = 0.4, title: str = ""
) -> Figure:
    """One reconstructed event: the transverse view, and its interaction region.

    Collections that are not filled are left out.

    Args:
        event: One event.
        barrel: The detector in which it was measured.
        jet_radius: Half-width in azimuth of the wedges that stand for the jets.
        title: What to write above.

    Returns:
        A matplotlib figure.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: The event is a batch of events.
    """
    if np.ndim(event.log_weight) > 0:
        raise ValueError(
            "An event display shows one event, and this is a batch of shape "
            f"{np.shape(event.log_weight)}: take one with "
            "`jax.tree.map(lambda x: x[0], events)`."
        )
    figure = new_figure(13.6, 7.5)
    if title:
        figure.suptitle(title, fontsize=13, color=INK, fontweight="bold")
    # The legends have axes of their own: nothing can then cover a track.
    panels = figure.subplots(2, 2, height_ratios=(1, 0.09))
    _draw_transverse(panels[0, 0], event, barrel, jet_radius)
    draw_interaction_region(panels[0, 1], event, float(barrel.field))
    for above, below in panels.T:
        below.set_axis_off()
        handles, _ = above.get_legend_handles_labels()
        columns = -(-len(handles) // 2)
        legend(below, handles=handles, loc="center", ncols=columns, handlelength=1.4)
    return figure


def _draw_transverse(
    axes: Axes, event: Event, barrel: Barrel, jet_radius: float
) -> None:
    radii = np.asarray(barrel.radii, float)
    outer = float(radii.max())
    for radius in radii:
        axes.add_patch(patch("Circle", (0, 0), radius, fill=False, ec="#c3c9d0"))
    _draw_jets(axes, event, outer, jet_radius)
    _draw_towers(axes, event, outer)
    _draw_hits(axes, event, radii)
    _draw_tracks(axes, event, float(barrel.field), radii)
    _draw_missing_momentum(axes, event, outer)
    axes.plot([], [], color=INK, lw=1.2, label="fitted track")
    axes.plot([], [], "o", color=INK, ms=3, label="hit")
    axes.plot(
        [], [], "s", color=MUTED, ms=7, alpha=0.6, label="calorimeter energy, by jet"
    )
    limit = 1.86 * outer
    axes.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal")
    dress(axes, title="Transverse view", x="x [mm]", y="y [mm]", grid="")


def _draw_hits(axes: Axes, event: Event, radii: np.ndarray) -> None:
    if event.hits is None:
        return
    found = np.asarray(event.hits.mask)
    azimuth = np.asarray(event.hits.position[..., 0], float)[found]
    slot, layer = np.nonzero(found)
    owner = owner_of_slots(event, found.shape[0])[slot]
    colours = [jet_colour(jet) for jet in owner]
    x, y = radii[layer] * np.cos(azimuth), radii[layer] * np.sin(azimuth)
    axes.scatter(x, y, s=7, c=colours, linewidths=0, zorder=4)


def track_polyline(
    parameters: Float[np.ndarray, " 5"], field: float, radii: Float[np.ndarray, " n"]
) -> Float[np.ndarray, "points 3"]:
    """A track from its perigee to the outermost layer that it reaches.

    Args:
        parameters: (d0, z0, phi, theta, q/p) in mm, rad, 1/GeV.
        field: Magnetic field along z, in T.
        radii: Radii of the layers, in mm. Each crossing is a point of the line.

    Returns:
        Coordinates (x, y, z), in mm.
    """
    arcs = arcs_to_radii(parameters, field, radii)
    crossings = arcs[np.isfinite(arcs)]
    end = crossings.max() if crossings.size else 0.0
    arcs = np.union1d(np.linspace(0.0, end, 60), crossings)
    return helix_points(parameters, field, arcs)


def _draw_tracks(axes: Axes, event: Event, field: float, radii: np.ndarray) -> None:
    if event.tracks is None:
        return
    parameters = np.asarray(event.tracks.parameters, float)
    owner = owner_of_slots(event, parameters.shape[0])
    for slot in live_slots(event):
        x, y, _ = track_polyline(parameters[slot], field, radii).T
        axes.plot(x, y, color=jet_colour(owner[slot]), lw=1.1, alpha=0.9, zorder=3)


def _draw_towers(axes: Axes, event: Event, outer: float) -> None:
    if event.towers is None or not np.asarray(event.towers.mask).any():
        return
    mask = np.asarray(event.towers.mask)
    slots = np.flatnonzero(mask)
    px, py, _, energy = np.asarray(event.towers.momentum, float)[slots].T
    sector = np.floor(np.arctan2(py, px) / (2 * np.pi) * _NUM_SECTORS).astype(int)
    owner = owner_of_slots(event, mask.size)[slots]
    total = np.bincount(sector % _NUM_SECTORS, np.maximum(energy, 0), _NUM_SECTORS)
    scale = _LONGEST * outer / max(total.max(), 1e-9)
    base = np.full(_NUM_SECTORS, _TOWERS * outer)
    width = 360.0 / _NUM_SECTORS
    for which, jet, height in zip(
        sector % _NUM_SECTORS, owner, np.maximum(energy, 0) * scale, strict=True
    ):
        base[which] += height
        start = width * which
        options = {"width": height, "fc": jet_colour(jet), "ec": "white", "lw": 0.4}
        axes.add_patch(
            patch("Wedge", (0, 0), base[which], start, start + width, **options)
        )
    axes.text(
        0.985,
        0.02,
        f"longest bar: {total.max():.0f} GeV",
        transform=axes.transAxes,
        ha="right",
        fontsize=9,
        color=MUTED,
    )


def _draw_jets(axes: Axes, event: Event, outer: float, jet_radius: float) -> None:
    if event.jets is None:
        return
    width = np.degrees(jet_radius)
    for jet in np.flatnonzero(live_jets(event.jets)).tolist():
        px, py = np.asarray(event.jets.momentum, float)[jet, :2]
        phi, colour = np.arctan2(py, px), jet_colour(jet)
        edges = np.degrees(phi) - width, np.degrees(phi) + width
        options = {"fc": colour, "ec": "none", "alpha": 0.13, "zorder": 1}
        axes.add_patch(patch("Wedge", (0, 0), _WEDGE * outer, *edges, **options))
        axes.text(
            _LABELS * outer * np.cos(phi),
            _LABELS * outer * np.sin(phi),
            f"jet {jet + 1}\n{np.hypot(px, py):.0f} GeV",
            color=colour,
            fontsize=9.5,
            fontweight="bold",
            ha="center",
            va="center",
        )


def _draw_missing_momentum(axes: Axes, event: Event, outer: float) -> None:
    if event.missing_momentum is None:
        return
    missing = np.asarray(event.missing_momentum, float)
    size = float(np.hypot(*missing))
    if not (np.isfinite(size) and size > 0):
        return
    tip = 0.98 * outer * missing / size
    style = {"arrowstyle": "-|>", "color": INK, "lw": 2.2, "ls": (0, (5, 2))}
    axes.annotate(
        "", xy=tuple(tip), xytext=(0, 0), arrowprops=style | {"mutation_scale": 18}
    )
    label = rf"$p_\mathrm{{T}}^\mathrm{{miss}}$ = {size:.0f} GeV"
    axes.plot([], [], color=INK, lw=2.2, ls=(0, (3, 1)), label=label)
