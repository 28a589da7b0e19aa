from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optimistix as optx
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from ..estimators import Gradient
from ..event import Event, Status, Vertices
from ..geometry import detector_of
from ..numerics import BlockSolver3, sanitise
from ..pipeline import AbstractStage
from ._fit import VertexFit, fit_vertices
from ._impact import Impact, chi2_of, impact_at, track_state, with_vertex_covariance
from ._safe import safe_vertices
from ._status import VertexStatus


# The b hadron flies within about a tenth of a radian of the jet's axis.
_PRIOR_SHAPE = 0.1
# Impact parameters beyond this, in mm, come from strange particles, not from b or c.
_REACH = 3.0


class DisplacementCut(eqx.Module):
    """A soft selection of tracks that do not come from the primary vertex."""

    threshold: Float[Array, ""]
    """Significance of the impact parameters at which the weight is one half."""
    softness: Float[Array, ""]
    """Significance over which the weight rises."""


def displacement_weight(
    impact: Impact, cut: DisplacementCut
) -> Float[Array, " tracks"]:
    """How far each track is displaced, as a weight from 0 to 1.

    The significance is the square root of one plus chi-squared, smooth where the track
    passes through the primary vertex. The weight falls again for impact parameters
    above 3 mm, those of strange particles: one such track would lead the fit astray.

    Args:
        impact: Impact parameters about the primary vertex.
        cut: The selection.

    Returns:
        The weights.
    """
    significance = jnp.sqrt(1 + chi2_of(impact))
    squared = impact.d0**2 + impact.z0**2 / (
        1 + impact.gradient_x**2 + impact.gradient_y**2
    )
    tame = 1 / (1 + (squared / _REACH**2) ** 2)
    return tame * jax.nn.sigmoid((significance - cut.threshold) / cut.softness)


def fit_secondary_vertices(
    parameters: Float[Array, "tracks 5"],
    covariance: Float[Array, "tracks 5 5"],
    mask: Bool[Array, " tracks"],
    field: Float[Array, ""],
    *,
    membership: Bool[Array, "jets tracks"],
    directions: Float[Array, "jets 3"],
    primary: Float[Array, " 3"],
    primary_covariance: Float[Array, "3 3"],
    cut: DisplacementCut,
    prior_width: Float[Array, ""],
    num_steps: int = 12,
    adjoint: optx.AbstractAdjoint | None = None,
) -> VertexFit:
    """One displaced vertex per jet, from the jet's displaced tracks.

    Args:
        parameters: Track parameters about the origin; dead slots may hold anything.
        covariance: Their covariance.
        mask: Which tracks are alive.
        field: Magnetic field along z, in T.
        membership: Which tracks belong to which jet, each to one at most.
        directions: Unit vectors along the jets.
        primary: The primary vertex, in mm.
        primary_covariance: Its covariance, in mm^2, here taken to be independent of the
            tracks.
        cut: Which tracks are displaced.
        prior_width: Width of the prior about the primary vertex along the jet, in mm;
            across it is a tenth of that.
        num_steps: Number of steps.
        adjoint: How the gradient crosses the fit.

    Returns:
        The vertices; the prior for a jet without displaced tracks.
    """
    state = track_state(parameters, covariance, mask, field)
    impact = impact_at(state, primary[:, None])
    weight = displacement_weight(
        with_vertex_covariance(impact, primary_covariance), cut
    )
    jets = directions.shape[0]
    along = directions[:, :, None] * directions[:, None, :]
    across = jnp.eye(3, dtype=along.dtype)[None, :, :] - along
    mean = jnp.broadcast_to(primary[None, :], (jets, 3))
    return fit_vertices(
        parameters,
        covariance,
        jnp.broadcast_to(weight[None, :], membership.shape),
        mask,
        field,
        assignment=membership,
        prior_mean=mean,
        prior_precision=(along + across / _PRIOR_SHAPE**2) / prior_width**2,
        start=mean,
        num_steps=num_steps,
        adjoint=adjoint,
    )


class FitSecondaryVertices(AbstractStage):
    """Stage: one displaced vertex per jet, in the jet's slot.

    A fit that has not converged sets `Status.VERTEX_FIT_FAILED` and stays.
    """

    threshold: Float[Array, ""] = eqx.field(default_factory=lambda: jnp.asarray(3.0))
    """Significance of the impact parameters at which a track has half its weight."""
    softness: Float[Array, ""] = eqx.field(default_factory=lambda: jnp.asarray(0.5))
    """Significance over which the weight rises."""
    prior_width: Float[Array, ""] = eqx.field(default_factory=lambda: jnp.asarray(10.0))
    """Expected flight, in mm: width of the prior along the jet."""
    num_steps: int = eqx.field(static=True, default=12)
    """Steps of the fit: a flight of centimetres, with a track that does not belong
    there, takes more than 6."""
    adjoint: optx.AbstractAdjoint = optx.ImplicitAdjoint(linear_solver=BlockSolver3())
    """How the gradient crosses the fit."""

    reads: ClassVar[frozenset[str]] = frozenset(
        {"tracks", "jets", "primary_vertex", "detector"}
    )
    writes: ClassVar[frozenset[str]] = frozenset({"secondary_vertices"})

    @property
    def gradient(self) -> Gradient:
        """Exact."""
        return Gradient.EXACT

    def __call__(self, event: Event, *, key: PRNGKeyArray) -> Event:
        """The event with `secondary_vertices`."""
        del key
        tracks, jets, primary = event.tracks, event.jets, event.primary_vertex
        if tracks is None or jets is None or primary is None:
            raise ValueError(
                "The event lacks `tracks`, `jets` or `primary_vertex`; run "
                "`FitTracks`, `ClusterJets` and `FitPrimaryVertex` before."
            )
        primary = safe_vertices(primary)
        momentum = sanitise(jets.momentum[:, :3], jets.mask, fill=1.0)
        directions = momentum / jnp.sqrt(jnp.sum(momentum**2, axis=1, keepdims=True))
        fit = fit_secondary_vertices(
            tracks.parameters,
            tracks.covariance,
            tracks.mask,
            detector_of(event.detector).field,
            membership=jets.membership & jets.mask[:, None],
            directions=directions,
            primary=primary.position[0],
            primary_covariance=primary.covariance[0],
            cut=DisplacementCut(self.threshold, self.softness),
            prior_width=self.prior_width,
            num_steps=self.num_steps,
            adjoint=self.adjoint,
        )
        # What has not converged is close, and nearer to the truth than no vertex would
        # be: leaving it out would be a step in the value, which has no gradient.
        usable = fit.status != VertexStatus.undetermined
        vertices = Vertices(
            position=fit.position,
            covariance=fit.covariance,
            track_weight=fit.weight,
            chi2=fit.chi2,
            ndf=fit.ndf,
            mask=usable & jets.mask,
        )
        failed = jnp.any(~fit.converged & jets.mask)
        dropped = jnp.any((fit.status == VertexStatus.singular_track) & jets.mask)
        event = event.replace(secondary_vertices=vertices)
        event = event.flag(Status.TRACK_LEFT_OUT, dropped)
        return event.flag(Status.VERTEX_FIT_FAILED, failed)
