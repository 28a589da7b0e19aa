import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ._baselines import AbstractBaseline, LeaveOneOut


class GradientEstimate(eqx.Module):
    """A derivative of an expectation, estimated from random draws."""

    contributions: PyTree[Float[Array, "events ..."]]
    """What each draw adds, before the mean: leading axes as of the draws."""
    mean: PyTree[Float[Array, "..."]]
    """The estimate, in the structure of the parameters."""
    standard_error: PyTree[Float[Array, "..."]]
    """Its standard error, from the spread between events: what the events and what the
    draws within them contribute. NaN for a single event."""

    @classmethod
    def of(
        cls, contributions: PyTree[Float[Array, "events ..."]], *, axes: int
    ) -> "GradientEstimate":
        """The estimate of contributions.

        Args:
            contributions: One array per parameter, with leading axes of draws, of which
                the first one is of independent events.
            axes: How many axes of draws there are.

        Returns:
            The estimate.
        """

        def per_event(x: Array) -> Array:
            return jnp.mean(x, axis=tuple(range(1, axes)))

        def error(x: Array) -> Array:
            if x.shape[0] < 2:
                return jnp.full(x.shape[axes:], jnp.nan, x.dtype)
            return jnp.std(per_event(x), axis=0, ddof=1) / x.shape[0] ** 0.5

        mean = jax.tree.map(lambda x: jnp.mean(per_event(x), axis=0), contributions)
        return cls(contributions, mean, jax.tree.map(error, contributions))


def score_gradient(
    values: Float[Array, "events replicas"],
    scores: PyTree[Float[Array, "events replicas ..."]],
    *,
    baseline: AbstractBaseline | None = None,
) -> GradientEstimate:
    r"""The derivative of $E[f]$ by the score function: the mean of $(f - b) S$.

    For scores that were computed beside the draws, as those of `jets.sample_history`;
    inside a function that is differentiated use `surrogate`. What `values` depend on
    otherwise (their pathwise derivative) is not included.

    Args:
        values: Results f of replicas of events, drawn independently.
        scores: Derivatives of the log-probability of each draw, one array per
            parameter, with the axes of the parameter behind those of `values`.
        baseline: What b is; `LeaveOneOut` unless given.

    Returns:
        The estimate, in the unit of the values over that of the parameter.
    """
    baseline = LeaveOneOut() if baseline is None else baseline
    apart = values - baseline.of(values)

    def product(score: Array) -> Array:
        return apart.reshape(apart.shape + (1,) * (score.ndim - 2)) * score

    return GradientEstimate.of(jax.tree.map(product, scores), axes=2)
