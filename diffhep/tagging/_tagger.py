"""A set transformer over the tracks of a jet, with the vertex fit in the loop."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from ._features import JetVertex, track_momenta, vertex_features
from ._jet_tracks import FROM_BOTTOM, FROM_CHARM, NUM_FLAVOURS, NUM_ORIGINS, JetTracks
from ._track_features import JET_FEATURES, TRACK_FEATURES, track_features
from ._vertexing import AbstractVertexing, FittedVertex, TrackChoice


VERTEX_FEATURES = 9
_HEAVY = (FROM_BOTTOM, FROM_CHARM)
# Largest correction of a track that the network may ask for: a factor of two on its
# errors, and one standard deviation.
_MOST_STRETCH, _MOST_SHIFT = 0.7, 1.0


class TaggerOutput(eqx.Module):
    """What the tagger says of a jet; with a leading axis, of several."""

    flavour: Float[Array, "*jets flavours"]
    """Logits of light, charm and bottom."""
    origin: Float[Array, "*jets tracks origins"]
    """Logits of each track's origin. Dead slots mean nothing."""
    pair: Float[Array, "*jets tracks tracks"]
    """Log-odds that two tracks come from the same vertex. Symmetric."""
    vertex: JetVertex
    """The displaced vertex that the flavour was decided with."""


class _Block(eqx.Module):
    """Self-attention and a layer for each track, both after normalisation."""

    attention: eqx.nn.MultiheadAttention
    layer: eqx.nn.MLP
    norms: tuple[eqx.nn.LayerNorm, eqx.nn.LayerNorm]

    def __call__(
        self, tokens: Float[Array, "tracks width"], allowed: Bool[Array, "tracks keys"]
    ) -> Float[Array, "tracks width"]:
        normed = jax.vmap(self.norms[0])(tokens)
        tokens = tokens + self.attention(normed, normed, normed, mask=allowed)
        return tokens + jax.vmap(self.layer)(jax.vmap(self.norms[1])(tokens))


class FlavourTagger(eqx.Module):
    """Tells the flavour of a jet from its tracks.

    A set transformer embeds the tracks (the order of the slots does not matter). Heads
    say where each track comes from and which share a vertex, the auxiliary tasks of GN2
    (ATL-PHYS-PUB-2022-027). From the first follow the weights of the displaced vertex,
    whose features go into the classifier: NDIVE (arXiv:2310.12804).

    The networks compute in the precision of their weights, the fit in that of the
    tracks: single precision is enough for those, and not for a vertex of one track.
    """

    embed: eqx.nn.MLP
    blocks: tuple[_Block, ...]
    norm: eqx.nn.LayerNorm
    origin: eqx.nn.Linear
    pair: eqx.nn.Linear
    pair_bias: Float[Array, ""]
    choose: eqx.nn.Linear
    attend: eqx.nn.Linear
    classify: eqx.nn.MLP
    vertexing: AbstractVertexing
    """How the vertex is found."""

    @classmethod
    def init(
        cls,
        *,
        vertexing: AbstractVertexing | None = None,
        width: int = 64,
        num_heads: int = 4,
        num_blocks: int = 3,
        key: PRNGKeyArray,
    ) -> "FlavourTagger":
        """An untrained tagger.

        Args:
            vertexing: How the displaced vertex is found; by a fit unless given. The
                network has the same size with any.
            width: Numbers per track, a multiple of `num_heads`.
            num_heads: Heads of each attention.
            num_blocks: Number of blocks.
            key: Random key of the weights.

        Returns:
            The tagger. It trusts the fit to the tracks as measured at first: the
            weights are those of the origin, and there are no corrections.

        Raises:
            ValueError: The width is no multiple of the number of heads.
        """
        if num_heads < 1 or width % num_heads:
            raise ValueError(
                f"`width` is {width} and `num_heads` {num_heads}; give a width that "
                "is a multiple of the number of heads."
            )
        keys = jax.random.split(key, 7 + num_blocks)
        features = TRACK_FEATURES + JET_FEATURES
        choose = eqx.nn.Linear(width, 11, key=keys[4])
        choose = jax.tree.map(jnp.zeros_like, choose)
        return cls(
            embed=eqx.nn.MLP(features, width, width, 1, jax.nn.silu, key=keys[0]),
            blocks=tuple(_block(width, num_heads, key) for key in keys[7:]),
            norm=eqx.nn.LayerNorm(width),
            origin=eqx.nn.Linear(width, NUM_ORIGINS, key=keys[1]),
            pair=eqx.nn.Linear(width, width, key=keys[2]),
            pair_bias=jnp.zeros(()),
            choose=choose,
            attend=eqx.nn.Linear(width, 1, key=keys[5]),
            classify=eqx.nn.MLP(
                width + JET_FEATURES + VERTEX_FEATURES,
                NUM_FLAVOURS,
                width,
                2,
                jax.nn.silu,
                key=keys[6],
            ),
            vertexing=FittedVertex() if vertexing is None else vertexing,
        )

    def __call__(
        self, jet: JetTracks, *, vertexing: AbstractVertexing | None = None
    ) -> TaggerOutput:
        """What the tagger says of one jet.

        Args:
            jet: The jet. Dead slots may hold anything; without any track it is defined.
            vertexing: How the displaced vertex is found, if not as usual.

        Returns:
            Logits and vertex.
        """
        vertexing = self.vertexing if vertexing is None else vertexing
        kind = self.origin.weight.dtype
        each, whole = (x.astype(kind) for x in track_features(jet))
        tokens = self._tokens(each, whole, jet.mask)
        origin = jax.vmap(self.origin)(tokens)
        choice = self._choice(tokens, origin)
        choice = jax.tree.map(lambda x: x.astype(jet.parameters.dtype), choice)
        vertex = vertexing(jet, choice)
        clean = jnp.where(jet.mask[:, None], jet.parameters, 1.0)
        seen = vertex_features(
            jet.momentum, jet.mask.astype(clean.dtype), track_momenta(clean), vertex
        )
        pooled = self._pool(tokens, jet.mask)
        features = jnp.concatenate([pooled, whole, seen.astype(kind)])
        flavour = self.classify(features)
        return TaggerOutput(flavour, origin, self._pairs(tokens), vertex)

    def _tokens(
        self,
        each: Float[Array, "tracks features"],
        whole: Float[Array, " jet_features"],
        mask: Bool[Array, " tracks"],
    ) -> Float[Array, "tracks width"]:
        number = each.shape[0]
        common = jnp.broadcast_to(whole[None], (number, whole.shape[0]))
        tokens = jax.vmap(self.embed)(jnp.concatenate([each, common], axis=1))
        # One's own token is always allowed: a softmax over nothing is NaN.
        allowed = mask[None, :] | jnp.eye(number, dtype=bool)
        for block in self.blocks:
            tokens = block(tokens, allowed)
        return jax.vmap(self.norm)(tokens)

    def _choice(
        self,
        tokens: Float[Array, "tracks width"],
        origin: Float[Array, "tracks origins"],
    ) -> TrackChoice:
        heavy = jnp.asarray([k in _HEAVY for k in range(NUM_ORIGINS)])[None, :]
        odds = jax.nn.logsumexp(jnp.where(heavy, origin, -jnp.inf), axis=1)
        odds = odds - jax.nn.logsumexp(jnp.where(heavy, -jnp.inf, origin), axis=1)
        raw = jax.vmap(self.choose)(tokens)
        return TrackChoice(
            log_odds=odds + raw[:, 0],
            log_stretch=_MOST_STRETCH * jnp.tanh(raw[:, 1:6]),
            shift=_MOST_SHIFT * jnp.tanh(raw[:, 6:]),
        )

    def _pairs(
        self, tokens: Float[Array, "tracks width"]
    ) -> Float[Array, "tracks tracks"]:
        # Near in some projection means the same vertex.
        place = jax.vmap(self.pair)(tokens)
        squared = jnp.sum(place**2, axis=1)
        product = place @ place.T
        distance = squared[:, None] + squared[None, :] - 2 * product
        return self.pair_bias - distance / jnp.sqrt(1.0 * place.shape[1])

    def _pool(
        self, tokens: Float[Array, "tracks width"], mask: Bool[Array, " tracks"]
    ) -> Float[Array, " width"]:
        score = jax.vmap(self.attend)(tokens)[:, 0]
        # Bounded, so that a jet without tracks is defined: an average over none is 0.
        weight = jnp.where(mask, jnp.exp(5 * jnp.tanh(score / 5)), 0.0)
        return weight @ tokens / (jnp.sum(weight) + 1e-3)


def _block(width: int, num_heads: int, key: PRNGKeyArray) -> _Block:
    first, second = jax.random.split(key)
    return _Block(
        attention=eqx.nn.MultiheadAttention(num_heads, width, key=first),
        layer=eqx.nn.MLP(width, width, 2 * width, 1, jax.nn.silu, key=second),
        norms=(eqx.nn.LayerNorm(width), eqx.nn.LayerNorm(width)),
    )
