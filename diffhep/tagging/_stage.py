from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ..estimators import Gradient
from ..event import Event, Jets, Tracks, Vertices
from ..geometry import detector_of
from ..numerics import sanitise
from ..pipeline import AbstractStage
from ..vertexing import impact_at, safe_vertices, track_state, with_vertex_covariance
from ._features import NUM_FEATURES, JetVertex, jet_features, track_momenta


class TagJets(AbstractStage):
    """Stage: a few numbers for each jet, by a network on its features.

    The tags are multiplied by the jet's selection weight, so that they fade with it: no
    step where a jet enters or leaves, and zeros in dead slots.
    """

    network: eqx.nn.MLP

    reads: ClassVar[frozenset[str]] = frozenset(
        {"jets", "tracks", "detector", "primary_vertex", "secondary_vertices"}
    )
    writes: ClassVar[frozenset[str]] = frozenset({"tags"})

    @classmethod
    def init(
        cls,
        *,
        num_tags: int = 4,
        width: int = 32,
        depth: int = 2,
        key: PRNGKeyArray,
    ) -> "TagJets":
        """The stage with an untrained network.

        Args:
            num_tags: Numbers per jet.
            width: Neurons of each hidden layer.
            depth: Number of hidden layers.
            key: Random key of the weights.

        Returns:
            The stage.
        """
        # A smooth activation: the derivative has no kinks either.
        return cls(
            eqx.nn.MLP(NUM_FEATURES, num_tags, width, depth, jax.nn.silu, key=key)
        )

    @property
    def gradient(self) -> Gradient:
        """Exact: smooth in features and weights."""
        return Gradient.EXACT

    def __call__(self, event: Event, *, key: PRNGKeyArray) -> Event:
        """The event with `tags`."""
        del key
        tracks, jets = event.tracks, event.jets
        primary, secondary = event.primary_vertex, event.secondary_vertices
        if tracks is None or jets is None or primary is None or secondary is None:
            raise ValueError(
                "The event lacks `tracks`, `jets`, `primary_vertex` or "
                "`secondary_vertices`; run the stages that write them before."
            )
        features = features_of_jets(
            tracks, jets, primary, secondary, detector_of(event.detector).field
        )
        weight = jnp.where(jets.mask, jets.weight, 0.0)
        tags = jax.vmap(self.network)(features)
        return event.replace(tags=weight[:, None] * tags)


def features_of_jets(
    tracks: Tracks,
    jets: Jets,
    primary: Vertices,
    secondary: Vertices,
    field: Float[Array, ""],
) -> Float[Array, "jets features"]:
    """The features of each jet of an event.

    Args:
        tracks: The tracks.
        jets: The jets.
        primary: The primary vertex, in one slot.
        secondary: One displaced vertex per jet.
        field: Magnetic field along z, in T.

    Returns:
        `NUM_FEATURES` numbers per jet. Those of dead slots, and of jets of weight zero,
        are finite and mean nothing.
    """
    primary, secondary = safe_vertices(primary), safe_vertices(secondary)
    origin, spread = primary.position[0], primary.covariance[0]
    state = track_state(tracks.parameters, tracks.covariance, tracks.mask, field)
    impact = with_vertex_covariance(impact_at(state, origin[:, None]), spread)
    momenta = track_momenta(sanitise(tracks.parameters, tracks.mask, fill=1.0))
    alive = jets.mask & (jnp.where(jets.mask, jets.weight, 0.0) > 0)
    # A particle of one GeV stands in for a jet that is none.
    canned = jnp.asarray([1.0, 0.0, 0.0, 1.0], jets.momentum.dtype)
    vertex = JetVertex(
        flight=jnp.where(
            secondary.mask[:, None], secondary.position - origin[None, :], 0.0
        ),
        covariance=secondary.covariance + spread[None, :, :],
        weight=sanitise(secondary.track_weight.T, tracks.mask).T,
        chi2=secondary.chi2,
        ndf=secondary.ndf,
        converged=secondary.mask,
    )
    return jax.vmap(jet_features, in_axes=(0, 0, None, None, 0))(
        jnp.where(alive[:, None], jets.momentum, canned[None, :]),
        jets.membership & alive[:, None] & tracks.mask[None, :],
        momenta,
        impact,
        vertex,
    )
