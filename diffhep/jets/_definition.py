"""Definitions of jets, this package's and fastjet's."""

from typing import Any

import equinox as eqx
import numpy as np

from ._algorithm import METRICS, SCHEMES
from ._metric import AbstractMetric, EnergyAngle, RapidityAzimuth
from ._scheme import (
    AbstractScheme,
    EScheme,
    PtScheme,
    WinnerTakeAllMomentum,
    WinnerTakeAllPt,
)


# Numbers of fastjet's algorithms, and the power of each; None is a parameter.
_HADRONS: dict[int, float | None] = {0: 1.0, 1: 0.0, 2: -1.0, 3: None}
_DURHAM, _LEPTONS = 50, 53
# Numbers of its recombination schemes.
_SCHEMES = {
    0: EScheme(),
    1: PtScheme(),
    7: WinnerTakeAllPt(),
    8: WinnerTakeAllMomentum(),
}


class JetDefinition(eqx.Module):
    """A generalised-kt algorithm."""

    radius: float = 0.4
    """Jet radius R."""
    power: float = -1.0
    """Power p of the transverse momentum, or of the energy: -1 anti-kt, 0
    Cambridge/Aachen, 1 kt."""
    metric: AbstractMetric = RapidityAzimuth()
    """In which coordinates distances are measured."""
    scheme: AbstractScheme = EScheme()
    """How momenta are recombined."""

    @classmethod
    def durham(cls, scheme: AbstractScheme | None = None) -> "JetDefinition":
        """Durham's algorithm for e+e- collisions, whose jets are exclusive.

        Args:
            scheme: How momenta are recombined; by `EScheme` unless given.

        Returns:
            The definition.
        """
        scheme = EScheme() if scheme is None else scheme
        return cls(np.inf, 1.0, EnergyAngle(), scheme)

    def __check_init__(self):
        known = type(self.metric) in METRICS and type(self.scheme) in SCHEMES
        endless = self.radius == np.inf and not isinstance(self.metric, EnergyAngle)
        if not self.radius > 0 or endless:
            raise ValueError(
                f"`radius` is {self.radius}, but must be positive, and finite unless "
                "the metric is `EnergyAngle`."
            )
        if not known:
            raise ValueError(
                f"`metric` is a `{type(self.metric).__name__}` and `scheme` a "
                f"`{type(self.scheme).__name__}`, but arrays are clustered with those "
                "of this package only; use `cluster`."
            )


def as_definition(jetdef: Any) -> JetDefinition:
    """A definition as this package's.

    Args:
        jetdef: A `JetDefinition`, this package's or fastjet's.

    Returns:
        The definition.

    Raises:
        ValueError: It is neither, or one of another kind of algorithm.
    """
    if isinstance(jetdef, JetDefinition):
        return jetdef
    if not hasattr(jetdef, "jet_algorithm"):
        raise ValueError(
            f"`jetdef` is a `{type(jetdef).__name__}`; pass a `JetDefinition`, this "
            "package's or fastjet's."
        )
    algorithm = jetdef.jet_algorithm()
    scheme = _SCHEMES.get(jetdef.recombination_scheme())
    if scheme is None or algorithm not in {*_HADRONS, _DURHAM, _LEPTONS}:
        raise ValueError(
            f"'{jetdef.description()}' is not a generalised-kt algorithm with the E, "
            "pt or a winner-take-all scheme; use fastjet's own `ClusterSequence`."
        )
    if algorithm == _DURHAM:
        return JetDefinition.durham(scheme)
    if algorithm == _LEPTONS:
        return JetDefinition(jetdef.R(), jetdef.extra_param(), EnergyAngle(), scheme)
    power = _HADRONS[algorithm]
    power = jetdef.extra_param() if power is None else power
    return JetDefinition(jetdef.R(), power, RapidityAzimuth(), scheme)
