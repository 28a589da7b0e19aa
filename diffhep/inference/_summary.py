"""The numbers of an event that its likelihood ratio is made from."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..numerics import safe_norm, wrap_angle


# Natural scales, so that the features are of order one.
_MASS = 125.0  # GeV, of the Higgs boson
_MOMENTUM = 100.0  # GeV


class PairScore(eqx.Module):
    """How likely two jets are the pair that a resonance decayed to. Linear."""

    tags: Float[Array, " tags"]
    """Per unit of each jet's tags."""
    log_momentum: Float[Array, ""]
    """Per unit of each jet's logarithm of transverse momentum over 30 GeV."""
    bias: Float[Array, ""]
    """Log-odds against `no pair` of untagged jets of 30 GeV."""


def pair_probabilities(
    score: PairScore,
    transverse: Float[Array, " jets"],
    weight: Float[Array, " jets"],
    tags: Float[Array, "jets tags"],
) -> Float[Array, "jets jets"]:
    """The probability that each pair is the one looked for; the rest is `no pair`.

    A softmax over all pairs and `no pair`, in which a pair counts as much as its jets
    do: it appears and vanishes smoothly at the threshold.

    Args:
        score: The score of a pair.
        transverse: Transverse momenta, in GeV, above zero.
        weight: How much each jet counts, 0 to 1.
        tags: The tags of each jet.

    Returns:
        Probabilities above the diagonal (each pair once), zero elsewhere.
    """
    each = jnp.sum(tags * score.tags[None, :], axis=1)
    each = each + score.log_momentum * jnp.log(transverse / 30.0)
    logit = each[:, None] + each[None, :] + score.bias
    upper = jnp.triu(jnp.ones(logit.shape, bool), k=1)
    both = jnp.where(upper, weight[:, None] * weight[None, :], 0.0)
    # The shift cancels in the ratio exactly, and so does its derivative. Pairs without
    # weight have no say in it, or a wild score of theirs could empty the sum.
    alive = both > 0
    shift = jax.lax.stop_gradient(jnp.max(logit, initial=0.0, where=alive))
    odds = both * jnp.exp(jnp.where(alive, logit, 0.0) - shift)
    return odds / (jnp.exp(-shift) + jnp.sum(odds))


def summarise(
    score: PairScore,
    momentum: Float[Array, "jets 4"],
    weight: Float[Array, " jets"],
    tags: Float[Array, "jets tags"],
    missing_momentum: Float[Array, " 2"],
) -> Float[Array, " features"]:
    """The features of one event: smooth, and independent of the order of the jets.

    Args:
        score: The score of a pair of jets.
        momentum: Four-momenta (px, py, pz, E), in GeV; no NaN.
        weight: How much each jet counts, 0 to 1; exactly 0 in dead slots.
        tags: The tags of each jet; no NaN.
        missing_momentum: Missing transverse momentum (x, y), in GeV.

    Returns:
        `num_features(tags)` numbers of order one: of the softly selected pair its
        probability, mass (twice), transverse momentum, angles and tags; of the event
        H_T, missing momentum, number of jets, their hardness, direction and tags.
    """
    # Jets without weight must not reach a logarithm or an angle.
    alive = weight > 0
    safe = jnp.asarray([1.0, 0.0, 0.0, 1.0], momentum.dtype)
    momentum = jnp.where(alive[:, None], momentum, safe[None, :])
    transverse = safe_norm(momentum[:, :2])
    pair = pair_probabilities(score, transverse, weight, tags)
    magnitude = safe_norm(missing_momentum)
    direction = missing_momentum / jnp.sqrt(magnitude**2 + 1)

    total = momentum[:, None, :] + momentum[None, :, :]
    boost = safe_norm(total[..., :2])
    # Clipped: two jets in one direction have a mass of zero but for rounding.
    square = total[..., 3] ** 2 - boost**2 - total[..., 2] ** 2
    mass = jnp.sqrt(jnp.maximum(square, 1.0)) / _MASS
    along = jnp.sum(total[..., :2] * direction[None, None, :], axis=-1)
    pairs = jnp.stack(
        [
            jnp.ones_like(mass),
            mass,
            jnp.tanh(4 * (mass - 1)),
            boost / _MOMENTUM,
            along / _MOMENTUM,
            _separation(momentum, transverse),
        ]
    )
    pair_features = jnp.sum(pairs * pair[None], axis=(1, 2))
    # Each jet's probability of being in the pair.
    chosen = jnp.sum(pair, axis=0) + jnp.sum(pair, axis=1)
    scalar = jnp.sum(weight * transverse)
    toward = jnp.sum(momentum[:, :2] * direction[None, :], axis=1)
    event_features = jnp.stack(
        [
            magnitude / _MOMENTUM,
            scalar / (2 * _MOMENTUM),
            jnp.sum(weight) / 2,
            jnp.sum(weight * transverse**2) / (scalar + 1) / _MOMENTUM,
            jnp.sum(weight * toward) / _MOMENTUM,
        ]
    )
    pooled = jnp.sum(weight[:, None] * tags, axis=0)
    picked = jnp.sum(chosen[:, None] * tags, axis=0)
    return jnp.concatenate([pair_features, event_features, picked, pooled])


def num_features(num_tags: int) -> int:
    """How many features `summarise` returns.

    Args:
        num_tags: Number of tags of a jet.

    Returns:
        The number.
    """
    return 11 + 2 * num_tags


def _separation(
    momentum: Float[Array, "jets 4"], transverse: Float[Array, " jets"]
) -> Float[Array, "jets jets"]:
    pseudorapidity = jnp.arcsinh(momentum[:, 2] / transverse)
    azimuth = jnp.arctan2(momentum[:, 1], momentum[:, 0])
    difference = jnp.stack(
        [
            pseudorapidity[:, None] - pseudorapidity[None, :],
            wrap_angle(azimuth[:, None] - azimuth[None, :]),
        ],
        axis=-1,
    )
    return safe_norm(difference)
