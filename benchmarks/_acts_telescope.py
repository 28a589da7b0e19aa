"""The Kalman filter of ACTS on a telescope, in a process of its own.

Prints a JSON object: seconds per track of `TrackFittingAlgorithm` on one thread. Needs
`pip install pyacts==48.1.0`. Arguments: the number of events, and of tracks in each.
"""

import csv
import json
import sys
import tempfile
from pathlib import Path


PLANES, SPACING, FIELD = 9, 30.0, 2.0
SIGMA_ACROSS, SIGMA_ALONG = 0.025, 0.1
# The default of `acts.examples.TelescopeDetector`: 80 micrometres of silicon, with a
# radiation length of 93.7 mm.
THICKNESS = 0.08 / 93.7


def digitisation() -> dict:
    """The configuration that smears both local coordinates."""
    smearing = [
        {"index": index, "mean": 0.0, "stddev": width, "type": "Gauss"}
        for index, width in enumerate((SIGMA_ACROSS, SIGMA_ALONG))
    ]
    return {
        "acts-geometry-hierarchy-map": {
            "format-version": 0,
            "value-identifier": "digitization-configuration",
        },
        "entries": [{"volume": 1, "value": {"smearing": smearing}}],
    }


def _shoot(sequencer, random, tracks: int) -> None:
    import acts  # noqa: PLC0415
    import acts.examples  # noqa: PLC0415
    from acts.examples import simulation  # noqa: PLC0415

    unit, still = acts.UnitConstants, acts.Vector4(0, 0, 0, 0)
    simulation.addParticleGun(
        sequencer,
        simulation.ParticleConfig(
            num=tracks, pdg=acts.PdgParticle.eMuon, randomizeCharge=True
        ),
        simulation.EtaConfig(-0.1, 0.1, uniform=True),
        simulation.MomentumConfig(1 * unit.GeV, 10 * unit.GeV, transverse=True),
        simulation.PhiConfig(-5 * unit.degree, 5 * unit.degree),
        vtxGen=acts.examples.GaussianVertexGenerator(mean=still, stddev=still),
        multiplicity=1,
        rnd=random,
    )


def run(folder: Path, events: int, tracks: int) -> float:
    """Simulate and fit muons of 1 to 10 GeV; the time of the fit per track, in s."""
    import acts  # noqa: PLC0415 - optional, and only in this process
    import acts.examples  # noqa: PLC0415
    from acts.examples import reconstruction, simulation  # noqa: PLC0415

    unit = acts.UnitConstants
    detector = acts.examples.TelescopeDetector(
        bounds=[2000, 2000],
        positions=[SPACING * (i + 1) for i in range(PLANES)],
        stereos=[0] * PLANES,
        rotDirection=0,
    )
    geometry = detector.trackingGeometry()
    field = acts.ConstantBField(acts.Vector3(0, 0, FIELD * unit.T))
    sequencer = acts.examples.Sequencer(
        events=events,
        numThreads=1,
        logLevel=acts.logging.ERROR,
        outputDir=str(folder),
        trackFpes=False,
    )
    random = acts.examples.RandomNumbers(seed=42)
    _shoot(sequencer, random, tracks)
    simulation.addFatras(
        sequencer, geometry, field, rnd=random, enableInteractions=True
    )
    (folder / "digitisation.json").write_text(json.dumps(digitisation()))
    simulation.addDigitization(
        sequencer,
        geometry,
        field,
        digiConfigFile=folder / "digitisation.json",
        rnd=random,
    )
    simulation.addDigiParticleSelection(
        sequencer,
        simulation.ParticleSelectorConfig(
            measurements=(3, None), removeNeutral=True, removeSecondaries=True
        ),
    )
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
