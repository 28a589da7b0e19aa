"""One tagger, six ways to come by the displaced vertex."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.lax import stop_gradient
from jaxtyping import Array, Float, PRNGKeyArray

from diffhep.tagging import (
    FROM_BOTTOM,
    FROM_CHARM,
    AbstractVertexing,
    FlavourTagger,
    JetTracks,
    JetTruth,
    JetVertex,
    NoVertex,
    TaggerLoss,
    TaggerOutput,
    TrackChoice,
    tagger_loss,
)

from ._flavour_jets import LabelledJets


ARMS = {
    "none": "no vertex",
    "stopped": "the fit, through which no gradient flows",
    "weights": "the fit, with the gradient to the tracks' weights alone (NDIVE)",
    "full": "the fit, with the gradient to weights, tracks, covariances and prior",
    "true selection": "the fit of the tracks that come from heavy hadrons",
    "true vertex": "the place of the decay itself",
}
SIZE = {"width": 32, "num_heads": 4, "num_blocks": 2}
# Log-odds that are as good as certain.
_CERTAIN = 20.0
# Standard deviation of the true vertex, in mm.
_EXACT = 0.01


class Stopped(AbstractVertexing):
    """A vertex through which no gradient flows."""

    inner: AbstractVertexing

    def __call__(self, jet: JetTracks, choice: TrackChoice) -> JetVertex:
        """The vertex."""
        # All gradients are dropped: that is what this arm is for.
        return stop_gradient(self.inner(jet, choice))


class WeightsOnly(AbstractVertexing):
    """A vertex with the gradient to the weights of the tracks and to nothing else."""

    inner: AbstractVertexing

    def __call__(self, jet: JetTracks, choice: TrackChoice) -> JetVertex:
        """The vertex."""
        # The gradients to tracks and prior are dropped: that is what this arm is for.
        inner, rest = stop_gradient((self.inner, choice))
        return inner(jet, TrackChoice(choice.log_odds, rest.log_stretch, rest.shift))


class TrueSelection(AbstractVertexing):
    """The fit of the tracks from heavy hadrons, as they were measured."""

    inner: AbstractVertexing
    heavy: Float[Array, " tracks"]

    def __call__(self, jet: JetTracks, choice: TrackChoice) -> JetVertex:
        """The vertex."""
        zero = jnp.zeros_like(choice.shift)
        odds = _CERTAIN * (2 * self.heavy - 1)
        return self.inner(jet, TrackChoice(odds, zero, zero))


class TrueVertex(AbstractVertexing):
    """The true flight, and the tracks from heavy hadrons."""

    heavy: Float[Array, " tracks"]
    flight: Float[Array, " 3"]

    def __call__(self, jet: JetTracks, choice: TrackChoice) -> JetVertex:
        """The vertex."""
        empty = NoVertex()(jet, choice)
        weight = jnp.where(jet.mask, self.heavy, 0.0)
        spread = _EXACT**2 * jnp.eye(3, dtype=weight.dtype)
        return eqx.tree_at(
            lambda vertex: (vertex.flight, vertex.covariance, vertex.weight),
            empty,
            (self.flight, spread, weight),
        )


def build(key: PRNGKeyArray) -> FlavourTagger:
    """An untrained tagger: of the same size and initial weights in each arm."""
    tagger = FlavourTagger.init(**SIZE, key=key)
    return jax.tree.map(
        lambda x: x.astype("float32") if eqx.is_inexact_array(x) else x, tagger
    )


def apply(
    arm: str, tagger: FlavourTagger, jet: JetTracks, truth: JetTruth
) -> TaggerOutput:
    """What a tagger says of one jet.

    Args:
        arm: Which of `ARMS`.
        tagger: The tagger.
        jet: The jet.
        truth: The truth about it, of which two arms make use.

    Returns:
        Logits and vertex.
    """
    heavy = (truth.origin == FROM_BOTTOM) | (truth.origin == FROM_CHARM)
    heavy = heavy.astype(jet.field.dtype)
    fit = tagger.vertexing
    vertexing = {
        "none": NoVertex(),
        "stopped": Stopped(fit),
        "weights": WeightsOnly(fit),
        "full": fit,
        "true selection": TrueSelection(fit, heavy),
        "true vertex": TrueVertex(heavy, truth.flight.astype(heavy.dtype)),
    }[arm]
    return tagger(jet, vertexing=vertexing)


def losses(output: TaggerOutput, jet: LabelledJets) -> TaggerLoss:
    """The three losses of one jet."""
    return tagger_loss(output, jet.tracks.mask, jet.truth)


class Loss(eqx.Module):
    """The loss of an arm on random jets in each step."""

    jets: LabelledJets
    arm: str = eqx.field(static=True)
    batch: int = eqx.field(static=True)

    def __call__(
        self, tagger: FlavourTagger, key: PRNGKeyArray, step: Array
    ) -> Float[Array, ""]:
        """The mean over a batch, drawn with replacement."""
        del step
        number = self.jets.tracks.field.shape[0]
        place = jax.random.randint(key, (self.batch,), 0, number)
        jets = jax.tree.map(lambda x: x[place], self.jets)
        return self.mean(tagger, jets)

    def mean(self, tagger: FlavourTagger, jets: LabelledJets) -> Float[Array, ""]:
        """The mean over given jets."""

        def one(jet: LabelledJets) -> Float[Array, ""]:
            output = apply(self.arm, tagger, jet.tracks, jet.truth)
            return losses(output, jet).total()

        return jnp.mean(jax.vmap(one)(jets))
