"""All collisions of one bunch crossing."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optimistix as optx
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from ..estimators import Gradient
from ..event import Event, Status, Vertices
from ..geometry import detector_of
from ..numerics import SmallGeneral
from ..pipeline import AbstractStage
from ._adaptive import AdaptiveWeights
from ._impact import impact_at, track_state, with_vertex_covariance
from ._multiple import MultipleVertexFit, fit_multiple_vertices
from ._seeds import Seeds, seed_along_beam


class FoundVertices(eqx.Module):
    """Vertices that were looked for, and how that went."""

    fit: MultipleVertexFit
    """The vertices; those alive come first."""
    score: Float[Array, " vertices"]
    """What they are ordered by; zero for dead ones."""
    overflow: Bool[Array, ""]
    """Whether there were more than the slots hold, and the others were left out."""


def find_primary_vertices(
    parameters: Float[Array, "tracks 5"],
    covariance: Float[Array, "tracks 5 5"],
    mask: Bool[Array, " tracks"],
    field: Float[Array, ""],
    *,
    beam_spot: Float[Array, " 3"],
    adaptive: AdaptiveWeights,
    num_vertices: int,
    num_steps: int = 6,
    adjoint: optx.AbstractAdjoint | None = None,
) -> FoundVertices:
    """All collisions along the beam, by falling sum of squared transverse momenta.

    Seeds where tracks are densest, then one fit of all vertices together. The first is
    the hard collision, most likely. The order is a discrete choice, and so is which
    vertices there are: values and derivatives are exact within it, and where two sums
    are equal the answer jumps.

    Args:
        parameters: Track parameters about the origin; dead slots may hold anything.
        covariance: Their covariance.
        mask: Which tracks are alive.
        field: Magnetic field along z, in T.
        beam_spot: Standard deviations (x, y, z) of the beam spot about the origin, in
            mm.
        adaptive: Temperature and cutoff of the weights.
        num_vertices: Slots for vertices.
        num_steps: Number of steps at the final temperature.
        adjoint: How the gradient crosses the fit.

    Returns:
        The vertices; the score is the weighted sum of squared transverse momenta, in
        GeV^2.
    """
    # Seeds say where the search begins, which the solution forgets, and how many
    # vertices there are, which is discrete: there is no gradient to lose.
    seeds = _seeds(
        *jax.lax.stop_gradient((parameters, covariance, mask, field, beam_spot)),
        cutoff=jax.lax.stop_gradient(adaptive.cutoff),
        num_vertices=num_vertices,
    )
    precision = jnp.diag(1 / beam_spot**2)
    fit = fit_multiple_vertices(
        parameters,
        covariance,
        jnp.ones_like(parameters[:, 0]),
        mask,
        field,
        prior_mean=jnp.zeros_like(seeds.position),
        prior_precision=jnp.broadcast_to(precision[None], (num_vertices, 3, 3)),
        start=seeds.position,
        vertex_mask=seeds.mask,
        adaptive=adaptive,
        num_steps=num_steps,
        adjoint=adjoint,
    )
    angle = jnp.where(mask, parameters[:, 3], 1.0)
    charge_over_momentum = jnp.where(mask, parameters[:, 4], 1.0)
    squared = jnp.where(mask, (jnp.sin(angle) / charge_over_momentum) ** 2, 0.0)
    score = jnp.where(fit.mask, jnp.sum(fit.weight * squared[None, :], axis=1), 0.0)
    return ordered(fit, score, seeds.overflow)


def ordered(
    fit: MultipleVertexFit, score: Float[Array, " vertices"], overflow: Bool[Array, ""]
) -> FoundVertices:
    """Vertices by falling score, dead ones last.

    Args:
        fit: The vertices.
        score: What to order them by.
        overflow: Whether some were left out.

    Returns:
        The vertices in order.
    """
    order = jnp.argsort(jnp.where(fit.mask, -score, jnp.inf))
    fit, score = jax.tree.map(lambda x: x[order], (fit, score))
    return FoundVertices(fit=fit, score=score, overflow=overflow)


def _seeds(
    parameters: Float[Array, "tracks 5"],
    covariance: Float[Array, "tracks 5 5"],
    mask: Bool[Array, " tracks"],
    field: Float[Array, ""],
    beam_spot: Float[Array, " 3"],
    *,
    cutoff: Float[Array, ""],
    num_vertices: int,
) -> Seeds:
    state = track_state(parameters, covariance, mask, field)
    impact = impact_at(state, jnp.zeros((3, 1), parameters.dtype))
    spread = jnp.diag(beam_spot**2).at[2, 2].set(0.0)
    return seed_along_beam(
        with_vertex_covariance(impact, spread),
        mask,
        num_vertices=num_vertices,
        cutoff=cutoff,
    )


class FindPrimaryVertices(AbstractStage):
    """Stage: all collisions of a bunch crossing, and which of them is the hard one.

    In place of `FitPrimaryVertex` where there is pile-up.
    """

    temperature: Float[Array, ""] = eqx.field(default_factory=lambda: jnp.asarray(1.0))
    """Softness of the weights, in units of chi-squared."""
    cutoff: Float[Array, ""] = eqx.field(default_factory=lambda: jnp.asarray(3.0))
    """Distance at which a track has half its weight, in standard deviations."""
    beam_spot_width: Float[Array, ""] = eqx.field(
        default_factory=lambda: jnp.asarray(0.01)
    )
    """Transverse standard deviation of the beam spot, in mm."""
    beam_spot_length: float = eqx.field(static=True, default=45.0)
    """Longitudinal standard deviation of the beam spot, in mm."""
    num_vertices: int = eqx.field(static=True, default=8)
    """Slots for collisions. More of them set `Status.VERTEX_OVERFLOW`."""
    num_steps: int = eqx.field(static=True, default=6)
    """Steps at the final temperature."""
    adjoint: optx.AbstractAdjoint = optx.ImplicitAdjoint(linear_solver=SmallGeneral())
    """How the gradient crosses the fit."""

    reads: ClassVar[frozenset[str]] = frozenset({"tracks", "detector"})
    writes: ClassVar[frozenset[str]] = frozenset(
        {"primary_vertex", "collision_vertices"}
    )

    @property
    def gradient(self) -> Gradient:
        """Exact: the implicit derivative, within the order of the vertices."""
        return Gradient.EXACT

    def __call__(self, event: Event, *, key: PRNGKeyArray) -> Event:
        """The event with `collision_vertices`, and the first as `primary_vertex`."""
        del key
        tracks, width = event.tracks, self.beam_spot_width
        if tracks is None:
            raise ValueError("The event lacks `tracks`; run `FitTracks` before.")
        length = jnp.asarray(self.beam_spot_length, width.dtype)
        found = find_primary_vertices(
            tracks.parameters,
            tracks.covariance,
            tracks.mask,
            detector_of(event.detector).field,
            beam_spot=jnp.stack([width, width, length]),
            adaptive=AdaptiveWeights(self.temperature, self.cutoff),
            num_vertices=self.num_vertices,
            num_steps=self.num_steps,
            adjoint=self.adjoint,
        )
        fit = found.fit
        # Without any collision the first slot holds the beam spot.
        first = jnp.arange(self.num_vertices) == 0
        vertices = Vertices(
            position=fit.position,
            covariance=fit.covariance,
            track_weight=fit.weight,
            chi2=fit.chi2,
            ndf=fit.ndf,
            mask=(fit.mask | first) & fit.converged,
        )
        event = event.replace(
            primary_vertex=jax.tree.map(lambda x: x[:1], vertices),
            collision_vertices=eqx.tree_at(
                lambda v: v.mask, vertices, fit.mask & fit.converged
            ),
        )
        event = event.flag(Status.VERTEX_OVERFLOW, found.overflow)
        failed = jnp.any(~fit.converged & (fit.mask | first))
        return event.flag(Status.VERTEX_FIT_FAILED, failed)
