"""Patches of workspaces: RFC 6902, and pyhf's sets of them."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import equinox as eqx

from ._workspace import Workspace, read_json


class PatchSet(eqx.Module):
    """Patches of one workspace, each of which has a name and values.

    Of a search, one patch per signal point: its values are masses, say.
    """

    content: dict[str, Any] = eqx.field(static=True)
    """The JSON content."""

    def __check_init__(self):
        """Raise where the content is not a patch set."""
        _check(self.content)

    @property
    def labels(self) -> tuple[str, ...]:
        """What the values of each patch mean."""
        return tuple(self.content["metadata"]["labels"])

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the patches."""
        return tuple(patch["metadata"]["name"] for patch in self.content["patches"])

    @property
    def values(self) -> tuple[tuple[Any, ...], ...]:
        """Values of the patches, one for each label."""
        return tuple(
            tuple(patch["metadata"]["values"]) for patch in self.content["patches"]
        )


def read_patch_set(source: str | Path | Mapping[str, Any]) -> PatchSet:
    """A patch set from a file, or from parsed JSON.

    Args:
        source: Path of a JSON file, or its content. That is copied.

    Returns:
        The patch set.

    Raises:
        ValueError: It is no patch set.
    """
    return PatchSet(read_json(source))


def apply_patch(
    workspace: Workspace, patch: str | Path | Sequence[Mapping[str, Any]]
) -> Workspace:
    """The workspace with a patch.

    Args:
        workspace: The workspace.
        patch: Operations of RFC 6902, or the path of a JSON file with them.

    Returns:
        A new workspace.

    Raises:
        ValueError: The patch does not fit the workspace, or spoils it.
        ImportError: The package `jsonpatch` is not installed.
    """
    try:
        import jsonpatch  # noqa: PLC0415 - an optional package
    except ImportError as error:
        raise ImportError(
            "Patches need the package jsonpatch; install diffhep[histfactory]."
        ) from error
    operations = read_json(patch) if isinstance(patch, str | Path) else list(patch)
    try:
        content = jsonpatch.apply_patch(workspace.content, operations)
    except (jsonpatch.JsonPatchException, jsonpatch.JsonPointerException) as error:
        raise ValueError(
            f"The patch does not fit the workspace ({error}); is it for another one?"
        ) from error
    return Workspace(content)


def choose_patch(
    patches: PatchSet, key: str | Sequence[Any], workspace: Workspace
) -> Workspace:
    """The workspace with one patch of a set, once it is the right workspace.

    Args:
        patches: The patch set.
        key: Name of the patch, or its values.
        workspace: The workspace that the set is for.

    Returns:
        A new workspace.

    Raises:
        ValueError: There is no such patch, or the set is for another workspace.
    """
    verify_digest(patches, workspace)
    for patch in patches.content["patches"]:
        metadata = patch["metadata"]
        if metadata["name"] == key or metadata["values"] == list(key):
            return apply_patch(workspace, patch["patch"])
    raise ValueError(
        f"There is no patch {key!r}; there are {len(patches.names)}, such as "
        f"'{patches.names[0]}' with {', '.join(patches.labels)} = {patches.values[0]}."
    )


def verify_digest(patches: PatchSet, workspace: Workspace) -> None:
    """Raise where the patch set is for another workspace.

    Args:
        patches: The patch set.
        workspace: A workspace.

    Raises:
        ValueError: A digest differs.
    """
    text = json.dumps(workspace.content, sort_keys=True, ensure_ascii=False)
    for algorithm, wanted in patches.content["metadata"]["digests"].items():
        found = hashlib.new(algorithm, text.encode("utf8")).hexdigest()
        if found != wanted:
            raise ValueError(
                f"The patch set is for a workspace with the {algorithm} digest "
                f"{wanted}, and this one has {found}; take the one published with it."
            )


def _check(content: Any) -> None:
    if not isinstance(content, Mapping) or not {"metadata", "patches"} <= set(content):
        raise ValueError("A patch set needs 'metadata' and 'patches'; is it a patch?")
    metadata = content["metadata"]
    for key in ("labels", "digests"):
        if not metadata.get(key):
            raise ValueError(f"The metadata of the patch set lack '{key}'; add it.")
    if unknown := set(metadata["digests"]) - {"md5", "sha256"}:
        raise ValueError(
            f"The patch set has the unknown digest '{sorted(unknown)[0]}'; use md5 or "
            "sha256."
        )
    seen: list[Any] = []
    for patch in content["patches"]:
        own = patch.get("metadata", {})
        if not {"name", "values"} <= set(own) or "patch" not in patch:
            raise ValueError("A patch of the set lacks name, values or operations.")
        if len(own["values"]) != len(metadata["labels"]):
            raise ValueError(
                f"Patch '{own['name']}' has {len(own['values'])} values for "
                f"{len(metadata['labels'])} labels; give one for each."
            )
        for key in (own["name"], own["values"]):
            if key in seen:
                raise ValueError(f"There are two patches {key!r}; rename one of them.")
            seen.append(key)
