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
from ._adaptive import AdaptiveWeights
from ._fit import VertexFit, fit_vertex
from ._status import VertexStatus


# Width of the peak that the tracks of one collision make along z, in mm.
_PEAK = 0.5


def fit_primary_vertex(
    parameters: Float[Array, "tracks 5"],
    covariance: Float[Array, "tracks 5 5"],
    mask: Bool[Array, " tracks"],
    field: Float[Array, ""],
    *,
    beam_spot: Float[Array, " 3"],
    adaptive: AdaptiveWeights,
    num_steps: int = 4,
    adjoint: optx.AbstractAdjoint | None = None,
) -> VertexFit:
    """The vertex that most tracks come from: the adaptive fit with a beam spot.

    Which of several vertices it finds is decided by where the tracks are densest along
    z. Where two are equally dense, the answer jumps.

    Args:
        parameters: Track parameters about the origin; dead slots may hold anything.
        covariance: Their covariance.
        mask: Which tracks are alive.
        field: Magnetic field along z, in T.
        beam_spot: Standard deviations (x, y, z) of the beam spot about the origin, in
            mm.
        adaptive: How the weight of a track falls with its distance.
        num_steps: Number of steps at the final temperature.
        adjoint: How the gradient crosses the fit.

    Returns:
        The vertex; the beam spot if there is no track.
    """
    # The fit forgets its start, so that no gradient is lost here.
    height = _densest(jax.lax.stop_gradient(sanitise(parameters[:, 1], mask)), mask)
    zero = jnp.zeros_like(height)
    return fit_vertex(
        parameters,
        covariance,
        jnp.ones_like(parameters[:, 0]),
        mask,
        field,
        prior_mean=jnp.zeros_like(beam_spot),
        prior_precision=jnp.diag(1 / beam_spot**2),
        start=jnp.stack([zero, zero, height]),
        num_steps=num_steps,
        adaptive=adaptive,
        adjoint=adjoint,
    )


def _densest(
    heights: Float[Array, " tracks"], mask: Bool[Array, " tracks"]
) -> Float[Array, ""]:
    distance = (heights[:, None] - heights[None, :]) / _PEAK
    near = jnp.where(mask[None, :], 1 / (1 + distance**2), 0.0)
    # Dead slots hold zero: without tracks the start is the centre of the beam spot.
    score = jnp.where(mask, jnp.sum(near, axis=1), 0.0)
    return heights[jnp.argmax(score)]


class FitPrimaryVertex(AbstractStage):
    """Stage: the primary vertex, by an adaptive fit of all tracks and the beam spot."""

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
    num_steps: int = eqx.field(static=True, default=4)
    """Steps at the final temperature."""
    adjoint: optx.AbstractAdjoint = optx.ImplicitAdjoint(linear_solver=BlockSolver3())
    """How the gradient crosses the fit."""

    reads: ClassVar[frozenset[str]] = frozenset({"tracks", "detector"})
    writes: ClassVar[frozenset[str]] = frozenset({"primary_vertex"})

    @property
    def gradient(self) -> Gradient:
        """Exact: the implicit derivative of the self-consistent solution."""
        return Gradient.EXACT

    def __call__(self, event: Event, *, key: PRNGKeyArray) -> Event:
        """The event with `primary_vertex`, in one slot."""
        del key
        tracks, width = event.tracks, self.beam_spot_width
        if tracks is None:
            raise ValueError("The event lacks `tracks`; run `FitTracks` before.")
        length = jnp.asarray(self.beam_spot_length, width.dtype)
        fit = fit_primary_vertex(
            tracks.parameters,
            tracks.covariance,
            tracks.mask,
            detector_of(event.detector).field,
            beam_spot=jnp.stack([width, width, length]),
            adaptive=AdaptiveWeights(self.temperature, self.cutoff),
            num_steps=self.num_steps,
            adjoint=self.adjoint,
        )
        vertex = Vertices(
            position=fit.position[None, :],
            covariance=fit.covariance[None, :, :],
            track_weight=fit.weight[None, :],
            chi2=fit.chi2[None],
            ndf=fit.ndf[None],
            mask=fit.converged[None],
        )
        event = event.replace(primary_vertex=vertex)
        dropped = fit.status == VertexStatus.singular_track
        event = event.flag(Status.TRACK_LEFT_OUT, dropped)
        return event.flag(Status.VERTEX_FIT_FAILED, ~fit.converged)
