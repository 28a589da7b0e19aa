"""Rows of a benchmark: printed as a table, written as JSON, judged by their bars."""

import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax


RESULTS = Path(__file__).parent / "results"

QUICK = os.environ.get("QUICK", "0") not in {"", "0"}
"""Whether to run the same checks on less statistics, in under a minute."""


class Row(NamedTuple):
    """One measured quantity."""

    quantity: str
    """What was measured, with its unit."""
    ours: float
    """Our number."""
    peer: float | None = None
    """The number that it is compared with, in the same unit."""
    bar: float | None = None
    """The largest ratio to the peer that is allowed; without a peer, the largest
    number. None: reported, and not judged."""

    @property
    def ratio(self) -> float | None:
        """Ours over the peer's."""
        return None if self.peer is None else self.ours / self.peer

    @property
    def holds(self) -> bool | None:
        """Whether the bar is met; None where there is none. NaN never meets one."""
        if self.bar is None:
            return None
        judged = self.ours if self.ratio is None else self.ratio
        return bool(judged <= self.bar)


def report(area: str, rows: Sequence[Row], **details: Any) -> int:
    """Print the table and write it to `results/AREA.json`.

    Args:
        area: Name of the benchmark.
        rows: What was measured.
        **details: What else the file shall say: sizes, settings.

    Returns:
        The exit status: 1 where a bar falls short, else 0.
    """
    header = ("quantity", "ours", "peer", "ratio", "bar", "holds")
    body = [
        (
            row.quantity,
            *map(_number, (row.ours, row.peer, row.ratio, row.bar)),
            _verdict(row),
        )
        for row in rows
    ]
    widths = [max(len(line[i]) for line in (header, *body)) for i in range(len(header))]
    for line in (header, tuple("-" * width for width in widths), *body):
        first = line[0].ljust(widths[0])
        rest = (
            cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)
        )
        print("  ".join([first, *rest]))
    _write(area, rows, details)
    short = [row.quantity for row in rows if row.holds is False]
    for quantity in short:
        print(f"falls short of its bar: {quantity}")
    return 1 if short else 0


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _verdict(row: Row) -> str:
    return {None: "-", True: "yes", False: "NO"}[row.holds]


def _write(area: str, rows: Sequence[Row], details: dict[str, Any]) -> None:
    table = [row._asdict() | {"ratio": row.ratio, "holds": row.holds} for row in rows]
    machine = {
        "cores": os.cpu_count(),
        "architecture": platform.machine(),
        "devices": [device.device_kind for device in jax.devices()],
        "python": platform.python_version(),
        "jax": jax.__version__,
    }
    content = {
        "area": area,
        "quick": QUICK,
        "machine": machine,
        **details,
        "rows": table,
    }
    RESULTS.mkdir(exist_ok=True)
    temporary = RESULTS / f".{area}.json.part"
    temporary.write_text(json.dumps(content, indent=1) + "\n")
    temporary.replace(RESULTS / f"{area}.json")


def stored(
    area: str, seed: int, settings: dict[str, Any], run: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    """What a seed of a benchmark gave, run unless that is in a file.

    Args:
        area: Name of the benchmark.
        seed: The seed.
        settings: Everything that was chosen.
        run: The seed's run.

    Returns:
        The result, with its settings.

    Raises:
        RuntimeError: The file is of other settings.
    """
    path = record_folder(area) / f"{seed}.json"
    if not path.exists():
        # All of it or nothing.
        part = path.with_suffix(".part")
        part.write_text(json.dumps({"settings": settings, **run()}) + "\n")
        part.replace(path)
    found = json.loads(path.read_text())
    if found["settings"] != settings:
        raise RuntimeError(f"{path} is of other settings; move it away to run anew.")
    return found


def record_folder(area: str) -> Path:
    """Where the records of a benchmark's seeds are; those of `QUICK` are not kept.

    Args:
        area: Name of the benchmark.

    Returns:
        The folder, which exists.
    """
    folder = RESULTS.parent / "recorded" / area
    if QUICK:
        folder = RESULTS / f"{area}-quick"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def seconds(function: Callable[[], Any], *, repeats: int) -> float:
    """The median time of a call, its results waited for.

    Args:
        function: What to time. Call it once before, to compile.
        repeats: How often.

    Returns:
        Seconds.
    """
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(function())
        times.append(time.perf_counter() - start)
    return statistics.median(times)


_ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",
}


def alone(command: list[str]) -> str:
    """What a process prints that runs on one core, without a cache of compiled code.

    Args:
        command: The process, which inherits the core to those it starts.

    Returns:
        Its output.
    """
    core = {min(os.sched_getaffinity(0))}
    environment = {k: v for k, v in os.environ.items() if "COMPILATION_CACHE" not in k}
    result = subprocess.run(
        command,
        env=environment | _ONE_THREAD,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        preexec_fn=lambda: os.sched_setaffinity(0, core),
    )
    return result.stdout
