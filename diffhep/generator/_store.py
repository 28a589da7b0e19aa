"""Where data sets lie, and how their files are read."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ._config import GeneratorConfig, config_hash
from ._packages import require
from ._worker import EVENT_COLUMNS, METADATA_KEY, PARTICLE_COLUMNS, SCHEMA_VERSION


MANIFEST = "manifest.json"


def default_cache() -> Path:
    """The folder that holds the data sets unless the user names one.

    Returns:
        The environment variable `DIFFHEP_CACHE` if set, else `diffhep` below
        `XDG_CACHE_HOME`, which is `~/.cache` unless set.
    """
    if chosen := os.environ.get("DIFFHEP_CACHE"):
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "diffhep"


def dataset_folder(config: GeneratorConfig, *, cache: str | Path | None = None) -> Path:
    """Where the data set of a configuration lies, or will lie.

    Args:
        config: The configuration.
        cache: Folder that holds the data sets; see `default_cache`.

    Returns:
        A folder named after the configuration and its hash.

    Raises:
        ImportError: Pythia, whose version is part of the hash, is not installed.
    """
    base = default_cache() if cache is None else Path(cache)
    return base / f"{config.name}-{config_hash(config)}"


def chunk_name(process: str, chunk: int) -> str:
    """The name of a chunk's file.

    Args:
        process: Name of the process.
        chunk: Number of the chunk.

    Returns:
        The file name.
    """
    return f"{process}-{chunk:05d}.parquet"


def read_summary(path: str | Path) -> dict[str, Any]:
    """The summary stored with a chunk.

    Args:
        path: The chunk's file.

    Returns:
        Cross-section and counts.

    Raises:
        OSError: The file is missing or damaged.
        ValueError: It was written by another version of diffhep.
        ImportError: The package `pyarrow` is missing.
    """
    parquet = require("pyarrow.parquet")
    path = Path(path)
    try:
        metadata = parquet.read_metadata(path).metadata
    except (OSError, ValueError) as error:
        raise _damaged(path, error) from error
    return _summary(path, metadata)


def read_manifest(folder: str | Path) -> dict[str, Any]:
    """What the manifest of a data set says.

    Args:
        folder: The data set.

    Returns:
        The content of `manifest.json`.

    Raises:
        OSError: There is no finished data set, or its manifest is damaged.
        ValueError: It was written by another version of diffhep.
    """
    path = Path(folder) / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        version = manifest["schema_version"]
    except OSError as error:
        raise OSError(
            f"There is no finished data set in {folder} ({error.strerror}); generate "
            "the events (again): what is there already is kept."
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise OSError(
            f"The manifest {path} is damaged; delete it and generate the events again: "
            "the other files are kept."
        ) from error
    if version != SCHEMA_VERSION:
        raise _outdated(path, version)
    return manifest


def read_columns(
    folder: str | Path, chunks: Sequence[dict[str, Any]]
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """All events of a data set, as flat columns.

    Args:
        folder: The data set.
        chunks: The `chunks` of its manifest.

    Returns:
        The columns by name: one entry per event, or one per particle, event after
        event; and the number of particles of each event.

    Raises:
        OSError: A file is missing, damaged, or belongs elsewhere.
        ValueError: A file was written by another version of diffhep.
        ImportError: The package `pyarrow` is missing.
    """
    parts = [_read_chunk(Path(folder) / c["file"], c["events"]) for c in chunks]
    names = (*EVENT_COLUMNS, *PARTICLE_COLUMNS)
    columns = {
        name: np.concatenate([part[name] for part, _ in parts]) for name in names
    }
    return columns, np.concatenate([counts for _, counts in parts])


def _read_chunk(path: Path, events: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    parquet = require("pyarrow.parquet")
    try:
        table = parquet.read_table(path, page_checksum_verification=True)
    except (OSError, ValueError) as error:
        raise _damaged(path, error) from error
    _summary(path, table.schema.metadata)
    if table.num_rows != events or not {*EVENT_COLUMNS, *PARTICLE_COLUMNS} <= set(
        table.column_names
    ):
        raise _damaged(path, "it does not hold what the manifest says")
    columns = {name: table[name].to_numpy() for name in EVENT_COLUMNS}
    lists = {name: table[name].combine_chunks() for name in PARTICLE_COLUMNS}
    columns |= {name: array.flatten().to_numpy() for name, array in lists.items()}
    return columns, np.diff(lists["px"].offsets.to_numpy())


def _summary(path: Path, metadata: Any) -> dict[str, Any]:
    text = (metadata or {}).get(METADATA_KEY)
    if text is None:
        raise _damaged(path, "diffhep's summary is not in it")
    summary = json.loads(text)
    if summary["schema_version"] != SCHEMA_VERSION:
        raise _outdated(path, summary["schema_version"])
    return summary


def _damaged(path: Path, reason: object) -> OSError:
    if not path.exists():
        return OSError(
            f"The file {path} of the data set is missing; generate the events "
            "again: the other files are kept."
        )
    words = " ".join(str(reason).split()).rstrip(".")
    return OSError(
        f"The file {path} is damaged ({words}); delete it and generate the events "
        "again: the other files are kept."
    )


def _outdated(path: Path, version: object) -> ValueError:
    return ValueError(
        f"{path} has version {version} of the file format, but this diffhep reads "
        f"version {SCHEMA_VERSION}; generate the events again."
    )
