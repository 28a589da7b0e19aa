"""A model and its data back into a workspace."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from ._model import HistFactoryData, HistFactoryModel, walk_numbers
from ._parameters import Constraint
from ._workspace import Workspace, find_measurement, read_json


def write_workspace(
    workspace: Workspace,
    model: HistFactoryModel,
    data: HistFactoryData,
    *,
    measurement: str | None = None,
    path: str | Path | None = None,
) -> Workspace:
    """The workspace with the numbers of a model and of observed counts.

    Auxiliary data are not written: a workspace states the nominal ones only.

    Args:
        workspace: The workspace that the model was built from.
        model: The model; not traced.
        data: What was observed.
        measurement: Name of the measurement that it was built from; the first unless
            given.
        path: Where to write the JSON to; nowhere unless given.

    Returns:
        A workspace, equal to the first one where nothing changed.

    Raises:
        ValueError: The new numbers make no workspace, or layouts do not agree.
    """
    content = read_json(workspace.content)
    layout = model.layout
    names = tuple(sorted(channel["name"] for channel in content["channels"]))
    if names != layout.channels:
        raise ValueError(
            f"The model has the channels {list(layout.channels)} and the workspace "
            f"{list(names)}; give the workspace that the model was built from."
        )
    arrays: dict[str, np.ndarray] = {}
    for name, index, container, key in walk_numbers(content["channels"], layout):
        if name not in arrays:
            arrays[name] = np.asarray(getattr(model, name))
        container[key] = arrays[name][index].tolist()  # pyright: ignore
    counts = np.asarray(data.counts)
    for observation in content["observations"]:
        if observation["name"] in layout.channels:
            at = layout.channels.index(observation["name"])
            bins = slice(layout.edges[at], layout.edges[at + 1])
            observation["data"] = counts[bins].tolist()
    config = find_measurement(Workspace(content), measurement)["config"]
    _write_parameters(config, model)
    written = Workspace(content)
    if path is not None:
        Path(path).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return written


def _write_parameters(config: dict[str, Any], model: HistFactoryModel) -> None:
    # Only what the workspace states: the rest has no place in it.
    settings = {item["name"]: item for item in config.get("parameters", ())}
    centre, width = np.asarray(model.centre), np.asarray(model.width)
    first = 0
    for group in model.layout.sets:
        if group.constraint is Constraint.NONE:
            continue
        last = first + group.size
        own = settings.get(group.name, {})
        if "auxdata" in own:
            own["auxdata"] = centre[first:last].tolist()
        if "sigmas" in own:
            own["sigmas"] = width[first:last].tolist()
        first = last
