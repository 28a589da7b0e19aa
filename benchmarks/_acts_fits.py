"""Track fits of ACTS on a telescope, with the hits, in a process of its own.

Run as `python -m benchmarks._acts_fits JOB RESULT`, two JSON files; see `run`. Needs
`pip install pyacts==48.1.0`.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from . import _acts_telescope as telescope
from ._acts_peer import load


INFLATION = 1e6
"""By how much the variances of a fit are multiplied where another starts from it."""


def run(job: dict[str, int]) -> list[dict[str, Any]]:
    """Simulated tracks with their fits.

    The hypothesis is a pion's, as in ours, though they are muons.

    Args:
        job: `events`, and `tracks` in each.

    Returns:
        For each track with a hit on every plane `hits`, the coordinates (y, z) of each,
        in mm, from the innermost; and each fit that did not fail by its name:
        `parameters` and `covariance` at the perigee about the origin, without time. The
        ones called `kalman...` also have `states` and `variances`: smoothed parameters
        (-z, y, phi, theta, q/p) on the planes, and the diagonal of their covariance.
    """
    with tempfile.TemporaryDirectory() as name:
        made = telescope.simulate(
            Path(name), job["events"], job["tracks"], hits=telescope.PLANES
        )
        _seed(made)
        names = _fit(made)
        collected = _collect(made, names)
        made.sequencer.run()
    return list(collected.values())


def _seed(made: telescope.Simulation) -> None:
    # Smeared truth, with variances so large that the fits do not notice.
    acts = load("acts")
    reconstruction = load("acts.examples.reconstruction")

    unit = acts.UnitConstants
    lengths, angles = [10 * unit.mm] * 2, [5 * unit.degree] * 2
    reconstruction.addSeeding(
        *made[:3],
        rnd=made.random,
        inputParticles="particles_generated",
        seedingAlgorithm=reconstruction.SeedingAlgorithm.TruthSmeared,
        particleHypothesis=acts.ParticleHypothesis.pion,
        initialSigmas=[*lengths, *angles, 0.5 / unit.GeV, 1 * unit.ns],
        initialSigmaQoverPt=0.0,
        initialSigmaPtRel=0.0,
        initialVarInflation=[1.0] * 6,
    )


def _fit(made: telescope.Simulation) -> list[str]:
    # The names of the fits.
    acts = load("acts")
    examples = load("acts.examples")

    def settings(loss: bool, scattering: bool = True) -> dict[str, Any]:
        return {
            "multipleScattering": scattering,
            "energyLoss": loss,
            "freeToBoundCorrection": examples.FreeToBoundCorrection(False),
            "level": acts.logging.FATAL,
        }

    def kalman(**options: Any) -> Any:
        return examples.makeKalmanFitterFunction(
            *made[1:3],
            **settings(**options),
            reverseFilteringMomThreshold=0.0,
            reverseFilteringCovarianceScaling=100.0,
            chi2Cut=float("inf"),
            useJosephFormulation=False,
        )

    def global_fit(**options: Any) -> Any:
        return examples.makeGlobalChiSquareFitterFunction(
            *made[1:3], **settings(**options), nUpdateMax=10, relChi2changeCutOff=1e-7
        )

    fits = {
        "global": global_fit(loss=False),
        "kalman": kalman(loss=False),
        "kalman, losses": kalman(loss=True),
        "global, empty": global_fit(loss=False, scattering=False),
        "kalman, empty": kalman(loss=False, scattering=False),
    }
    for name, function in fits.items():
        _add(made, name, function)
    for name, function in fits.items():
        # A filter linearises where its seed leads it: from its own result it has
        # converged the third time.
        if name.startswith("kalman"):
            _add_again(made, name, f"{name}, second", function)
            _add_again(made, f"{name}, second", f"{name}, third", function)
    return [*fits, *(f"{name}, third" for name in fits if name.startswith("kalman"))]


def _add_again(
    made: telescope.Simulation, start: str, name: str, function: Any
) -> None:
    acts = load("acts")
    examples = load("acts.examples")

    algorithm = examples.RefittingAlgorithm(
        level=acts.logging.FATAL,
        inputTracks=start,
        outputTracks=name,
        fit=function,
        pickTrack=-1,
        initialVarInflation=[INFLATION] * 6,
    )
    made.sequencer.addAlgorithm(algorithm)


def _add(made: telescope.Simulation, name: str, function: Any) -> None:
    acts = load("acts")
    examples = load("acts.examples")

    algorithm = examples.TrackFittingAlgorithm(
        level=acts.logging.FATAL,
        inputMeasurements="measurements",
        inputProtoTracks="truth_particle_tracks",
        inputInitialTrackParameters="estimatedparameters",
        inputClusters="",
        outputTracks=name,
        pickTrack=-1,
        fit=function,
        calibrator=examples.makePassThroughCalibrator(),
    )
    made.sequencer.addAlgorithm(algorithm)


def _collect(made: telescope.Simulation, names: list[str]) -> dict[Any, dict[str, Any]]:
    # Filled when the sequence runs: tracks by their hits.
    acts = load("acts")
    examples = load("acts.examples")

    collected: dict[Any, dict[str, Any]] = {}

    class Collect(examples.IAlgorithm):
        def __init__(self) -> None:
            examples.IAlgorithm.__init__(self, "Collect", acts.logging.ERROR)
            self.handles = {}
            for name in names:
                kind = examples.ConstTrackContainer
                handle = examples.ReadDataHandle(self, kind, f"Input {name}")
                handle.initialize(name)
                self.handles[name] = handle

        def execute(self, context: Any) -> Any:
            for name, handle in self.handles.items():
                for track in handle(context.eventStore):
                    _keep(collected, name, track)
            return examples.ProcessCode.SUCCESS

    algorithm = Collect()
    made.sequencer.addAlgorithm(algorithm)
    return collected


def _keep(collected: dict[Any, dict[str, Any]], name: str, track: Any) -> None:
    # From the innermost.
    states = list(track.trackStates)
    if len(states) != telescope.PLANES or not track.hasReferenceSurface:
        return
    # The local axes are -z and y.
    hits = [(second, -first) for first, second in map(_measured, states)]
    covariance = track.covariance
    fit = {
        "parameters": list(track.parameters)[:5],
        "covariance": [[covariance[i, j] for j in range(5)] for i in range(5)],
    }
    if name.startswith("kalman"):
        fit["states"] = [list(state.smoothed)[:5] for state in states]
        spread = [state.smoothedCovariance for state in states]
        fit["variances"] = [[matrix[i, i] for i in range(5)] for matrix in spread]
    entry = collected.setdefault(tuple(hits), {"hits": hits})
    entry[name] = fit


def _measured(state: Any) -> list[float]:
    return [float(x) for x in state.effectiveCalibrated]


if __name__ == "__main__":
    job = json.loads(Path(sys.argv[1]).read_text())
    Path(sys.argv[2]).write_text(json.dumps(run(job)))
