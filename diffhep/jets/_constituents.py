from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ..estimators import Gradient
from ..event import Constituents, Event
from ..helix import momentum
from ..numerics import masked_sum, sanitise
from ..pipeline import AbstractStage


# Of a charged pion, which most tracks are. Particle Data Group, 2024; in GeV.
PION_MASS = 0.13957


def track_momentum(parameters: Float[Array, " 5"]) -> Float[Array, " 4"]:
    """The four-momentum of a track, as of a pion.

    Args:
        parameters: (d0, z0, phi, theta, q/p), q/p in 1/GeV and not zero.

    Returns:
        (px, py, pz, E), in GeV.
    """
    energy = jnp.sqrt(1 / parameters[4] ** 2 + PION_MASS**2)
    return jnp.concatenate([momentum(parameters), energy[None]])


class CollectConstituents(AbstractStage):
    """Stage: `tracks` and `towers` in, `constituents` out.

    A slot with a track is a charged constituent, one with a tower a neutral one. No
    slot has both, since charged particles leave no tower; if one did, its track would
    count.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"tracks", "towers"})
    writes: ClassVar[frozenset[str]] = frozenset({"constituents"})

    @property
    def gradient(self) -> Gradient:
        """Exact."""
        return Gradient.EXACT

    def __call__(self, event: Event, *, key: PRNGKeyArray) -> Event:
        """The event with its constituents."""
        del key
        tracks, towers = event.tracks, event.towers
        if tracks is None or towers is None:
            raise ValueError(
                "The event lacks `tracks` or `towers`; run `FitTracks` and "
                "`MeasureTowers` before."
            )
        parameters = sanitise(tracks.parameters, tracks.mask, fill=1.0)
        charged = jax.vmap(track_momentum)(parameters)
        neutral = sanitise(towers.momentum, towers.mask)
        momenta = jnp.where(tracks.mask[:, None], charged, neutral)
        mask = tracks.mask | towers.mask
        return event.replace(constituents=Constituents(momenta, tracks.mask, mask))


class MeasureMissingMomentum(AbstractStage):
    """Stage: `constituents` in, `missing_momentum` out: minus the sum of theirs."""

    reads: ClassVar[frozenset[str]] = frozenset({"constituents"})
    writes: ClassVar[frozenset[str]] = frozenset({"missing_momentum"})

    @property
    def gradient(self) -> Gradient:
        """Exact."""
        return Gradient.EXACT

    def __call__(self, event: Event, *, key: PRNGKeyArray) -> Event:
        """The event with its missing transverse momentum."""
        del key
        constituents = event.constituents
        if constituents is None:
            raise ValueError(
                "The event lacks `constituents`; run `CollectConstituents` before."
            )
        missing = -masked_sum(constituents.momentum[:, :2], constituents.mask)
        return event.replace(missing_momentum=missing)
