from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from ..estimators import Gradient
from ..event import Event
from ..numerics import safe_norm, sanitise, smooth_step
from ..pipeline import AbstractStage
from ._energy_scale import jet_weight, required, scale_factors, scale_jets


def soft_selection(
    weight: Float[Array, " jets"],
    missing_momentum: Float[Array, " 2"],
    *,
    cut: Float[Array, ""],
    temperature: Float[Array, ""],
) -> Float[Array, ""]:
    """How far an event passes: missing momentum above a cut, and at least two jets.

    Args:
        weight: How much each jet counts, 0 to 1.
        missing_momentum: Missing transverse momentum (x, y), in GeV.
        cut: Cut on its magnitude, in GeV.
        temperature: Width over which the cut is softened, in GeV, above zero.

    Returns:
        0 to 1: exactly 0 with one jet's worth of weights, no loss from the jets with
        two jets that count fully.
    """
    magnitude = safe_norm(missing_momentum)
    two_jets = smooth_step(jnp.sum(weight) - 1)
    return jax.nn.sigmoid((magnitude - cut) / temperature) * two_jets


def hard_selection(
    momentum: Float[Array, "jets 4"],
    mask: Bool[Array, " jets"],
    missing_momentum: Float[Array, " 2"],
    *,
    cut: Float[Array, ""],
    threshold: float = 20.0,
) -> Bool[Array, ""]:
    """Whether an event passes, as an experiment would cut. It has no gradient.

    Args:
        momentum: Four-momenta of the jets (px, py, pz, E), in GeV.
        mask: Which slots hold a jet.
        missing_momentum: Missing transverse momentum (x, y), in GeV.
        cut: Cut on its magnitude, in GeV.
        threshold: Transverse momentum that a jet must exceed, in GeV.

    Returns:
        Missing momentum above the cut, and at least two jets above the threshold.
    """
    transverse = safe_norm(sanitise(momentum, mask)[:, :2])
    enough = jnp.sum(mask & (transverse > threshold)) >= 2
    return (safe_norm(missing_momentum) > cut) & enough


class SelectHard(AbstractStage):
    """Stage: `jets`, `missing_momentum` in; `pass_weight` out, each exactly 0 or 1.

    For a last evaluation. Biased: the response of a cut to what lies before it is
    dropped.
    """

    cut: Float[Array, ""]
    """Cut on the missing transverse momentum, in GeV."""
    jes_width: Float[Array, ""]
    """Relative uncertainty of the jet energy scale."""
    threshold: float = eqx.field(static=True, default=20.0)
    """Transverse momentum that a jet must exceed, in GeV."""

    reads: ClassVar[frozenset[str]] = frozenset({"jets", "missing_momentum"})
    writes: ClassVar[frozenset[str]] = frozenset({"pass_weight"})

    @property
    def gradient(self) -> Gradient:
        """Biased: what lies before the cut does not feel it."""
        return Gradient.BIASED

    def __call__(self, event: Event, *, key: PRNGKeyArray) -> Event:
        """The event with `pass_weight` filled."""
        del key
        jets, missing = required(event)
        momentum = sanitise(jets.momentum, jets.mask)
        counts = jets.mask & (safe_norm(momentum[:, :2]) > self.threshold)
        counts = counts.astype(momentum.dtype)

        def decide(factor: Float[Array, ""]) -> Float[Array, ""]:
            scaled, shifted = scale_jets(momentum, counts, missing, factor)
            passed = hard_selection(
                scaled, jets.mask, shifted, cut=self.cut, threshold=self.threshold
            )
            return passed.astype(momentum.dtype)

        return event.replace(
            pass_weight=jax.vmap(decide)(scale_factors(self.jes_width))
        )


class SelectEvents(AbstractStage):
    """Stage: `jets`, `missing_momentum` in; `pass_weight` out, one per variation.

    The variations are those of the jet energy scale: nominal, up, down. How much a jet
    counts is computed again from its transverse momentum in each of them, with the
    threshold and width below, which should be those of `ClusterJets`.
    """

    cut: Float[Array, ""] = eqx.field(default_factory=lambda: jnp.asarray(100.0))
    """Cut on the missing transverse momentum, in GeV."""
    temperature: Float[Array, ""] = eqx.field(default_factory=lambda: jnp.asarray(10.0))
    """Width over which the cut is softened, in GeV."""
    jes_width: Float[Array, ""] = eqx.field(default_factory=lambda: jnp.asarray(0.03))
    """Relative uncertainty of the jet energy scale. `EstimateRatio` has its own copy:
    the derivative to the width itself is the sum over both."""
    threshold: float = eqx.field(static=True, default=15.0)
    """Transverse momentum at which a jet begins to count, in GeV."""
    width: float = eqx.field(static=True, default=10.0)
    """Further transverse momentum until it counts fully, in GeV."""

    reads: ClassVar[frozenset[str]] = frozenset({"jets", "missing_momentum"})
    writes: ClassVar[frozenset[str]] = frozenset({"pass_weight"})

    @property
    def gradient(self) -> Gradient:
        """Exact."""
        return Gradient.EXACT

    def __call__(self, event: Event, *, key: PRNGKeyArray) -> Event:
        """The event with `pass_weight` filled."""
        del key
        jets, missing = required(event)
        momentum = sanitise(jets.momentum, jets.mask)
        size = {"threshold": self.threshold, "width": self.width}
        nominal = jet_weight(momentum, jets.mask, **size)

        def passing(factor: Float[Array, ""]) -> Float[Array, ""]:
            scaled, shifted = scale_jets(momentum, nominal, missing, factor)
            weight = jet_weight(scaled, jets.mask, **size)
            return soft_selection(
                weight, shifted, cut=self.cut, temperature=self.temperature
            )

        return event.replace(
            pass_weight=jax.vmap(passing)(scale_factors(self.jes_width))
        )

    def harden(self) -> SelectHard:
        """The stage with hard cuts at the same place, for a last evaluation.

        The hard threshold on a jet lies where its soft weight is one half.
        """
        return SelectHard(
            self.cut, self.jes_width, threshold=self.threshold + self.width / 2
        )
