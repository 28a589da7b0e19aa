"""A clustering algorithm: all that a history depends on, but for the momenta."""

import equinox as eqx
from jaxtyping import Array, Float

from ._metric import AbstractMetric, EnergyAngle, RapidityAzimuth
from ._radius import AbstractRadius, as_radius
from ._scheme import (
    AbstractScheme,
    EScheme,
    PtScheme,
    WinnerTakeAllMomentum,
    WinnerTakeAllPt,
)


# What engines outside of JAX know; the compiled one by these places.
METRICS = (RapidityAzimuth, EnergyAngle)
SCHEMES = (EScheme, PtScheme, WinnerTakeAllPt, WinnerTakeAllMomentum)


class Algorithm(eqx.Module):
    """A generalised-kt algorithm."""

    radius: AbstractRadius
    """Jet radius R."""
    power: Float[Array, ""]
    """Power p of the transverse momentum, or of the energy."""
    metric: AbstractMetric
    """In which coordinates distances are measured."""
    scheme: AbstractScheme
    """How momenta are recombined."""

    @classmethod
    def of(
        cls,
        radius: Float[Array, ""] | AbstractRadius,
        power: Float[Array, ""],
        metric: AbstractMetric | None,
        scheme: AbstractScheme | None,
    ) -> "Algorithm":
        """An algorithm; of hadron colliders and with the E-scheme unless given.

        Args:
            radius: Jet radius R, or a function for it.
            power: Power p.
            metric: In which coordinates distances are measured.
            scheme: How momenta are recombined.

        Returns:
            The algorithm.
        """
        metric = RapidityAzimuth() if metric is None else metric
        scheme = EScheme() if scheme is None else scheme
        return cls(as_radius(radius), power, metric, scheme)

    @property
    def is_usual(self) -> bool:
        """Whether it is one of hadron colliders with the E-scheme."""
        usual = isinstance(self.metric, RapidityAzimuth)
        return usual and isinstance(self.scheme, EScheme)
