"""One network, three ways to train it."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from diffhep.geometry import Barrel
from diffhep.tracking import TrackPicksHits, combine_hits, fit_arms, fit_track

from ._pattern_events import (
    LAYERS,
    SEED_ERRORS,
    Candidates,
    draw,
    inverse_momentum,
)


WIDTH, HEADS, BLOCKS = 32, 4, 2
ARMS = ("joint", "labels", "regression", "labels then joint")


class Block(eqx.Module):
    """Self-attention over the candidates, and a layer for each."""

    attention: eqx.nn.MultiheadAttention
    mix: eqx.nn.MLP
    norms: tuple[eqx.nn.LayerNorm, eqx.nn.LayerNorm]

    def __call__(
        self, tokens: Float[Array, "tokens width"], allowed: Array
    ) -> Float[Array, "tokens width"]:
        """New tokens."""
        normed = jax.vmap(self.norms[0])(tokens)
        tokens = tokens + self.attention(normed, normed, normed, mask=allowed)
        return tokens + jax.vmap(self.mix)(jax.vmap(self.norms[1])(tokens))


class Network(eqx.Module):
    """A transformer over all candidates: of the same size in each arm."""

    embed: eqx.nn.Linear
    layer: Float[Array, "layers width"]
    blocks: tuple[Block, ...]
    head: eqx.nn.Linear

    def __call__(
        self, candidates: Candidates
    ) -> tuple[Float[Array, "layers candidates"], Float[Array, ""]]:
        """The log-odds that a candidate is of the track, and one number for the track.

        Args:
            candidates: The candidates of one track.

        Returns:
            Both. Each arm uses one of them.
        """
        mask = jnp.ravel(candidates.mask)
        road = jnp.where(candidates.mask[:, :, None], candidates.road, 0.0)
        tokens = jax.vmap(jax.vmap(self.embed))(road) + self.layer[:, None]
        tokens = jnp.reshape(tokens, (mask.shape[0], -1))
        # One's own token is always allowed: a softmax over nothing is NaN.
        allowed = mask[None, :] | jnp.eye(mask.shape[0], dtype=bool)
        for block in self.blocks:
            tokens = block(tokens, allowed)
        out = jax.vmap(self.head)(tokens)
        number = jnp.sum(jnp.where(mask, out[:, 1], 0.0)) / LAYERS
        return jnp.reshape(out[:, 0], candidates.mask.shape), number


def build(key: PRNGKeyArray) -> Network:
    """A network with random weights."""
    keys = jax.random.split(key, 3 + BLOCKS)
    blocks = []
    for block_key in keys[3:]:
        first, second = jax.random.split(block_key)
        norms = (eqx.nn.LayerNorm(WIDTH), eqx.nn.LayerNorm(WIDTH))
        mix = eqx.nn.MLP(WIDTH, WIDTH, 2 * WIDTH, 1, jax.nn.gelu, key=second)
        attention = eqx.nn.MultiheadAttention(HEADS, WIDTH, key=first)
        blocks.append(Block(attention, mix, norms))
    return Network(
        embed=eqx.nn.Linear(2, WIDTH, key=keys[0]),
        layer=jax.random.normal(keys[1], (LAYERS, WIDTH)),
        blocks=tuple(blocks),
        head=eqx.nn.Linear(WIDTH, 2, key=keys[2]),
    )


def hit_weights(
    log_odds: Float[Array, "layers candidates"], candidates: Candidates
) -> Float[Array, "layers candidates"]:
    """On each layer a softmax over the candidates and none of them."""
    options = jnp.where(candidates.mask, log_odds, -jnp.inf)
    options = jnp.concatenate([options, jnp.zeros((LAYERS, 1), options.dtype)], axis=1)
    return jax.nn.softmax(options, axis=1)[:, :-1]


def weighted_fit(
    weights: Float[Array, "layers candidates"], candidates: Candidates, detector: Barrel
) -> Float[Array, ""]:
    """q/pT of the fit to the seed and to all candidates with weights."""
    position, total, mask = combine_hits(
        candidates.position, weights, candidates.mask, detector
    )
    seed = candidates.seed
    fit = fit_track(
        position, mask, detector, weight=total, seed=seed.parameters, prior=seed
    )
    return inverse_momentum(fit.parameters)


def filtered_fit(
    log_odds: Float[Array, "layers candidates"],
    candidates: Candidates,
    detector: Barrel,
) -> Float[Array, ""]:
    """q/pT of the deterministic annealing filter."""
    fit = fit_arms(
        candidates.position,
        candidates.mask,
        candidates.seed.parameters[None],
        detector,
        log_odds=log_odds[None],
        competition=TrackPicksHits(),
    )
    return inverse_momentum(fit.parameters[0])


def estimate(
    arm: str, network: Network, candidates: Candidates, detector: Barrel
) -> Float[Array, ""]:
    """q/pT of one track.

    Args:
        arm: How the network was trained.
        network: The network.
        candidates: The candidates.
        detector: The detector.

    Returns:
        In 1/GeV.
    """
    log_odds, number = network(candidates)
    if arm == "regression":
        return inverse_momentum(candidates.seed.parameters) + SEED_ERRORS[4] * number
    return weighted_fit(hit_weights(log_odds, candidates), candidates, detector)


class Loss(eqx.Module):
    """The loss of an arm on new tracks in each step."""

    detector: Barrel
    arm: str = eqx.field(static=True)
    batch: int = eqx.field(static=True)
    low: Float[Array, ""]
    high: Float[Array, ""]

    def __call__(
        self, network: Network, key: PRNGKeyArray, step: Array
    ) -> Float[Array, ""]:
        """The mean over a batch."""
        del step
        keys = jax.random.split(key, self.batch)
        tracks = jax.vmap(draw, in_axes=(0, None, None, None))(
            keys, self.detector, self.low, self.high
        )
        tracks = jax.lax.stop_gradient(tracks)
        return jnp.mean(jax.vmap(lambda c: self._one(network, c))(tracks))

    def _one(self, network: Network, candidates: Candidates) -> Float[Array, ""]:
        if self.arm == "labels":
            log_odds, _ = network(candidates)
            weights = hit_weights(log_odds, candidates)
            none = 1 - jnp.sum(weights, axis=1)
            truth = jnp.sum(jnp.where(candidates.is_true, weights, 0.0), axis=1)
            right = jnp.where(jnp.any(candidates.is_true, axis=1), truth, none)
            return -jnp.sum(jnp.log(jnp.maximum(right, 1e-12)))
        value = estimate(self.arm, network, candidates, self.detector)
        # Like the square near zero, and like the magnitude far away.
        pull = (value - candidates.truth) / candidates.sigma
        return jnp.sqrt(1 + pull**2) - 1
