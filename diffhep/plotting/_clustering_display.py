import numpy as np

from ._style import BEFORE, CYCLE, INK, MUTED, AnyArray, Figure, dress, new_figure


def clustering_display(
    momentum: AnyArray,
    membership: AnyArray,
    *,
    ghosts: AnyArray | None = None,
    ghost_membership: AnyArray | None = None,
    title: str = "",
) -> Figure:
    """An event in the plane of rapidity and azimuth: particles, jets and their areas.

    Args:
        momentum: Four-momenta of the particles (px, py, pz, E), in GeV, of shape
            (particles, 4). Their areas in the figure are proportional to the transverse
            momenta.
        membership: Which particles belong to which jet, of shape (jets, particles); the
            jets in the order of their colours.
        ghosts: Four-momenta of ghosts, of shape (ghosts, 4), for the active areas
            (`jets.add_ghosts`).
        ghost_membership: Which of those belong to which jet, of shape (jets, ghosts).
        title: What to write above.

    Returns:
        A matplotlib figure.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: Shapes do not fit together.
    """
    p, inside = np.asarray(momentum, float), np.asarray(membership, bool)
    _check(p, inside, "momentum", "membership")
    figure = new_figure(6.6, 4.8)
    axes = figure.subplots()
    if ghosts is not None and ghost_membership is not None:
        g, where = np.asarray(ghosts, float), np.asarray(ghost_membership, bool)
        _check(g, where, "ghosts", "ghost_membership")
        y, phi, _ = _plane(g)
        for jet, members in enumerate(where):
            colour = CYCLE[jet % len(CYCLE)]
            style = {"s": 9, "marker": "s", "lw": 0, "alpha": 0.25}
            axes.scatter(y[members], phi[members], color=colour, **style)
    y, phi, pt = _plane(p)
    alone = ~inside.any(axis=0)
    size = 6 + 240 * pt / pt.max(initial=1e-9)
    axes.scatter(y[alone], phi[alone], s=size[alone], color=BEFORE, alpha=0.5, lw=0)
    for jet, members in enumerate(inside):
        total = p[members].sum(axis=0)
        axes.scatter(
            y[members],
            phi[members],
            s=size[members],
            color=CYCLE[jet % len(CYCLE)],
            edgecolor=INK,
            lw=0.4,
            label=f"jet {jet + 1}: {np.hypot(*total[:2]):.0f} GeV",
        )
    axes.set(ylim=(0, 2 * np.pi))
    dress(axes, x="rapidity", y="azimuth [rad]")
    axes.set_title(title, loc="left", fontsize=11, color=INK, fontweight="bold")
    place = {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0)}
    axes.legend(frameon=False, fontsize=8, labelcolor=MUTED, **place)
    return figure


def _plane(momentum: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    px, py, pz, energy = momentum.T
    pt = np.hypot(px, py)
    rapidity = np.arctanh(np.clip(pz / np.maximum(energy, 1e-9), -1 + 1e-9, 1 - 1e-9))
    return rapidity, np.mod(np.arctan2(py, px), 2 * np.pi), pt


def _check(momentum: np.ndarray, inside: np.ndarray, one: str, other: str) -> None:
    if momentum.ndim != 2 or momentum.shape[1] != 4:
        raise ValueError(
            f"`{one}` has the shape {momentum.shape}, but four components per particle "
            "are needed: (particles, 4)."
        )
    if inside.ndim != 2 or inside.shape[1] != len(momentum):
        raise ValueError(
            f"`{other}` has the shape {inside.shape}, but there are {len(momentum)} "
            f"particles in `{one}`: give (jets, {len(momentum)})."
        )
