import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array

from ..event import Event, Particles, Status, pad_jagged
from ._dataset import Dataset, Stratum
from ._store import read_columns, read_manifest
from ._worker import STRATA


_FEMTOBARN = 1000.0
"""Femtobarns per picobarn."""


def load_events(
    folder: str | Path,
    *,
    capacity: int = 96,
    luminosity_fb: float = 300.0,
    dtype: DTypeLike | None = None,
) -> Dataset:
    """A generated data set as a batch of events.

    Of an event with more particles than the capacity the hardest are kept, and the bit
    `PARTICLE_OVERFLOW` of its status is set. The events are in the order of their
    `index`, a number that is unique in the data set.

    Args:
        folder: What `generate_events` returned.
        capacity: Slots for particles; see `propose_capacity`.
        luminosity_fb: Integrated luminosity in 1/fb: the weights add up to the number
            of events expected with it.
        dtype: Type of the floating-point arrays; JAX's default unless given.

    Returns:
        The events and the strata that they come from.

    Raises:
        OSError: There is no finished data set, or a file is missing or damaged.
        ValueError: It was written by another version of diffhep, or the capacity or
            the luminosity is not positive.
        ImportError: The package `pyarrow` is missing.
    """
    if capacity <= 0:
        raise ValueError(f"`capacity` must be positive, but is {capacity}; raise it.")
    if not 0 < luminosity_fb < math.inf:
        raise ValueError(
            f"`luminosity_fb` must be positive, but is {luminosity_fb}; "
            "give it in 1/fb."
        )
    manifest = read_manifest(folder)
    columns, counts = read_columns(folder, manifest["chunks"])
    strata, stratum = _strata(manifest, columns, _process_of_event(manifest))
    weight = np.array([part.weight_pb for part in strata])[stratum]
    label = np.array([part.label for part in strata])[stratum]
    kind = jnp.zeros(()).dtype if dtype is None else jnp.dtype(dtype)
    fields = {
        "truth_vertex": _stack(columns, "vertex_x", "vertex_y", "vertex_z"),
        "label": label,
        "log_weight": np.log(weight * _FEMTOBARN * luminosity_fb),
    }
    particles, mask = _particles(columns, counts, capacity)
    overflow = np.where(counts > capacity, int(Status.PARTICLE_OVERFLOW), 0)
    floats = {name: jnp.asarray(x, kind) for name, x in (fields | particles).items()}
    integers = {
        "pdg_id": pad_jagged(columns["pdg_id"], counts, capacity=capacity)[0],
        "origin": pad_jagged(columns["origin"], counts, capacity=capacity)[0],
        "index": columns["event"],
        "status": overflow,
    }
    arrays = floats | {k: jnp.asarray(x, jnp.int32) for k, x in integers.items()}
    # Inside `vmap` the fields have the shapes of one event, as `Event` declares them.
    events = jax.vmap(_event)(arrays | {"mask": jnp.asarray(mask)})
    return Dataset(events, stratum, strata, float(luminosity_fb))


def propose_capacity(
    folder: str | Path, *, fraction: float = 1.0, multiple: int = 8
) -> int:
    """The capacity that holds all particles of most events.

    Args:
        folder: What `generate_events` returned.
        fraction: Least fraction of the stored events that shall not overflow.
        multiple: The capacity is a multiple of this.

    Returns:
        The smallest such capacity.

    Raises:
        OSError: There is no finished data set, or a file is missing or damaged.
        ValueError: `fraction` is not between 0 and 1, or `multiple` is not positive.
        ImportError: The package `pyarrow` is missing.
    """
    if not 0 < fraction <= 1 or multiple <= 0:
        raise ValueError(
            f"`fraction` is {fraction} and `multiple` {multiple}; give a fraction "
            "above 0 and up to 1, and a positive multiple."
        )
    _, counts = read_columns(folder, read_manifest(folder)["chunks"])
    needed = max(1, int(np.quantile(counts, fraction, method="higher")))
    return -(-needed // multiple) * multiple


def _process_of_event(manifest: dict[str, Any]) -> np.ndarray:
    # Position of the process in the manifest, for each event in file order.
    names = [process["name"] for process in manifest["processes"]]
    chunks = manifest["chunks"]
    numbers = [names.index(chunk["process"]) for chunk in chunks]
    return np.repeat(numbers, [chunk["events"] for chunk in chunks])


def _strata(
    manifest: dict[str, Any], columns: dict[str, np.ndarray], process: np.ndarray
) -> tuple[tuple[Stratum, ...], np.ndarray]:
    strata: list[Stratum] = []
    position = np.zeros((len(manifest["processes"]), len(STRATA)), int)
    for i, content in enumerate(manifest["processes"]):
        first, parts = len(strata), content["strata"]
        # An undivided process has one stratum, whatever the events' hadrons are.
        position[i] = first + np.arange(len(STRATA)) * (len(parts) > 1)
        strata += [
            Stratum(
                process=content["name"],
                label=content["label"],
                num_tried=content["num_tried"],
                **part,
            )
            for part in parts
        ]
    return tuple(strata), position[process, columns["stratum"]]


def _stack(columns: dict[str, np.ndarray], *names: str) -> np.ndarray:
    return np.stack([columns[name] for name in names], axis=-1)


def _particles(
    columns: dict[str, np.ndarray], counts: np.ndarray, capacity: int
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    flat = {
        "momentum": _stack(columns, "px", "py", "pz", "energy"),
        "vertex": _stack(columns, "x", "y", "z"),
        "charge": columns["charge"],
    }
    padded = {k: pad_jagged(v, counts, capacity=capacity) for k, v in flat.items()}
    mask = padded["charge"][1]
    return {name: values for name, (values, _) in padded.items()}, mask


def _event(arrays: dict[str, Array]) -> Event:
    names = ("momentum", "vertex", "charge", "pdg_id", "origin", "mask")
    return Event(
        particles=Particles(**{name: arrays[name] for name in names}),
        truth_vertex=arrays["truth_vertex"],
        label=arrays["label"],
        log_weight=arrays["log_weight"],
        index=arrays["index"],
        status=arrays["status"],
    )
