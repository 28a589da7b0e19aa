"""Figures of the benchmark `radius`: an event, the descent, and the mass."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffhep.jets import (
    CompiledEngine,
    add_ghosts,
    cluster,
    ghost_grid,
    jets_from_history,
)
from diffhep.plotting import (
    clustering_display,
    mass_distribution,
    parameter_trajectories,
)


def draw(
    folder: Path,
    runs: dict[str, Any],
    event: tuple[np.ndarray, np.ndarray],
    found: dict[str, np.ndarray],
) -> None:
    """Write the figures.

    Args:
        folder: Where to.
        runs: By name, what the benchmark records of each.
        event: Momenta and mask of the event to show.
        found: By name, masses with which the distributions are drawn, in GeV.
    """
    ways: dict[str, list] = {}
    for name, run in runs.items():
        radii = [step["radius"] for step in run["path"]]
        if not isinstance(radii[0], list):
            ways.setdefault(name.split(",")[0], []).append(radii)
    number = len(next(iter(ways.values()))[0])
    series = {
        f"R from {name.removeprefix('constant-')}": np.transpose(radii)
        for name, radii in ways.items()
    }
    _save(parameter_trajectories(range(number), series), folder / "descent.svg")
    samples = {name: (m, np.ones_like(m)) for name, m in found.items()}
    edges = np.linspace(40, 220, 37)
    _save(mass_distribution(samples, edges), folder / "mass.svg")
    _save(_event(*event), folder / "event.svg")


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
