"""Histories by the Python package of fastjet."""

import importlib
from types import ModuleType
from typing import Any

import numpy as np

from ._metric import AbstractMetric, EnergyAngle
from ._scheme import (
    AbstractScheme,
    EScheme,
    PtScheme,
    WinnerTakeAllMomentum,
    WinnerTakeAllPt,
)


# By fastjet's names.
_SCHEMES = {
    EScheme: "E_scheme",
    PtScheme: "pt_scheme",
    WinnerTakeAllPt: "WTA_pt_scheme",
    WinnerTakeAllMomentum: "WTA_modp_scheme",
}


def load_package(package: str, engine: str) -> ModuleType:
    """An optional package.

    Args:
        package: Its name.
        engine: Who needs it.

    Returns:
        The module.

    Raises:
        ImportError: It is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ImportError(
            f"`{engine}` needs the package `{package}`; install it with "
            "`pip install diffhep[jets]`, or use `JaxEngine`."
        ) from error


def fastjet_definition(
    radius: float, power: float, metric: AbstractMetric, scheme: AbstractScheme
) -> Any:
    """An algorithm as fastjet's `JetDefinition`.

    Args:
        radius: Jet radius R.
        power: Power p.
        metric: In which coordinates distances are measured.
        scheme: How momenta are recombined.

    Returns:
        The definition.
    """
    fastjet = load_package("fastjet", "FastjetEngine")
    named = getattr(fastjet, _SCHEMES[type(scheme)])
    # The generalised algorithms with an explicit strategy: other constructors take the
    # arguments for something else without a word.
    rest = (named, fastjet.N2Plain)
    if not isinstance(metric, EnergyAngle):
        return fastjet.JetDefinition(fastjet.genkt_algorithm, radius, power, *rest)
    if radius == np.inf and power == 1:
        return fastjet.JetDefinition0Param(fastjet.ee_kt_algorithm, *rest)
    # Beyond half a turn all directions are in reach.
    reach = min(radius, 2 * np.pi)
    return fastjet.JetDefinition(fastjet.ee_genkt_algorithm, reach, power, *rest)


def steps_of(
    momentum: np.ndarray, mask: np.ndarray, definition: Any
) -> list[tuple[int, int]]:
    """The steps of one event.

    Args:
        momentum: Four-momenta, of shape (slots, 4), in GeV.
        mask: Which slots hold a particle.
        definition: fastjet's `JetDefinition`.

    Returns:
        Pairs of `keep` and `take` of `MergeHistory`.
    """
    fastjet = load_package("fastjet", "FastjetEngine")
    names = np.flatnonzero(mask)
    particles = [fastjet.PseudoJet(*map(float, momentum[slot])) for slot in names]
    sequence = fastjet._swig.ClusterSequence(particles, definition)
    steps: dict[int, tuple[int, int]] = {}
    ended = []
    # In the opposite order of that in which they met the beam.
    for jet in sequence.inclusive_jets(0.0):
        ended.append(_walk(jet, names, steps))
    beams = [k for k in range(len(names)) if k + len(names) not in steps]
    for place, name in zip(beams, reversed(ended), strict=True):
        steps[place + len(names)] = (name, -1)
    return [steps[index] for index in sorted(steps)]


def _walk(jet, names: np.ndarray, steps: dict[int, tuple[int, int]]) -> int:
    # Down the tree without recursion: it may be as deep as there are particles. The
    # first elements of fastjet's history are the particles, then comes one per step.
    fastjet = load_package("fastjet", "FastjetEngine")
    open_, order, parents = [jet], [], {}
    while open_:
        one = open_.pop()
        index = one.cluster_hist_index()
        order.append(index)
        first, second = fastjet.PseudoJet(), fastjet.PseudoJet()
        if one.has_parents(first, second):
            parents[index] = first.cluster_hist_index(), second.cluster_hist_index()
            open_ += [first, second]
    name = {index: int(names[index]) for index in order if index not in parents}
    for index in reversed(order):
        if index in parents:
            both = sorted(name[parent] for parent in parents[index])
            steps[index], name[index] = (both[0], both[1]), both[0]
    return name[order[0]]
