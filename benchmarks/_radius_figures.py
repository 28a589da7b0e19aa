"""Figures of the benchmark `radius`: an event, the descent, and the mass."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from diffhep.jets import (
    CompiledEngine,
    add_ghosts,
    cluster,
    ghost_grid,
    jets_from_history,
)
from diffhep.plotting import clustering_display, mass_distribution


# Okabe and Ito's colours, and markers besides: legible with every colour blindness; and
# how far behind the last step, in units of all steps, the results stand.
START_STYLES = {"0.4": ("#0072b2", "o", 1.03), "1": ("#d55e00", "D", 1.07)}
_TITLE = {"loc": "left", "fontsize": 11}


def draw(
    folder: Path,
    runs: dict[str, Any],
    event: tuple[np.ndarray, np.ndarray],
    found: dict[str, np.ndarray],
    *,
    scan: dict[float, tuple[float, float]],
    bar: tuple[float, float],
) -> None:
    """Write the figures.

    Args:
        folder: Where to.
        runs: By name, what the benchmark records of each.
        event: Momenta and mask of the event to show.
        found: By name, masses with which the distributions are drawn, in GeV.
        scan: By radius, how far what is maximised is below its best, and the standard
            error of that.
        bar: Between which radii a descent has to end.
    """
    _save(_descent(runs, scan, bar), folder / "descent.svg")
    samples = {name: (m, np.ones_like(m)) for name, m in found.items()}
    edges = np.linspace(40, 220, 37)
    _save(mass_distribution(samples, edges), folder / "mass.svg")
    _save(_event(*event), folder / "event.svg")


def _descent(
    runs: dict[str, Any],
    scan: dict[float, tuple[float, float]],
    bar: tuple[float, float],
) -> Figure:
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    panels: Any = figure.subplots(1, 2, width_ratios=(3, 2))
    left, right = panels
    constant = [(n, r) for n, r in runs.items() if n.startswith("constant")]
    for name, run in constant:
        start = name.removeprefix("constant-").split(",")[0]
        colour, marker, place = START_STYLES[start]
        radii = [step["radius"] for step in run["path"]]
        left.plot(range(1, len(radii) + 1), radii, color=colour, lw=1, alpha=0.75)
        # The results stand behind the last step.
        style = {"color": colour, "mec": "white", "ms": 7, "clip_on": False}
        left.plot(place * len(radii), run["end"]["radius"], marker, **style)
    for start, (colour, marker, _) in START_STYLES.items():
        left.plot([], [], marker=marker, color=colour, label=f"from {float(start):.1f}")
    left.axhspan(*bar, color="#d9efe8", lw=0, label="where it has to end")
    left.set(xlabel="step", ylabel="jet radius R", ylim=(0.3, 1.2))
    left.set_title("Five descents from each start, and their results", **_TITLE)
    left.legend(frameon=False, fontsize=9, loc="upper right", ncols=3)
    radii = np.array(sorted(scan))
    below, error = np.array([scan[r] for r in radii]).T
    right.errorbar(radii, -below, error, fmt="o", color="#22262b", ms=5, capsize=2)
    right.axvspan(*bar, color="#d9efe8", lw=0)
    right.set(xlabel="jet radius R", ylabel="fraction in the window, less the best")
    right.set_title("What is maximised, best scale each", **_TITLE)
    for axes in panels:
        axes.grid(visible=True, color="#e4e7eb", lw=0.8)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _event(momentum: np.ndarray, mask: np.ndarray) -> Any:
    ghosts = ghost_grid(max_rapidity=5.0, spacing=0.07)
    both, alive = add_ghosts(
        jnp.asarray(momentum), jnp.asarray(mask), ghosts, jnp.ones(len(ghosts), bool)
    )
    radius, power = jnp.asarray(0.6), jnp.asarray(-1.0)
    history = cluster(both, alive, radius=radius, power=power, engine=CompiledEngine())
    jets, _ = jax.jit(
        lambda h: jets_from_history(
            h, both, alive, num_jets=4, threshold=0.0, width=1.0
        )
    )(history)
    members = np.asarray(jets.membership)[np.asarray(jets.mask)]
    slots = len(mask)
    return clustering_display(
        momentum[mask],
        members[:, :slots][:, mask],
        ghosts=np.asarray(ghosts),
        ghost_membership=members[:, slots:],
        title="Anti-kt, R = 0.6: the four leading jets and their active areas",
    )


def _save(figure: Any, path: Path) -> None:
    figure.savefig(path, metadata={"Date": None})
