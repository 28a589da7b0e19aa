import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ._jet_tracks import AMBIGUOUS, JetTruth, same_vertex
from ._tagger import TaggerOutput


class TaggerLoss(eqx.Module):
    """The three losses of a tagger, each a mean cross-entropy of one jet, in nats."""

    flavour: Float[Array, "*jets"]
    """Of the jet's flavour; zero for an ambiguous jet."""
    origin: Float[Array, "*jets"]
    """Of the origins of its tracks; zero without tracks."""
    pair: Float[Array, "*jets"]
    """Of its pairs of tracks; zero without pairs."""

    def total(self, *, origin: float = 0.5, pair: float = 1.5) -> Float[Array, "*jets"]:
        """The weighted sum.

        Args:
            origin: Weight of the origins, relative to the flavour.
            pair: Weight of the pairs. Both are those of GN2 unless given.

        Returns:
            The loss.
        """
        return self.flavour + origin * self.origin + pair * self.pair


def tagger_loss(
    output: TaggerOutput, mask: Bool[Array, " tracks"], truth: JetTruth
) -> TaggerLoss:
    """How far what the tagger says of one jet is from the truth.

    Args:
        output: What it says.
        mask: Which slots hold a track.
        truth: The truth.

    Returns:
        The losses.
    """
    known = truth.flavour != AMBIGUOUS
    flavour = _cross_entropy(output.flavour, jnp.where(known, truth.flavour, 0))
    origin = jax.vmap(_cross_entropy)(
        jnp.where(mask[:, None], output.origin, 0.0), truth.origin
    )
    together, pairs = same_vertex(truth, mask)
    logit = jnp.where(pairs, output.pair, 0.0)
    pair = -jax.nn.log_sigmoid(jnp.where(together, logit, -logit))
    return TaggerLoss(
        flavour=jnp.where(known, flavour, 0.0),
        origin=_mean(origin, mask),
        pair=_mean(pair, pairs),
    )


def _cross_entropy(logits: Float[Array, " classes"], label: Array) -> Float[Array, ""]:
    # One-hot: a gather's derivative is a scatter.
    right = jnp.arange(logits.shape[0]) == label
    return -jnp.sum(jnp.where(right, jax.nn.log_softmax(logits), 0.0))


def _mean(values: Array, mask: Array) -> Float[Array, ""]:
    number = jnp.sum(mask.astype(values.dtype))
    return jnp.sum(jnp.where(mask, values, 0.0)) / jnp.maximum(number, 1.0)
