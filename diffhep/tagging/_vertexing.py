"""How a tagger comes by the displaced vertex of a jet."""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
import optimistix as optx
from jaxtyping import Array, Float

from ..numerics import sanitise
from ..vertexing import AdaptiveWeights, fit_vertex
from ._features import JetVertex
from ._jet_tracks import JetTracks


# The b hadron flies within about a tenth of a radian of the jet's axis.
_PRIOR_SHAPE = 0.1


class TrackChoice(eqx.Module):
    """What a network makes of the tracks of a jet before they are fitted."""

    log_odds: Float[Array, " tracks"]
    """Of the track to belong to the displaced vertex: the weight in the fit is its
    logistic function. Dead slots may hold anything."""
    log_stretch: Float[Array, "tracks 5"]
    """Logarithm of a factor on the standard deviation of each track parameter."""
    shift: Float[Array, "tracks 5"]
    """Correction of each track parameter, in standard deviations."""


class AbstractVertexing(eqx.Module):
    """How a tagger comes by the displaced vertex of a jet."""

    @abc.abstractmethod
    def __call__(self, jet: JetTracks, choice: TrackChoice) -> JetVertex:
        """The vertex of one jet.

        Args:
            jet: The jet.
            choice: What the network makes of its tracks.

        Returns:
            The vertex, seen from the primary one. Finite.
        """


class NoVertex(AbstractVertexing):
    """None: the same numbers for every jet."""

    def __call__(self, jet: JetTracks, choice: TrackChoice) -> JetVertex:
        """A flight of zero, without tracks."""
        del choice
        zero = jnp.zeros_like(jet.field)
        return JetVertex(
            flight=jnp.zeros_like(jet.momentum[:3]),
            covariance=jnp.eye(3, dtype=jet.momentum.dtype),
            weight=jnp.zeros_like(jet.parameters[:, 0]),
            chi2=zero,
            ndf=zero,
            converged=jnp.asarray(True),
        )


class FittedVertex(AbstractVertexing):
    """The weighted, adaptive fit of the jet's tracks, inside the network.

    Its derivative is the implicit one: to the weights, and to the tracks and their
    covariances, which the network may correct (NDIVE, arXiv:2310.12804, has the first).
    It is adaptive because a bottom hadron's own decay chain holds tracks from far away,
    of charm and of strange particles: weighted alike, one of these leads it astray.
    """

    log_prior_width: Float[Array, ""] = eqx.field(
        default_factory=lambda: jnp.log(jnp.asarray(10.0))
    )
    """Logarithm of the flight that is expected, in mm: the width of the prior along the
    jet; across it is a tenth of that."""
    log_temperature: Float[Array, ""] = eqx.field(
        default_factory=lambda: jnp.log(jnp.asarray(2.0))
    )
    """Logarithm of the softness of the cutoff, in units of chi-squared."""
    log_cutoff: Float[Array, ""] = eqx.field(
        default_factory=lambda: jnp.log(jnp.asarray(4.0))
    )
    """Logarithm of the distance, in standard deviations, at which a track has half of
    the weight that the network gives it."""
    num_steps: int = eqx.field(static=True, default=8)
    """Steps of the fit at the final temperature, after the annealing."""
    adjoint: optx.AbstractAdjoint | None = None
    """How the gradient crosses the fit; the implicit derivative unless given."""

    def __call__(self, jet: JetTracks, choice: TrackChoice) -> JetVertex:
        """The fitted vertex; the prior without tracks."""
        parameters, covariance = adjusted_tracks(jet, choice)
        axis = jet.momentum[:3] / jnp.sqrt(jnp.sum(jet.momentum[:3] ** 2))
        along = axis[:, None] * axis[None, :]
        across = jnp.eye(3, dtype=axis.dtype) - along
        width, temperature, cutoff = (
            jnp.exp(x.astype(axis.dtype))
            for x in (self.log_prior_width, self.log_temperature, self.log_cutoff)
        )
        fit = fit_vertex(
            parameters,
            covariance,
            jax.nn.sigmoid(sanitise(choice.log_odds, jet.mask)),
            jet.mask,
            jet.field,
            prior_mean=jnp.zeros_like(axis),
            prior_precision=(along + across / _PRIOR_SHAPE**2) / width**2,
            start=jnp.zeros_like(axis),
            num_steps=self.num_steps,
            adaptive=AdaptiveWeights(temperature, cutoff),
            adjoint=self.adjoint,
        )
        return JetVertex(
            flight=fit.position,
            covariance=fit.covariance + jet.primary_covariance,
            weight=fit.weight,
            chi2=fit.chi2,
            ndf=fit.ndf,
            converged=fit.converged,
        )


def adjusted_tracks(
    jet: JetTracks, choice: TrackChoice
) -> tuple[Float[Array, "tracks 5"], Float[Array, "tracks 5 5"]]:
    """The tracks as the network wants them fitted.

    Args:
        jet: The jet.
        choice: What the network makes of its tracks.

    Returns:
        Track parameters and covariance. Correlations stay as they are.
    """
    mask = jet.mask[:, None]
    unit = jnp.eye(5, dtype=jet.covariance.dtype)[None]
    covariance = jnp.where(mask[:, :, None], jet.covariance, unit)
    error = jnp.sqrt(jnp.diagonal(covariance, axis1=1, axis2=2))
    stretch = jnp.exp(jnp.where(mask, choice.log_stretch, 0.0))
    shift = jnp.where(mask, choice.shift, 0.0)
    parameters = sanitise(jet.parameters, jet.mask, fill=1.0) + shift * error
    return parameters, covariance * stretch[:, :, None] * stretch[:, None, :]
