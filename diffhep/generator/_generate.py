import contextlib
import json
import math
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from ._config import GeneratorConfig, Process, config_hash, config_to_dict
from ._crew import work_off
from ._packages import require
from ._store import MANIFEST, chunk_name, dataset_folder, read_summary
from ._worker import SCHEMA_VERSION


_STALE = 3600.0
"""Age in seconds from which a temporary file is left over from a dead process."""


def generate_events(
    config: GeneratorConfig | None = None,
    *,
    cache: str | Path | None = None,
    num_workers: int | None = None,
    progress: bool = True,
) -> Path:
    """The folder of a data set, generated unless it is in the cache already.

    The work is cut into chunks with random numbers of their own, so the events do not
    depend on the number of workers. Each chunk is written to a temporary file that is
    then renamed: after an interruption (Ctrl-C) only the missing chunks are made.

    Args:
        config: What to generate; the defaults unless given.
        cache: Folder that holds the data sets; see `default_cache`.
        num_workers: Worker processes; all cores unless given.
        progress: Whether to show a progress bar.

    Returns:
        The folder, for `load_events`. Its `manifest.json` states the configuration,
        cross-sections with statistical errors, and counts.

    Raises:
        ImportError: A package is missing.
        OSError: The cache cannot be written, or a worker died.
        ValueError: Pythia refuses the configuration, or `num_workers` is not positive.
    """
    config = GeneratorConfig() if config is None else config
    require("pyarrow")
    workers = _available_cores() if num_workers is None else num_workers
    if workers <= 0:
        raise ValueError(f"`num_workers` must be positive, but is {workers}.")
    folder = dataset_folder(config, cache=cache)
    jobs = config.jobs()
    for job in jobs:
        summary = job["summary"]
        job["path"] = str(folder / chunk_name(summary["process"], summary["chunk"]))
    # A file that cannot be read counts as missing, and is replaced.
    missing = [job for job in jobs if not _finished(job)]
    if not missing and (folder / MANIFEST).is_file():
        return folder
    _make_folder(folder)
    _work(jobs, missing, workers, progress=progress)
    manifest = _manifest(config, [read_summary(job["path"]) for job in jobs])
    _write_text(folder / MANIFEST, json.dumps(manifest, indent=2, sort_keys=True))
    return folder


def _work(
    jobs: Sequence[dict[str, Any]],
    missing: Sequence[dict[str, Any]],
    workers: int,
    *,
    progress: bool,
) -> None:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(
        *columns, console=Console(stderr=True), disable=not progress
    ) as display:
        done = sum(j["num_tried"] for j in jobs) - sum(j["num_tried"] for j in missing)
        task = display.add_task(
            "generating events",
            total=sum(job["num_tried"] for job in jobs),
            completed=done,
        )
        # Long chunks first, so that the workers end at about the same time.
        work_off(
            sorted(missing, key=lambda job: -job["num_tried"]),
            num_workers=workers,
            report=lambda number: display.advance(task, number),
        )


def _finished(job: dict[str, Any]) -> bool:
    with contextlib.suppress(OSError, ValueError):
        return job["summary"].items() <= read_summary(job["path"]).items()
    return False


def _manifest(
    config: GeneratorConfig, chunks: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "config": config_to_dict(config),
        "config_hash": config_hash(config),
        "processes": [
            _summarise(p, [c for c in chunks if c["process"] == p.name])
            for p in config.processes
        ],
        "chunks": [
            {
                "file": chunk_name(chunk["process"], chunk["chunk"]),
                "process": chunk["process"],
                "events": sum(chunk["kept"]),
            }
            for chunk in chunks
        ],
    }


def _summarise(process: Process, chunks: Sequence[dict[str, Any]]) -> dict[str, Any]:
    # Chunks are independent estimates of the cross-section: mean by events tried.
    tried = sum(chunk["num_tried"] for chunk in chunks)
    sigma = sum(chunk["num_tried"] * chunk["sigma_pb"] for chunk in chunks) / tried
    variance = sum((c["num_tried"] * c["sigma_error_pb"] / tried) ** 2 for c in chunks)
    found = [sum(chunk["found"][i] for chunk in chunks) for i in range(3)]
    kept = [sum(chunk["kept"][i] for chunk in chunks) for i in range(3)]
    if process.keep_per_chunk is None:
        found, kept = [sum(found)], [sum(kept)]
    cross_section = (process.k_factor * sigma, process.k_factor * math.sqrt(variance))
    return {
        "name": process.name,
        "label": process.label,
        "k_factor": process.k_factor,
        "num_tried": tried,
        "sigma_pb": sigma,
        "sigma_error_pb": math.sqrt(variance),
        "strata": [
            {"name": name} | _stratum(cross_section, tried, *counts)
            for name, *counts in zip(process.strata, found, kept, strict=True)
        ],
    }


def _stratum(
    cross_section: tuple[float, float], tried: int, found: int, kept: int
) -> dict[str, Any]:
    sigma, error = cross_section
    fraction = found / tried
    # The binomial error of the fraction, and the error of the whole cross-section.
    binomial = math.sqrt((1 - fraction) / found) if found else 0.0
    return {
        "num_found": found,
        "num_kept": kept,
        "sigma_pb": sigma * fraction,
        "sigma_error_pb": sigma * fraction * math.hypot(error / sigma, binomial),
        "weight_pb": sigma * fraction / kept if kept else 0.0,
    }


def _make_folder(folder: Path) -> None:
    probe = folder / f".probe.{os.getpid()}.tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
        for stale in folder.glob(".*.tmp"):
            if time.time() - stale.stat().st_mtime > _STALE:
                stale.unlink(missing_ok=True)
    except OSError as error:
        raise OSError(
            f"Cannot write to the cache folder {folder} ({error.strerror}); choose "
            "another with the environment variable DIFFHEP_CACHE."
        ) from error


def _write_text(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text + "\n", encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _available_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
