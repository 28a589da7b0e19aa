import abc

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


class AbstractCompetition(eqx.Module):
    """Who competes for whom when hits are assigned to tracks."""

    @abc.abstractmethod
    def weights(
        self,
        log_likelihood: Float[Array, "tracks layers hits"],
        log_outlier: Float[Array, ""],
    ) -> Float[Array, "tracks layers hits"]:
        """The probability that a hit belongs to a track.

        Args:
            log_likelihood: Log-likelihood of each hit for each track; minus infinity
                where there is no hit.
            log_outlier: That of the alternative: no hit, or noise.

        Returns:
            The weights, 0 to 1.
        """


class TrackPicksHits(AbstractCompetition):
    """On each layer a track picks one hit or none: a deterministic annealing filter.

    R. Fruehwirth and A. Strandlie, Comput. Phys. Commun. 120 (1999) 197. Tracks do not
    see one another: several are fitted as one by one.
    """

    def weights(
        self,
        log_likelihood: Float[Array, "tracks layers hits"],
        log_outlier: Float[Array, ""],
    ) -> Float[Array, "tracks layers hits"]:
        """A softmax over the hits of a layer and the outlier."""
        return _softmax(log_likelihood, log_outlier, axis=2)


class HitPicksTrack(AbstractCompetition):
    """Each hit belongs to one track or is noise: elastic arms.

    M. Ohlsson, C. Peterson and A. L. Yuille, Comput. Phys. Commun. 71 (1992) 77. A
    track may take several hits on a layer.
    """

    def weights(
        self,
        log_likelihood: Float[Array, "tracks layers hits"],
        log_outlier: Float[Array, ""],
    ) -> Float[Array, "tracks layers hits"]:
        """A softmax over the tracks and the outlier."""
        return _softmax(log_likelihood, log_outlier, axis=0)


def _softmax(
    log_likelihood: Float[Array, "tracks layers hits"],
    log_outlier: Float[Array, ""],
    *,
    axis: int,
) -> Float[Array, "tracks layers hits"]:
    # With the outlier as one more option, which is never minus infinity.
    shape = list(log_likelihood.shape)
    shape[axis] = 1
    options = [log_likelihood, jnp.full(shape, log_outlier)]
    weights = jax.nn.softmax(jnp.concatenate(options, axis=axis), axis=axis)
    return jax.lax.slice_in_dim(weights, 0, log_likelihood.shape[axis], axis=axis)
