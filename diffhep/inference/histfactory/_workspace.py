"""HistFactory workspaces in pyhf's JSON format."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import equinox as eqx

from ._checks import check_workspace


class Workspace(eqx.Module):
    """A checked workspace: channels, measurements and observations.

    Plain Python, outside of any trace: `build_model` makes arrays of it.
    """

    content: dict[str, Any] = eqx.field(static=True)
    """The JSON content."""

    def __check_init__(self):
        """Raise where the content is not a workspace."""
        check_workspace(self.content)


def read_workspace(source: str | Path | Mapping[str, Any]) -> Workspace:
    """A workspace from a file, or from parsed JSON.

    Args:
        source: Path of a JSON file, or its content. That is copied.

    Returns:
        The workspace.

    Raises:
        ValueError: It is no workspace; the message names channel, sample and modifier.
    """
    return Workspace(read_json(source))


def read_json(source: str | Path | Mapping[str, Any]) -> Any:
    """Parsed JSON.

    Args:
        source: Path of a file, or what was parsed already.

    Returns:
        A copy that shares nothing with the source.
    """
    if isinstance(source, Mapping):
        return json.loads(json.dumps(source))
    try:
        return json.loads(Path(source).read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"'{source}' is not JSON: {error}.") from error


def find_measurement(workspace: Workspace, name: str | None = None) -> dict[str, Any]:
    """One measurement of a workspace.

    Args:
        workspace: The workspace.
        name: Its name; the first unless given.

    Returns:
        The JSON content.

    Raises:
        ValueError: There is no measurement of that name.
    """
    measurements = {m["name"]: m for m in workspace.content["measurements"]}
    if name is None:
        return workspace.content["measurements"][0]
    if name not in measurements:
        known = ", ".join(f"'{x}'" for x in measurements)
        raise ValueError(f"There is no measurement '{name}'; there are {known}.")
    return measurements[name]
