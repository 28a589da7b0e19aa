"""Distance correlation: a penalty that makes two numbers independent of one another."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from ..numerics import safe_sqrt


def distance_correlation(
    first: Float[Array, " entries"],
    second: Float[Array, " entries"],
    log_weight: Float[Array, " entries"],
) -> Float[Array, ""]:
    r"""The squared distance correlation of two numbers, zero if they are independent.

    $$\mathrm{dCor}^2 = \frac{\mathrm{dCov}^2(x, y)}
      {\sqrt{\mathrm{dCov}^2(x, x)\,\mathrm{dCov}^2(y, y)}}$$

    (Szekely, Rizzo, Bakirov, Ann. Statist. 35 (2007) 2769, definition 4; as a penalty
    Kasieczka, Shih, arXiv 2001.05310, with the weights of its equation A1.) Unlike a
    correlation it vanishes only without any dependence; in a finite sample it is above
    zero by something of order one over the number of entries. The work and the memory
    grow with the square of that number: give it a batch.

    Args:
        first: One number per entry, a classifier's output for example.
        second: Another, a mass for example; the unit does not matter.
        log_weight: Logarithm of the weights; their scale does not matter.

    Returns:
        Between 0 and 1; zero if one of the two is constant. Differentiable, with zero
        slope where two entries have the same value.
    """
    share = jnp.exp(log_weight - jnp.max(log_weight))
    share = share / jnp.sum(share)
    one, other = (_centred(x, share) for x in (first, second))
    both = share[:, None] * share[None]
    covariance = jnp.sum(both * one * other)
    norm = safe_sqrt(jnp.sum(both * one**2) * jnp.sum(both * other**2))
    some = norm > 0
    return jnp.where(some, covariance / jnp.where(some, norm, 1.0), 0.0)


def _centred(
    values: Float[Array, " entries"], share: Float[Array, " entries"]
) -> Float[Array, "entries entries"]:
    # Distances of all pairs, less the means of their rows and columns. `abs` has the
    # derivative 0 at 0 for jnp.sign: an entry with itself moves nothing.
    apart = jnp.abs(values[:, None] - values[None])
    mean = jnp.sum(share[None] * apart, axis=1)
    return apart - mean[:, None] - mean[None] + jnp.sum(share * mean)
