from typing import Any, ClassVar

import equinox as eqx
from jaxtyping import Array, Float, PRNGKeyArray

from ..estimators import AbstractSampler, Gradient, Score, with_score
from ..event import Event, MergeHistory, Status
from ..pipeline import AbstractStage
from ._alive import alive_momentum
from ._candidates import AbstractCandidates, AllPairs
from ._jets import jets_from_history
from ._metric import AbstractMetric, RapidityAzimuth
from ._radius import AbstractRadius
from ._replay import history_log_prob
from ._scheme import AbstractScheme, EScheme
from ._search import HistoryScore, sample_history


class ClusterJets(AbstractStage):
    """Stage: `constituents` in, `history` and `jets` out: probabilistic clustering.

    Which pseudojets merge is a discrete choice, drawn by `sample_history`; given that,
    the jets are pathwise in the constituents. First derivatives only.
    """

    radius: Float[Array, ""] | AbstractRadius
    """Jet radius R, positive; or a function for it, with parameters of its own."""
    power: Float[Array, ""]
    """Power of the transverse momentum: -1 anti-kt, 0 Cambridge/Aachen, 1 kt. At
    exactly 0 all beams are equally near, and the derivative to the power is one of the
    subgradients."""
    sharpness: Float[Array, ""]
    """Inverse temperature, positive. Ordinary clustering is the limit of infinity."""
    num_jets: int = eqx.field(static=True, default=6)
    """Jet slots."""
    threshold: float = eqx.field(static=True, default=15.0)
    """Transverse momentum up to which a jet has no weight, in GeV."""
    width: float = eqx.field(static=True, default=10.0)
    """A jet has full weight from the threshold plus this on, in GeV."""
    estimator: AbstractSampler = Score()
    """How the gradient crosses the choice."""
    candidates: AbstractCandidates = AllPairs()
    """Which pairs and beams a step draws from."""
    metric: AbstractMetric = RapidityAzimuth()
    """In which coordinates distances are measured. With `EnergyAngle` energies take
    the place of transverse momenta."""
    scheme: AbstractScheme = EScheme()
    """How momenta are recombined."""

    reads: ClassVar[frozenset[str]] = frozenset({"constituents"})
    writes: ClassVar[frozenset[str]] = frozenset({"history", "jets"})

    def __check_init__(self):
        if self.num_jets < 1 or self.width <= 0:
            raise ValueError(
                f"`num_jets` is {self.num_jets} and `width` {self.width}, but both "
                "must be positive; 6 jets and 10 GeV are usual."
            )

    @property
    def gradient(self) -> Gradient:
        """What the estimator promises, if all pairs are candidates; else biased."""
        # The score misses where a history's probability jumps: see the candidates.
        everything = isinstance(self.candidates, AllPairs)
        return self.estimator.gradient if everything else Gradient.BIASED

    def __call__(self, event: Event, *, key: PRNGKeyArray) -> Event:
        """The event with a clustering, its jets, and the score of the clustering."""
        if event.constituents is None:
            raise ValueError(
                "The event lacks `constituents`; run `CollectConstituents` before."
            )
        mask = event.constituents.mask
        momentum = alive_momentum(event.constituents.momentum, mask)
        settings = (self.radius, self.power, self.sharpness)
        kind: dict[str, Any] = {"metric": self.metric, "scheme": self.scheme}
        rules = {"candidates": self.candidates, **kind}
        rules |= zip(("radius", "power", "sharpness"), settings, strict=True)

        def draw() -> tuple[MergeHistory, Float[Array, ""]]:
            history, value, score = sample_history(momentum, mask, **rules, key=key)
            inputs = HistoryScore(momentum, *settings)
            return history, with_score(value, inputs, score)

        recorded = None
        if event.history is not None:
            # An estimator that makes nothing of the log-probability has it eliminated.
            value = history_log_prob(event.history, momentum, mask, **rules)
            recorded = (event.history, value)
        history, log_prob = self.estimator.outcome(draw, recorded)
        jets, overflow = jets_from_history(
            history,
            momentum,
            mask,
            num_jets=self.num_jets,
            threshold=self.threshold,
            width=self.width,
            **kind,
        )
        event = event.replace(history=history, jets=jets)
        event = event.flag(Status.JET_OVERFLOW, overflow)
        return event.add_log_weight(self.estimator.term(log_prob))
