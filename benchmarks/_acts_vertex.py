"""Vertex fits of ACTS on given tracks, in a process of its own.

Run as `python -m benchmarks._acts_vertex JOB RESULT`, two JSON files; see `run`. Needs
`pip install pyacts==48.1.0`.
"""

import csv
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from . import _acts_telescope as telescope
from ._acts_peer import load


# In GeV.
_STIFF = (50.0, 100.0)
_NAMES = ("d0", "z0", "phi", "theta", "qop")


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Fits of one vertex to all tracks of each jet.

    The fitter wants to be told which tracks belong together, and Python has no way to
    say so but the truth of simulated tracks: as many muons from one point are simulated
    and fitted, and their grouping is taken for the given tracks.

    Args:
        job: `parameters` and `covariance` about the origin, of shapes (jets, tracks, 5)
            and (jets, tracks, 5, 5), the `field` in T, and which `fitter`: `billoir` or
            `adaptive` (a finder, which chooses tracks by itself and starts from the
            beam line).

    Returns:
        For each jet its `positions`, a list of fitted vertices; and `seconds` for each,
        on one thread.
    """
    jets, tracks = len(job["parameters"]), len(job["parameters"][0])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write(folder, job)
        # So stiff that none is lost, and with it one of the given tracks.
        made = telescope.simulate(folder, jets, tracks, hits=3, momentum=_STIFF)
        algorithm = _add(made, folder, job)
        made.sequencer.run()
        positions = []
        for jet in range(jets):
            with (folder / f"event{jet:09d}-found.csv").open() as file:
                rows = list(csv.DictReader(file))
            positions.append([[float(row[axis]) for axis in "xyz"] for row in rows])
        return {"positions": positions, "seconds": _time(folder, algorithm)}


def _write(folder: Path, job: dict[str, Any]) -> None:
    pairs = [(a, b) for a in range(5) for b in range(5) if a != b]
    header = [
        "trackId",
        *_NAMES,
        *(f"var_{name}" for name in _NAMES),
        *(f"cov_{_NAMES[a]}{_NAMES[b]}" for a, b in pairs),
    ]
    jets = zip(job["parameters"], job["covariance"], strict=True)
    for jet, (parameters, covariances) in enumerate(jets):
        with (folder / f"event{jet:09d}-given.csv").open("w") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(header)
            rows = zip(parameters, covariances, strict=True)
            for number, (values, spread) in enumerate(rows):
                variances = [spread[a][a] for a in range(5)]
                mixed = [spread[a][b] for a, b in pairs]
                writer.writerow([number, *values, *variances, *mixed])


def _add(made: telescope.Simulation, folder: Path, job: dict[str, Any]) -> str:
    # The name of the algorithm to time.
    acts = load("acts")
    examples = load("acts.examples")
    quiet, add = acts.logging.ERROR, made.sequencer.addAlgorithm
    given = {"level": quiet, "inputTrackParameters": "given"}
    field = acts.Vector3(0, 0, job["field"] * acts.UnitConstants.T)
    field = acts.ConstantBField(field)
    reader = examples.CsvTrackParameterReader(
        level=quiet,
        inputDir=str(folder),
        inputStem="given",
        outputTrackParameters="given",
        beamspot=[0, 0, 0],
    )
    made.sequencer.addReader(reader)
    if job["fitter"] == "billoir":
        _group(made)
        add(
            examples.VertexFitterAlgorithm(
                **given,
                inputProtoVertices="group",
                outputVertices="found",
                bField=field,
            )
        )
        name = "Algorithm:VertexFit"
    else:
        add(
            examples.AdaptiveMultiVertexFinderAlgorithm(
                **given,
                outputProtoVertices="group",
                outputVertices="found",
                bField=field,
                seedFinder=examples.VertexSeedFinder.GaussianSeeder,
            )
        )
        name = "Algorithm:AdaptiveMultiVertexFinder"
    writer = examples.CsvVertexWriter(
        level=quiet,
        inputVertices="found",
        outputDir=str(folder),
        outputStem="found",
        outputPrecision=17,
    )
    made.sequencer.addWriter(writer)
    return name


def _group(made: telescope.Simulation) -> None:
    acts = load("acts")
    examples = load("acts.examples")
    reconstruction = load("acts.examples.reconstruction")

    reconstruction.addSeeding(
        *made[:3],
        rnd=made.random,
        inputParticles="particles_generated",
        seedingAlgorithm=reconstruction.SeedingAlgorithm.TruthSmeared,
        particleHypothesis=acts.ParticleHypothesis.muon,
    )
    reconstruction.addKalmanTracks(*made[:3])
    finder = examples.TruthVertexFinder(
        level=acts.logging.ERROR,
        inputTracks="tracks",
        inputTrackParticleMatching="track_particle_matching",
        outputProtoVertices="group",
        excludeSecondaries=True,
    )
    made.sequencer.addAlgorithm(finder)


def _time(folder: Path, algorithm: str) -> float:
    with (folder / "timing.csv").open() as file:
        for row in csv.DictReader(file):
            if row["identifier"] == algorithm:
                return float(row["time_perevent_s"])
    raise RuntimeError("ACTS wrote no timing of its fit.")


if __name__ == "__main__":
    job = json.loads(Path(sys.argv[1]).read_text())
    Path(sys.argv[2]).write_text(json.dumps(run(job)))
