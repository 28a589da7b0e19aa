"""The statistical error of templates that were filled with simulated events."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float


class BinFactors(NamedTuple):
    """What the fit makes of the expected yield of each bin."""

    factor: Float[Array, " bins"]
    """Factor on the yield at which the likelihood is greatest."""
    slope: Float[Array, " bins"]
    """Its derivative to the yield."""
    penalty: Float[Array, " bins"]
    """What the factor costs: half its squared distance from one, in standard
    deviations."""


def eliminate_factors(
    rate: Float[Array, " bins"],
    data: Float[Array, " bins"],
    variance: Float[Array, " bins"] | None,
) -> BinFactors:
    r"""The nuisance parameters of templates filled with finitely many events.

    One factor $\gamma$ per bin on the yield of all processes together, with a Gaussian
    constraint of mean 1 (Barlow and Beeston, Comput. Phys. Commun. 77 (1993) 219, in
    the "lite" form of Conway, arXiv 1103.0354). Where the likelihood is greatest,
    $\gamma^2 + \gamma (\nu v - 1) - n v = 0$: no further parameter of the fit.

    Args:
        rate: Expected yields, above zero.
        data: Observed number of events per bin.
        variance: Relative variance of the yields; None if they are known exactly.

    Returns:
        Factors, slopes and penalties: 1, 0 and 0 where the variance is zero.
    """
    if variance is None:
        return BinFactors(jnp.ones_like(rate), jnp.zeros_like(rate), 0 * rate)
    offset = 1 - rate * variance
    root = jnp.sqrt(offset**2 + 4 * data * variance)
    # Two forms of one root, each without cancellation on its side of zero.
    positive = offset > 0
    lower = jnp.where(positive, 1.0, root - offset)
    factor = jnp.where(positive, (offset + root) / 2, 2 * data * variance / lower)
    # Zero where no event was observed and the error is large: its logarithm is wanted.
    factor = jnp.maximum(factor, jnp.finfo(rate.dtype).tiny)
    known = variance == 0
    penalty = (factor - 1) ** 2 / (2 * jnp.where(known, 1.0, variance))
    return BinFactors(factor, -factor * variance / root, penalty)
