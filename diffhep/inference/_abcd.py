"""The ABCD method: a background from three regions beside that of the signal."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..numerics import safe_sqrt
from ._bins import AbstractBins


class AbcdEstimate(NamedTuple):
    """The background in the signal region."""

    predicted: Float[Array, ""]
    """N_B N_C / N_D."""
    error: Float[Array, ""]
    """Its statistical error, to first order: zero where both B and C are empty."""
    counts: Float[Array, "2 2"]
    """Sums of weights; [1, 1] is the signal region A, above both cuts, [1, 0] is B,
    [0, 1] C and [0, 0] D."""
    closure: Float[Array, ""]
    """A over its prediction: 1 for independent numbers without signal. Not a number
    where nothing is predicted."""


def abcd(
    first: Float[Array, " entries"],
    second: Float[Array, " entries"],
    log_weight: Float[Array, " entries"],
    *,
    first_cut: AbstractBins,
    second_cut: AbstractBins,
) -> AbcdEstimate:
    """The background above two cuts, from the entries that fail one of them or both.

    Right if the two numbers are independent of one another in the background, and the
    signal outside of region A is negligible. `distance_correlation` trains for the
    former (ABCDisCo: Kasieczka, Nachman, Schwartz, Shih, arXiv 2007.14400).

    Args:
        first: One number per entry.
        second: Another.
        log_weight: Logarithm of the weights.
        first_cut: Two bins of `first`, soft or hard: below the cut and above it.
        second_cut: Two bins of `second`.

    Returns:
        The prediction. Not a number where region D is empty.

    Raises:
        ValueError: There are not two bins.
    """
    for name, cut in (("first_cut", first_cut), ("second_cut", second_cut)):
        if cut.num_bins != 2:
            raise ValueError(
                f"`{name}` has {cut.num_bins} bins, but a cut has two; pass three "
                "edges, of which the one in the middle is the cut."
            )
    one = jax.vmap(first_cut.membership)(first)
    other = jax.vmap(second_cut.membership)(second)
    share = jnp.exp(log_weight)[:, None, None] * one[:, :, None] * other[:, None, :]
    counts, squares = jnp.sum(share, axis=0), jnp.sum(share**2, axis=0)
    b, c, d = counts[1, 0], counts[0, 1], counts[0, 0]
    some = d != 0
    below = jnp.where(some, d, 1.0)
    predicted = jnp.where(some, b * c / below, jnp.nan)
    # The regions share no entries, but for the soft edges.
    variance = c**2 * squares[1, 0] + b**2 * squares[0, 1]
    variance = (variance + (b * c / below) ** 2 * squares[0, 0]) / below**2
    error = jnp.where(some, safe_sqrt(variance), jnp.nan)
    safe = jnp.where(predicted > 0, predicted, 1.0)
    closure = jnp.where(predicted > 0, counts[1, 1] / safe, jnp.nan)
    return AbcdEstimate(predicted, error, counts, closure)
