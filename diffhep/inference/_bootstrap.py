"""Statistical errors that come from the finite number of simulated events."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ._templates import Analysis, Contributions, fill_templates
from ._uncertainty import expected_uncertainty


class Comparison(eqx.Module):
    """Two uncertainties from the same events, and how surely they differ."""

    before: Float[Array, ""]
    """The first."""
    before_error: Float[Array, ""]
    """Its statistical error."""
    after: Float[Array, ""]
    """The second."""
    after_error: Float[Array, ""]
    """Its statistical error."""
    difference: Float[Array, ""]
    """Second minus first: negative if the measurement became better."""
    difference_error: Float[Array, ""]
    """Its statistical error, with the correlation of the two."""
    significance: Float[Array, ""]
    """The difference in units of its error."""


def bootstrap(
    contributions: Contributions,
    analysis: Analysis,
    *,
    num_draws: int = 200,
    block_size: int = 20,
    key: PRNGKeyArray,
) -> Float[Array, " draws"]:
    """The expected uncertainty, as if other events had been simulated.

    Each event counts a Poisson-distributed number of times with mean 1, its replicas
    together. The numbers depend on `key` and on the event's index and label alone, so
    that two analyses of the same events can be compared draw by draw. The totals of the
    processes are held at their values: their predictions do not come from the sample.

    Args:
        contributions: What each entry adds, from `find_contributions`.
        analysis: How the sample is turned into a measurement.
        num_draws: How many draws.
        block_size: Draws that are computed together. The memory is proportional to it.
        key: Random key.

    Returns:
        One uncertainty per draw. Their standard deviation is the statistical error.
    """
    if analysis.yields is None:
        analysis = eqx.tree_at(
            lambda a: a.yields,
            analysis,
            _totals(contributions),
            is_leaf=lambda x: x is None,
        )
    identity = 2 * contributions.index + contributions.label.astype(
        contributions.index.dtype
    )
    dtype = contributions.log_weight.dtype

    def draw(key: PRNGKeyArray) -> Float[Array, ""]:
        number = jax.vmap(lambda event: _poisson(key, event))(identity)
        model = fill_templates(
            contributions, analysis, multiplicity=number.astype(dtype)
        )
        return expected_uncertainty(model)

    keys = jax.random.split(key, num_draws)
    return jax.lax.map(draw, keys, batch_size=block_size)


def compare(
    before: Contributions,
    after: Contributions,
    analysis: Analysis,
    *,
    num_draws: int = 200,
    key: PRNGKeyArray,
) -> Comparison:
    """Two analyses of the same events, with a paired bootstrap over events.

    Args:
        before: What each entry adds in the first.
        after: What each entry adds in the second, of the same events.
        analysis: How the samples are turned into a measurement.
        num_draws: How many draws.
        key: Random key.

    Returns:
        Both uncertainties, their difference, and the errors.
    """
    first, second = (
        bootstrap(x, analysis, num_draws=num_draws, key=key) for x in (before, after)
    )
    values = [
        expected_uncertainty(fill_templates(x, analysis)) for x in (before, after)
    ]
    errors = [jnp.std(x, ddof=1) for x in (first, second, second - first)]
    difference = values[1] - values[0]
    return Comparison(
        values[0],
        errors[0],
        values[1],
        errors[1],
        difference,
        errors[2],
        difference / errors[2],
    )


def _totals(contributions: Contributions) -> Float[Array, " 2"]:
    weight = jnp.exp(contributions.log_weight)
    signal = contributions.label
    return jnp.stack([jnp.sum(weight * (1 - signal)), jnp.sum(weight * signal)])


def _poisson(key: PRNGKeyArray, event: Int[Array, ""]) -> Int[Array, ""]:
    # By inversion of one uniform number; beyond 12 lies a probability of 6e-11.
    uniform = jax.random.uniform(jax.random.fold_in(key, event))
    order = jnp.arange(13)
    probability = jnp.exp(-1 - jax.lax.lgamma(order.astype(uniform.dtype) + 1))
    return jnp.sum(uniform >= jnp.cumsum(probability))
