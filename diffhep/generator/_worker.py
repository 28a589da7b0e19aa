"""One chunk of Pythia 8 events into one Parquet file.

This file is also run as a script, by its path, in worker processes: it imports nothing
of diffhep, hence no JAX. A worker reads one job (JSON) per line from its standard
input, and answers with lines of JSON: progress, then the summary or an error.
"""

import contextlib
import json
import math
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


SCHEMA_VERSION = 1
"""Version of the files' content. Part of the key of the cache."""
STRATA = ("b", "c", "light")
"""Weakly decaying hadrons near the acceptance: bottom; charm but no bottom; neither."""
METADATA_KEY = b"diffhep"
PARTICLE_COLUMNS = {
    "px": float,
    "py": float,
    "pz": float,
    "energy": float,
    "x": float,
    "y": float,
    "z": float,
    "charge": float,
    "pdg_id": int,
    "origin": int,
}
"""Columns with one list per event, by falling transverse momentum: GeV, mm, e."""
EVENT_COLUMNS = {
    "event": int,
    "stratum": int,
    "vertex_x": float,
    "vertex_y": float,
    "vertex_z": float,
}
"""Columns with one number per event."""

# Weakly decaying open-flavour hadrons (Particle Data Group numbering).
_BOTTOM = frozenset({511, 521, 531, 541, 5122, 5132, 5232, 5332})
_CHARM = frozenset({411, 421, 431, 4122, 4132, 4232, 4332})
_FLAVOUR = {
    sign * pdg_id: flavour
    for flavour, hadrons in ((5, _BOTTOM), (4, _CHARM))
    for pdg_id in hadrons
    for sign in (1, -1)
}
_NEUTRINOS = frozenset({12, -12, 14, -14, 16, -16})
_STRATUM_MIN_PT = 5.0
_STRATUM_MAX_ETA = 2.5
_PICOBARN = 1e9
"""Picobarns per millibarn, the unit of Pythia."""
_QUIET = "Print:quiet"
_REPORT_EVERY = 25


def make_chunk(job: dict[str, Any], report: Callable[[int], None]) -> dict[str, Any]:
    """The summary of a chunk whose file has been written.

    Args:
        job: `commands` (for Pythia), `num_tried`, `keep` (greatest number of events per
            stratum, or `None`: all), `min_pt`, `max_eta`, `first_event`, `path`,
            `summary` (what else to store with the file).
        report: Called with the number of events tried since the last call.

    Returns:
        The job's `summary` with cross-section and counts added.

    Raises:
        ValueError: Pythia refuses a command or cannot make the process.
        OSError: The file cannot be written.
    """
    pythia = _start(job["commands"])
    found, kept = [0] * len(STRATA), [0] * len(STRATA)
    columns: dict[str, list] = {name: [] for name in EVENT_COLUMNS | PARTICLE_COLUMNS}
    done = 0
    for attempt in range(job["num_tried"]):
        if (attempt + 1) % _REPORT_EVERY == 0:
            report(_REPORT_EVERY)
        if not pythia.next():
            continue
        done += 1
        particles = pythia.event.particles()
        ids = [particle.id() for particle in particles]
        stratum = _stratum(particles, ids)
        found[stratum] += 1
        if job["keep"] is not None and kept[stratum] >= job["keep"][stratum]:
            continue
        kept[stratum] += 1
        _append(columns, particles, ids, job["min_pt"], job["max_eta"])
        columns["event"].append(job["first_event"] + attempt)
        columns["stratum"].append(stratum)
    report(job["num_tried"] % _REPORT_EVERY)
    if not done:
        raise ValueError(
            f"Pythia made none of the {job['num_tried']} events of "
            f"{job['summary']['process']!r}; look at its `commands`."
        )
    info = pythia.infoPython()
    summary = job["summary"] | {
        "num_tried": done,
        "found": found,
        "kept": kept,
        "sigma_pb": info.sigmaGen() * _PICOBARN,
        "sigma_error_pb": info.sigmaErr() * _PICOBARN,
    }
    _write(columns, summary, Path(job["path"]))
    return summary


def _start(commands: list[str]) -> Any:
    import pythia8mc  # noqa: PLC0415 (optional, and slow to load)

    pythia = pythia8mc.Pythia("", False)
    # Without its tables Pythia starts, and then knows no command at all.
    if not pythia.settings.isFlag(_QUIET):
        raise ValueError(
            "Pythia does not find its data; set the environment variable PYTHIA8DATA "
            "to the folder share/Pythia8/xmldoc of its installation."
        )
    for command in (f"{_QUIET}=on", *commands):
        if not pythia.readString(command):
            raise ValueError(
                f"Pythia does not understand the command {command!r}; look it up in "
                "Pythia's manual."
            )
    if not pythia.init():
        raise ValueError(
            "Pythia cannot start with these settings; look at the `commands` of the "
            "process and at `beam_energy`."
        )
    return pythia


def _stratum(particles: list, ids: list[int]) -> int:
    heaviest = 0
    for particle, pdg_id in zip(particles, ids, strict=True):
        flavour = _FLAVOUR.get(pdg_id, 0)
        if (
            flavour > heaviest
            and particle.pT() > _STRATUM_MIN_PT
            and abs(particle.eta()) < _STRATUM_MAX_ETA
        ):
            heaviest = flavour
    return {5: 0, 4: 1, 0: 2}[heaviest]


def _append(
    columns: dict[str, list],
    particles: list,
    ids: list[int],
    min_pt: float,
    max_eta: float,
) -> None:
    origin = _origins(particles, ids)
    max_slope = math.sinh(max_eta)
    rows = []
    for slot, particle in enumerate(particles):
        if particle.status() <= 0 or ids[slot] in _NEUTRINOS:
            continue
        pt = particle.pT()
        if pt <= min_pt or abs(particle.pz()) >= pt * max_slope:
            continue
        rows.append((-pt, slot))
    rows.sort()
    chosen = [(particles[slot], ids[slot], origin[slot]) for _, slot in rows]
    table = [
        (
            *(p.px(), p.py(), p.pz(), p.e(), p.xProd(), p.yProd(), p.zProd()),
            *(p.charge(), pdg_id, heaviest),
        )
        for p, pdg_id, heaviest in chosen
    ]
    lists = zip(*table, strict=True) if table else ((),) * len(PARTICLE_COLUMNS)
    for name, values in zip(PARTICLE_COLUMNS, lists, strict=True):
        columns[name].append(list(values))
    # Entry 0 is the collision as a whole: it starts at the primary vertex.
    collision = particles[0]
    columns["vertex_x"].append(collision.xProd())
    columns["vertex_y"].append(collision.yProd())
    columns["vertex_z"].append(collision.zProd())


def _origins(particles: list, ids: list[int]) -> list[int]:
    # A decay product comes after its mother in Pythia's record, so one pass suffices.
    origin: list[int] = []
    for slot, (particle, pdg_id) in enumerate(zip(particles, ids, strict=True)):
        mother = particle.mother1()
        inherited = origin[mother] if 0 < mother < slot else 0
        origin.append(max(inherited, _FLAVOUR.get(pdg_id, 0)))
    return origin


def _write(columns: dict[str, list], summary: dict[str, Any], path: Path) -> None:
    import pyarrow  # noqa: PLC0415 (optional, and slow to load)
    import pyarrow.parquet  # noqa: PLC0415

    kinds = {float: pyarrow.float64(), int: pyarrow.int32()}
    fields = [(name, kinds[kind]) for name, kind in EVENT_COLUMNS.items()]
    fields += [
        (name, pyarrow.list_(kinds[kind])) for name, kind in PARTICLE_COLUMNS.items()
    ]
    text = json.dumps(summary, sort_keys=True)
    schema = pyarrow.schema(fields, metadata={METADATA_KEY: text.encode()})
    table = pyarrow.table(columns, schema=schema)
    temporary = temporary_name(path, os.getpid())
    try:
        pyarrow.parquet.write_table(
            table, temporary, compression="zstd", write_page_checksum=True
        )
        os.replace(temporary, path)
    except OSError as error:
        raise OSError(
            f"Cannot write {path} ({error}); make room, or choose another cache with "
            "the environment variable DIFFHEP_CACHE."
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def temporary_name(path: Path, process_id: int) -> Path:
    """Where a process writes before it renames the finished file.

    Args:
        path: The finished file.
        process_id: The process that writes.

    Returns:
        A hidden file beside it.
    """
    return path.with_name(f".{path.name}.{process_id}.tmp")


def main() -> None:
    """Nothing; works off the jobs that arrive on the standard input."""
    # Ctrl-C reaches the parent process too, which ends this one and cleans up.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Pythia may print: keep the channel of the answers to ourselves.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def answer(**content: Any) -> None:
        answers.write(json.dumps(content) + "\n")

    with contextlib.suppress(BrokenPipeError):
        for line in sys.stdin:
            try:
                summary = make_chunk(json.loads(line), lambda n: answer(progress=n))
                answer(summary=summary)
            except OSError as error:
                answer(error=str(error), kind="OSError")
            except (ValueError, ImportError) as error:
                answer(error=str(error), kind="ValueError")


if __name__ == "__main__":
    main()
