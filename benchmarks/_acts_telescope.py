"""The Kalman filter of ACTS on a telescope, in a process of its own.

Run as `python -m benchmarks._acts_telescope EVENTS TRACKS`, with the number of events
and of tracks in each. Prints a JSON object: seconds per track of
`TrackFittingAlgorithm` on one thread. Needs `pip install pyacts==48.1.0`.
"""

import csv
import json
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from ._acts_peer import load


PLANES, SPACING, FIELD = 9, 30.0, 2.0
SIGMA_ACROSS, SIGMA_ALONG = 0.025, 0.1
# The default of `acts.examples.TelescopeDetector`: 80 micrometres of silicon, with a
# radiation length of 93.7 mm.
THICKNESS = 0.08 / 93.7


class Simulation(NamedTuple):
    """Simulated hits in the making: what fits are added to."""

    sequencer: Any
    """The sequence of algorithms."""
    geometry: Any
    """The telescope."""
    field: Any
    """The magnetic field."""
    random: Any
    """The random numbers."""


def digitisation() -> dict:
    """The configuration that smears both local coordinates."""
    # The first local axis is -z, the second y.
    smearing = [
        {"index": index, "mean": 0.0, "stddev": width, "type": "Gauss"}
        for index, width in enumerate((SIGMA_ALONG, SIGMA_ACROSS))
    ]
    return {
        "acts-geometry-hierarchy-map": {
            "format-version": 0,
            "value-identifier": "digitization-configuration",
        },
        "entries": [{"volume": 1, "value": {"smearing": smearing}}],
    }


def _shoot(sequencer, random, tracks: int, momentum: tuple[float, float]) -> None:
    acts = load("acts")
    examples = load("acts.examples")
    simulation = load("acts.examples.simulation")

    unit, still = acts.UnitConstants, acts.Vector4(0, 0, 0, 0)
    simulation.addParticleGun(
        sequencer,
        simulation.ParticleConfig(
            num=tracks, pdg=acts.PdgParticle.eMuon, randomizeCharge=True
        ),
        simulation.EtaConfig(-0.1, 0.1, uniform=True),
        simulation.MomentumConfig(*(p * unit.GeV for p in momentum), transverse=True),
        simulation.PhiConfig(-5 * unit.degree, 5 * unit.degree),
        vtxGen=examples.GaussianVertexGenerator(mean=still, stddev=still),
        multiplicity=1,
        rnd=random,
    )


def simulate(
    folder: Path,
    events: int,
    tracks: int,
    *,
    hits: int,
    momentum: tuple[float, float] = (1.0, 10.0),
) -> Simulation:
    """A sequence that simulates muons.

    Args:
        folder: Where ACTS writes.
        events: Number of events.
        tracks: Number of tracks in each.
        hits: The fewest hits of a track that is to be fitted.
        momentum: Least and largest transverse momentum, in GeV.

    Returns:
        The sequence, to which fits are added before it is run.
    """
    acts = load("acts")
    examples = load("acts.examples")
    simulation = load("acts.examples.simulation")

    unit = acts.UnitConstants
    detector = examples.TelescopeDetector(
        bounds=[2000, 2000],
        positions=[SPACING * (i + 1) for i in range(PLANES)],
        stereos=[0] * PLANES,
        rotDirection=0,
    )
    geometry = detector.trackingGeometry()
    field = acts.ConstantBField(acts.Vector3(0, 0, FIELD * unit.T))
    sequencer = examples.Sequencer(
        events=events,
        numThreads=1,
        logLevel=acts.logging.ERROR,
        outputDir=str(folder),
        trackFpes=False,
    )
    random = examples.RandomNumbers(seed=42)
    _shoot(sequencer, random, tracks, momentum)
    simulation.addFatras(
        sequencer, geometry, field, rnd=random, enableInteractions=True
    )
    configuration = folder / "digitisation.json"
    configuration.write_text(json.dumps(digitisation()))
    simulation.addDigitization(
        sequencer, geometry, field, digiConfigFile=configuration, rnd=random
    )
    simulation.addDigiParticleSelection(
        sequencer,
        simulation.ParticleSelectorConfig(
            measurements=(hits, None), removeNeutral=True, removeSecondaries=True
        ),
    )
    return Simulation(sequencer, geometry, field, random)


def run(folder: Path, events: int, tracks: int) -> float:
    """Simulate and fit muons of 1 to 10 GeV; the time of the fit per track, in s."""
    acts = load("acts")
    reconstruction = load("acts.examples.reconstruction")

    sequencer, geometry, field, random = simulate(folder, events, tracks, hits=3)
    reconstruction.addSeeding(
        sequencer,
        geometry,
        field,
        rnd=random,
        inputParticles="particles_generated",
        seedingAlgorithm=reconstruction.SeedingAlgorithm.TruthSmeared,
        particleHypothesis=acts.ParticleHypothesis.muon,
    )
    reconstruction.addKalmanTracks(sequencer, geometry, field)
    sequencer.run()
    with (folder / "timing.csv").open() as file:
        for row in csv.DictReader(file):
            if row["identifier"].endswith("TrackFittingAlgorithm"):
                return float(row["time_perevent_s"]) / tracks
    raise RuntimeError("ACTS wrote no timing of its fit.")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        seconds = run(Path(name), int(sys.argv[1]), int(sys.argv[2]))
    print(json.dumps({"seconds": seconds}))
