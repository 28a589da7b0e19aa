from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ..estimators import Gradient
from ..event import Event, Status, Vertices
from ..geometry import detector_of
from ..pipeline import AbstractStage
from ..vertexing import safe_vertices
from ._jet_tracks import JetTracks, jet_tracks
from ._tagger import FlavourTagger


class TagFlavours(AbstractStage):
    """Stage: the flavour of each jet, by a transformer with the vertex fit inside.

    In place of `FitSecondaryVertices` and `TagJets`. Of each jet there are three tags,
    the logits of light, charm and bottom (`discriminant` takes them) with a mean of
    zero, multiplied by the jet's selection weight: they fade with it to no preference.
    A vertex whose fit has not converged sets `Status.VERTEX_FIT_FAILED` and stays.
    """

    tagger: FlavourTagger
    num_tracks: int = eqx.field(static=True, default=20)
    """Tracks of a jet, its hardest. More of them set `Status.TRACK_OVERFLOW`."""

    reads: ClassVar[frozenset[str]] = frozenset(
        {"tracks", "jets", "primary_vertex", "detector"}
    )
    writes: ClassVar[frozenset[str]] = frozenset({"tags", "secondary_vertices"})

    @classmethod
    def init(
        cls,
        *,
        num_tracks: int = 20,
        width: int = 64,
        num_heads: int = 4,
        num_blocks: int = 3,
        key: PRNGKeyArray,
    ) -> "TagFlavours":
        """The stage with an untrained tagger.

        Args:
            num_tracks: Slots for the tracks of a jet.
            width: Numbers per track, a multiple of `num_heads`.
            num_heads: Heads of each attention.
            num_blocks: Number of blocks.
            key: Random key of the weights.

        Returns:
            The stage.

        Raises:
            ValueError: The width is no multiple of the number of heads.
        """
        tagger = FlavourTagger.init(
            width=width, num_heads=num_heads, num_blocks=num_blocks, key=key
        )
        return cls(tagger, num_tracks)

    @property
    def gradient(self) -> Gradient:
        """Exact, within the order of the tracks by momentum."""
        return Gradient.EXACT

    def __call__(self, event: Event, *, key: PRNGKeyArray) -> Event:
        """The event with `tags` and `secondary_vertices`."""
        del key
        tracks, jets, primary = event.tracks, event.jets, event.primary_vertex
        if tracks is None or jets is None or primary is None:
            raise ValueError(
                "The event lacks `tracks`, `jets` or `primary_vertex`; run "
                "`FitTracks`, `ClusterJets` and `FitPrimaryVertex` before."
            )
        field = detector_of(event.detector).field
        found, place, many = jet_tracks(
            tracks, jets, primary, field, num_tracks=self.num_tracks
        )
        weight = jnp.where(jets.mask, jets.weight, 0.0)
        output = jax.vmap(self.tagger)(_safe(found, weight))
        logits = output.flavour - jnp.mean(output.flavour, axis=1, keepdims=True)
        vertex = output.vertex
        share = jnp.where(found.mask, vertex.weight, 0.0)
        slots = jnp.arange(tracks.mask.shape[0], dtype=place.dtype)
        slot_of = place[:, :, None] == slots[None, None, :]
        vertices = Vertices(
            position=vertex.flight + safe_vertices(primary).position,
            covariance=vertex.covariance - found.primary_covariance,
            track_weight=jnp.sum(jnp.where(slot_of, share[:, :, None], 0.0), axis=1),
            chi2=vertex.chi2,
            ndf=vertex.ndf,
            mask=jets.mask & jnp.any(found.mask, axis=1),
        )
        event = event.replace(
            tags=weight[:, None] * logits.astype(weight.dtype),
            secondary_vertices=vertices,
        )
        failed = jnp.any(~vertex.converged & vertices.mask)
        event = event.flag(Status.VERTEX_FIT_FAILED, failed)
        return event.flag(Status.TRACK_OVERFLOW, jnp.any(many & jets.mask))


def _safe(found: JetTracks, weight: Float[Array, " jets"]) -> JetTracks:
    # A jet without weight may have no direction: a particle of one GeV stands in.
    canned = jnp.asarray([1.0, 0.0, 0.0, 1.0], found.momentum.dtype)
    momentum = jnp.where((weight > 0)[:, None], found.momentum, canned[None, :])
    return eqx.tree_at(lambda jet: jet.momentum, found, momentum)
