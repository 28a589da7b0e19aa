import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ._collections import (
    Clusters,
    Constituents,
    Hits,
    Jets,
    MergeHistory,
    Particles,
    Towers,
    Tracks,
    Vertices,
)
from ._status import Status


class Event(eqx.Module):
    """One collision: a whiteboard that the stages fill. `None` means not filled yet.

    A batch of events is an `Event` whose arrays all have a leading axis.
    """

    particles: Particles | None = None
    """Truth."""
    truth_vertex: Float[Array, " 3"] | None = None
    """True position of the hard collision, in mm."""
    label: Float[Array, ""] | None = None
    """1 for signal, 0 for background."""
    detector: eqx.Module | None = None
    """The detector's description (see `diffhep.geometry`), one object for all stages,
    so that simulation and reconstruction share each parameter."""
    hits: Hits | None = None
    detected: Bool[Array, "particles layers"] | None = None
    """Discrete outcome: which hits were found."""
    clusters: Clusters | None = None
    num_noise: Int[Array, " layers"] | None = None
    """Discrete outcome: how many noise hits there are."""
    tracks: Tracks | None = None
    towers: Towers | None = None
    primary_vertex: Vertices | None = None
    """The primary vertex, in one slot."""
    collision_vertices: Vertices | None = None
    """All collisions of the bunch crossing, the primary vertex first, by falling sum of
    squared transverse momenta."""
    constituents: Constituents | None = None
    history: MergeHistory | None = None
    """Discrete outcome: how the constituents were clustered."""
    jets: Jets | None = None
    secondary_vertices: Vertices | None = None
    """One displaced vertex per jet, in the jet's slot."""
    missing_momentum: Float[Array, " 2"] | None = None
    """Missing transverse momentum (x, y), in GeV."""
    tags: Float[Array, "jets tags"] | None = None
    """What the tagger says of each jet."""
    pass_weight: Float[Array, " variations"] | None = None
    """Soft event selection, 0 to 1, for each variation: nominal, then up and down."""
    log_ratio: Float[Array, " variations"] | None = None
    """Logarithm of the estimated density ratio of signal to background."""
    log_weight: Float[Array, ""] = eqx.field(default_factory=lambda: jnp.zeros(()))
    """Value: log of the Monte-Carlo weight. Derivative: sum of the scores so far."""
    index: Int[Array, ""] = eqx.field(
        default_factory=lambda: jnp.zeros((), dtype=jnp.int32)
    )
    """Number of the event in its data set: its random numbers depend on this alone."""
    status: Int[Array, ""] = eqx.field(
        default_factory=lambda: jnp.zeros((), dtype=jnp.int32)
    )
    """Bits of `Status`."""

    def replace(self, **fields: Any) -> "Event":
        """The event, or batch, with some fields replaced.

        Args:
            **fields: New values by field name.

        Returns:
            A new event.

        Raises:
            ValueError: A name is no field of `Event`.
        """
        known = {field.name for field in dataclasses.fields(self)}
        if unknown := sorted(set(fields) - known):
            raise ValueError(
                f"`Event` has no field {unknown[0]!r}; it has {sorted(known)}."
            )
        if getattr(self.log_weight, "ndim", 0):
            # A batch: the constructor is for one event, and checks its shapes in tests.
            return jax.vmap(lambda event, new: event.replace(**new))(self, fields)
        return dataclasses.replace(self, **fields)

    def keep(self, *names: str) -> "Event":
        """The event, or batch, with everything but these collections forgotten.

        Weight, index and status always stay.

        Args:
            *names: Fields to keep.

        Returns:
            A smaller event.

        Raises:
            ValueError: A name is no field of `Event`.
        """
        always = {"log_weight", "index", "status"}
        fields = {field.name for field in dataclasses.fields(self)}
        if unknown := sorted(set(names) - fields):
            raise ValueError(
                f"`Event` has no field {unknown[0]!r}; it has {sorted(fields)}."
            )
        drop = fields - always - set(names)
        return self.replace(**dict.fromkeys(drop))

    def flag(self, status: Status, condition: Bool[Array, ""]) -> "Event":
        """The event with a status bit set where a condition holds.

        Args:
            status: The bit.
            condition: Whether to set it.

        Returns:
            A new event.
        """
        bit = jnp.asarray(int(status), self.status.dtype)
        return self.replace(
            status=self.status | jnp.where(condition, bit, jnp.zeros_like(bit))
        )

    def add_log_weight(self, term: Float[Array, ""]) -> "Event":
        """The event with a term added to its log-weight.

        Args:
            term: A score term, or the logarithm of a weight.

        Returns:
            A new event.
        """
        return self.replace(log_weight=self.log_weight + term)
