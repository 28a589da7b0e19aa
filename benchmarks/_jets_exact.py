"""Whether the jets of each engine are those of fastjet, on events of Pythia 8."""

import itertools
from typing import Any, NamedTuple

import fastjet
import jax
import jax.numpy as jnp
import numpy as np

from diffhep.generator import (
    GeneratorConfig,
    Process,
    default_cache,
    generate_events,
    load_events,
)
from diffhep.jets import (
    AbstractEngine,
    AbstractMetric,
    AbstractScheme,
    EnergyAngle,
    EScheme,
    PtScheme,
    RapidityAzimuth,
    WinnerTakeAllMomentum,
    WinnerTakeAllPt,
    cluster,
    jets_from_history,
)

from ._harness import QUICK, Row


EVENTS = 100 if QUICK else 2000
_SLOTS = 256
_RADII = (0.4, 1.0) if QUICK else (0.2, 0.4, 0.7, 1.0)
# anti-kt, kt, Cambridge/Aachen, and one in between.
_POWERS = (-1.0, 1.0, 0.0, 0.5)
_SCHEMES = {
    EScheme: (fastjet.E_scheme, "E scheme"),
    PtScheme: (fastjet.pt_scheme, "pt scheme"),
    WinnerTakeAllPt: (fastjet.WTA_pt_scheme, "pt-ordered Winner-Takes-All"),
    WinnerTakeAllMomentum: (
        fastjet.WTA_modp_scheme,
        "|3-momentum|-ordered Winner-Takes-All",
    ),
}


class _Case(NamedTuple):
    """Algorithms that differ in numbers only."""

    label: str
    metric: AbstractMetric
    scheme: AbstractScheme
    settings: tuple[tuple[float, float], ...]
    """Radii and powers."""


def _cases() -> dict[str, list[_Case]]:
    plane, angle = RapidityAzimuth(), EnergyAngle()
    every = tuple(itertools.product(_RADII, _POWERS))
    few = ((0.4, -1.0), (1.0, 1.0))
    # Durham's has no radius.
    lepton = (*itertools.product(_RADII, _POWERS), (np.inf, 1.0))
    return {
        "dijets": [
            _Case("pp, E-scheme", plane, EScheme(), every),
            _Case("pp, pt-scheme", plane, PtScheme(), few),
            _Case("pp, winner take all", plane, WinnerTakeAllPt(), few),
        ],
        "z-pole": [
            _Case("e+e-, E-scheme", angle, EScheme(), lepton),
            _Case(
                "e+e-, winner take all",
                angle,
                WinnerTakeAllMomentum(),
                (*few, (np.inf, 1.0)),
            ),
        ],
    }


def hardest_first(
    process: Process, *, energy: float, slots: int
) -> tuple[np.ndarray, np.ndarray]:
    """Particles of events, the hardest ones if there are too many.

    Args:
        process: What is generated.
        energy: Of the collision, in GeV.
        slots: Places for particles.

    Returns:
        Four-momenta (px, py, pz, E), of shape (events, slots, 4), in GeV; and which
        slots hold a particle.
    """
    config = GeneratorConfig(
        name="jets-benchmark",
        processes=(process,),
        beam_energy=energy,
        min_pt=0.05,
        max_eta=5.0,
    )
    folder = generate_events(config, cache=default_cache())
    particles = load_events(folder, capacity=slots).events.particles
    # The hardest come first where some are left out; put them there in any case.
    momentum, mask = map(np.asarray, (particles.momentum, particles.mask))
    pt = np.where(mask, np.hypot(momentum[..., 0], momentum[..., 1]), -1.0)
    order = np.argsort(-pt, axis=1)
    return (
        np.take_along_axis(momentum, order[..., None], axis=1),
        np.take_along_axis(mask, order, axis=1),
    )


def dijets(number: int, slots: int) -> tuple[np.ndarray, np.ndarray]:
    """Dijet events at 14 TeV: see `hardest_first`.

    Args:
        number: How many.
        slots: Places for particles.

    Returns:
        Four-momenta and mask.
    """
    process = Process(
        name="dijets",
        label=0,
        commands=("HardQCD:all=on", "PhaseSpace:pTHatMin=100."),
        num_tried=number,
        chunk_size=max(number // 2, 1),
    )
    return hardest_first(process, energy=14_000.0, slots=slots)


def _z_pole(number: int, slots: int) -> tuple[np.ndarray, np.ndarray]:
    commands = (
        "Beams:idA=11",
        "Beams:idB=-11",
        "PDF:lepton=off",
        "WeakSingleBoson:ffbar2gmZ=on",
        "23:onMode=off",
        "23:onIfAny=1 2 3 4 5",
    )
    process = Process(
        name="z_pole",
        label=0,
        commands=commands,
        num_tried=number,
        chunk_size=max(number // 2, 1),
    )
    return hardest_first(process, energy=91.1876, slots=slots)


def definition(
    radius: float, power: float, metric: AbstractMetric, scheme: AbstractScheme
) -> Any:
    """Fastjet's definition of an algorithm.

    Args:
        radius: Jet radius; infinite for Durham's.
        power: Power p.
        metric: In which coordinates.
        scheme: How momenta are recombined.

    Returns:
        The `JetDefinition`.
    """
    # An explicit strategy and scheme: other constructors take the arguments for
    # something else without a word.
    number, words = _SCHEMES[type(scheme)]
    rest = (number, fastjet.N2Plain)
    if radius == np.inf:
        made = fastjet.JetDefinition0Param(fastjet.ee_kt_algorithm, *rest)
    elif isinstance(metric, EnergyAngle):
        made = fastjet.JetDefinition(fastjet.ee_genkt_algorithm, radius, power, *rest)
    else:
        made = fastjet.JetDefinition(fastjet.genkt_algorithm, radius, power, *rest)
    if words not in made.description():
        raise RuntimeError(f"fastjet understood {made.description()!r}.")
    return made


def _by_fastjet(momentum: np.ndarray, mask: np.ndarray, definition: Any) -> list:
    """For each event, jets by their constituents."""
    found = []
    for p, alive in zip(momentum, mask, strict=True):
        particles = []
        for slot in np.flatnonzero(alive):
            particle = fastjet.PseudoJet(*map(float, p[slot]))
            particle.set_user_index(int(slot))
            particles.append(particle)
        sequence = fastjet._swig.ClusterSequence(particles, definition)
        found.append(
            {
                frozenset(c.user_index() for c in jet.constituents()): np.array(
                    [jet.px(), jet.py(), jet.pz(), jet.e()]
                )
                for jet in sequence.inclusive_jets(0.0)
            }
        )
    return found


def compare(engines: dict[str, AbstractEngine]) -> list[Row]:
    """Compare the jets of engines with those of fastjet.

    Args:
        engines: By name.

    Returns:
        How many jets differ, and the largest error of a momentum.
    """
    rows = []
    samples = {"dijets": dijets, "z-pole": _z_pole}
    for sample, cases in _cases().items():
        events = samples[sample](EVENTS, _SLOTS)
        for case in cases:
            rows += _compare_case(engines, case, *events)
    return rows


def _compare_case(
    engines: dict[str, AbstractEngine],
    case: _Case,
    momentum: np.ndarray,
    mask: np.ndarray,
) -> list[Row]:
    events = jnp.asarray(momentum), jnp.asarray(mask)
    runs = {name: _run(case, engine) for name, engine in engines.items()}
    differ, worst = dict.fromkeys(engines, 0), dict.fromkeys(engines, 0.0)
    number = 0
    for numbers in case.settings:
        theirs = definition(*numbers, case.metric, case.scheme)
        expected = _by_fastjet(momentum, mask, theirs)
        number += sum(map(len, expected))
        for name, run in runs.items():
            arrays = map(np.asarray, run(events, jnp.asarray(numbers)))
            for p, member, alive, wanted in zip(*arrays, expected, strict=True):
                sets = map(frozenset, map(np.flatnonzero, member[alive]))
                found = dict(zip(sets, p[alive], strict=True))
                differ[name] += len(found.keys() ^ wanted.keys())
                for both in found.keys() & wanted.keys():
                    apart = np.abs(found[both] - wanted[both]).max()
                    worst[name] = max(worst[name], apart / wanted[both][3])
    rows = [Row(f"{case.label}: jets compared", number)]
    for name in engines:
        label = f"{case.label}: {name}"
        rows += [
            Row(f"{label}: jets with other constituents", differ[name], bar=0.0),
            Row(f"{label}: momenta, largest error", worst[name], bar=_bar(case.scheme)),
        ]
    return rows


def _bar(scheme: AbstractScheme) -> float:
    # A forward particle's mass, which a winner keeps, has lost the digits of the square
    # of its energy over its transverse momentum: up to four.
    return 1e-11 if isinstance(scheme, WinnerTakeAllPt) else 1e-12


def _run(case: _Case, engine: AbstractEngine) -> Any:
    kind = {"metric": case.metric, "scheme": case.scheme}

    def one(event: Any, numbers: Any) -> Any:
        momentum, mask = event
        radius, power = numbers
        history = cluster(
            momentum, mask, radius=radius, power=power, **kind, engine=engine
        )
        jets, _ = jets_from_history(
            history, momentum, mask, num_jets=_SLOTS, threshold=0.0, width=1.0, **kind
        )
        return jets.momentum, jets.membership, jets.mask

    return jax.jit(
        lambda events, numbers: jax.lax.map(
            lambda event: one(event, numbers), events, batch_size=100
        )
    )
