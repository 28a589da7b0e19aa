from collections.abc import Callable
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ..estimators import Gradient
from ..event import Event
from ..numerics import sanitise
from ..pipeline import AbstractStage
from ._energy_scale import jet_weight, required, scale_factors, scale_jets
from ._learnt_ratio import network_precision
from ._summary import PairScore, num_features, summarise


class EstimateRatio(AbstractStage):
    """Stage: `jets`, `tags`, `missing_momentum` in; `log_ratio` out.

    One logit per variation of the jet energy scale: nominal, up, down. Convention: a
    classifier trained with both processes of equal total weight (`cross_entropy`) has
    the output s = sigmoid(logit) = p1 / (p1 + p0), so that the logit is the logarithm
    of the density ratio of signal to background, log(p1 / p0).

    How much a jet counts is computed again from its transverse momentum in each
    variation, with the threshold and width below, which should be those of
    `ClusterJets`.
    """

    score: PairScore
    """Which pair of jets is looked at."""
    network: Callable[[Float[Array, " features"]], Array]
    """From the event's features to the logit, one number: of equinox, or of flax
    (`FlaxNetwork`). May be of lower precision."""
    jes_width: Float[Array, ""]
    """Relative uncertainty of the jet energy scale. `SelectEvents` has its own copy:
    the derivative to the width itself is the sum over both."""
    threshold: float = eqx.field(static=True, default=15.0)
    """Transverse momentum at which a jet begins to count, in GeV."""
    width: float = eqx.field(static=True, default=10.0)
    """Further transverse momentum until it counts fully, in GeV."""

    reads: ClassVar[frozenset[str]] = frozenset({"jets", "tags", "missing_momentum"})
    writes: ClassVar[frozenset[str]] = frozenset({"log_ratio"})

    @property
    def gradient(self) -> Gradient:
        """Exact."""
        return Gradient.EXACT

    @classmethod
    def init(
        cls,
        *,
        num_tags: int,
        width: int = 32,
        depth: int = 2,
        jes_width: float = 0.03,
        key: PRNGKeyArray,
    ) -> "EstimateRatio":
        """The stage with a new network.

        Args:
            num_tags: Number of tags of a jet.
            width: Width of the network's hidden layers.
            depth: Number of hidden layers.
            jes_width: Relative uncertainty of the jet energy scale.
            key: Random key.

        Returns:
            The stage. Its first choice of pair are the jets of high momentum.
        """
        score = PairScore(jnp.zeros(num_tags), jnp.asarray(1.0), jnp.asarray(2.0))
        # A smooth activation: the gradient of a kink is an average over both sides.
        network = eqx.nn.MLP(
            num_features(num_tags), "scalar", width, depth, jax.nn.silu, key=key
        )
        return cls(score, network, jnp.asarray(jes_width))

    def __call__(self, event: Event, *, key: PRNGKeyArray) -> Event:
        """The event with `log_ratio` filled."""
        del key
        jets, missing = required(event)
        if event.tags is None:
            raise ValueError("The event lacks `tags`; run `TagJets` before.")
        momentum, tags = sanitise((jets.momentum, event.tags), jets.mask)
        size = {"threshold": self.threshold, "width": self.width}
        nominal = jet_weight(momentum, jets.mask, **size)
        precision = network_precision(self.network, momentum.dtype)

        def logit(factor: Float[Array, ""]) -> Float[Array, ""]:
            scaled, shifted = scale_jets(momentum, nominal, missing, factor)
            weight = jet_weight(scaled, jets.mask, **size)
            features = summarise(self.score, scaled, weight, tags, shifted)
            output = self.network(features.astype(precision))
            if output.size != 1:
                raise ValueError(
                    f"The network's output has the shape {output.shape}, but a logit "
                    "is one number; give the last layer one output."
                )
            return jnp.reshape(output, ()).astype(momentum.dtype)

        return event.replace(log_ratio=jax.vmap(logit)(scale_factors(self.jes_width)))
