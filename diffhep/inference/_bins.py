"""Bins of the log density ratio, soft and hard, and histograms in them."""

import abc
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


class AbstractBins(eqx.Module):
    """Bins of a number."""

    @property
    @abc.abstractmethod
    def num_bins(self) -> int:
        """How many bins there are."""

    @abc.abstractmethod
    def membership(self, value: Float[Array, ""]) -> Float[Array, " bins"]:
        """How much a value belongs to each bin.

        Args:
            value: The value. Values beyond the outer edges belong to the outer bins.

        Returns:
            Memberships, which add up to 1.
        """


class HardBins(AbstractBins):
    """Ordinary bins: each value is in one. No gradient reaches the value."""

    edges: Float[Array, " edges"]
    """Edges, increasing."""

    @property
    def num_bins(self) -> int:
        """How many bins there are."""
        return self.edges.shape[0] - 1

    def membership(self, value: Float[Array, ""]) -> Float[Array, " bins"]:
        """One in the bin of the value and zero elsewhere."""
        above = (value >= self.edges[1:-1]).astype(value.dtype)
        return _steps_to_bins(above)


class SoftBins(AbstractBins):
    """Bins whose inner edges are logistic steps.

    In the limit of no bandwidth they are `HardBins`.
    """

    edges: Float[Array, " edges"]
    """Edges, increasing."""
    bandwidth: Float[Array, ""]
    """Width of the steps, in the unit of the edges, above zero."""

    @classmethod
    def uniform(
        cls,
        num_bins: int,
        *,
        low: float = 0.0,
        high: float = 1.0,
        bandwidth: float | None = None,
    ) -> "SoftBins":
        """Bins of equal width.

        Args:
            num_bins: How many bins.
            low: Lowest edge.
            high: Highest edge, above `low`.
            bandwidth: Width of the steps; a tenth of a bin unless given.

        Returns:
            The bins.

        Raises:
            ValueError: There is no bin, or a width is not above zero.
        """
        if num_bins < 1:
            raise ValueError(f"`num_bins` is {num_bins}, but must be at least 1.")
        if not high > low:
            raise ValueError(f"`high` is {high}, but must be above `low`, {low}.")
        if bandwidth is None:
            bandwidth = 0.1 * (high - low) / num_bins
        if not bandwidth > 0:
            raise ValueError(
                f"`bandwidth` is {bandwidth}, but must be above zero; use `HardBins` "
                "for hard edges."
            )
        return cls(jnp.linspace(low, high, num_bins + 1), jnp.asarray(bandwidth))

    @property
    def num_bins(self) -> int:
        """How many bins there are."""
        return self.edges.shape[0] - 1

    def membership(self, value: Float[Array, ""]) -> Float[Array, " bins"]:
        """Differences of logistic steps."""
        return _steps_to_bins(
            jax.nn.sigmoid((value - self.edges[1:-1]) / self.bandwidth)
        )

    def harden(self) -> HardBins:
        """The same bins with hard edges, for a last evaluation."""
        return HardBins(self.edges)


class KernelBins(AbstractBins):
    """Bins of a kernel density estimate: a value is smeared by a normal distribution.

    What of it lies beyond the outer edges counts in the outer bins. In the limit of no
    bandwidth they are `HardBins`. The summary of neos (Simpson, Heinrich, arXiv
    2203.05570, section 4.1).
    """

    edges: Float[Array, " edges"]
    """Edges, increasing."""
    bandwidth: Float[Array, ""]
    """Standard deviation of the kernel, in the unit of the edges, above zero."""

    @property
    def num_bins(self) -> int:
        """How many bins there are."""
        return self.edges.shape[0] - 1

    def membership(self, value: Float[Array, ""]) -> Float[Array, " bins"]:
        """The share of the kernel in each bin."""
        distance = (value - self.edges[1:-1]) / self.bandwidth
        return _steps_to_bins(jax.scipy.stats.norm.cdf(distance))

    def harden(self) -> HardBins:
        """The same bins with hard edges, for a last evaluation."""
        return HardBins(self.edges)


class Histogram(NamedTuple):
    """Sums over weighted entries."""

    counts: Float[Array, " bins"]
    """Sum of the weights."""
    squares: Float[Array, " bins"]
    """Sum of the squared weights, the variance of `counts` for independent entries."""


def fill_histogram(
    values: Float[Array, " entries"],
    log_weight: Float[Array, " entries"],
    *,
    bins: AbstractBins,
) -> Histogram:
    """The histogram of weighted entries, soft or hard as the bins are.

    It is not normalised: a score in `log_weight` whose mean is not zero in the sample
    at hand moves the total. `fill_templates` normalises.

    Args:
        values: One number per entry.
        log_weight: Logarithm of the weights, with their scores.
        bins: The bins.

    Returns:
        Sums per bin.
    """
    share = jnp.exp(log_weight)[:, None] * jax.vmap(bins.membership)(values)
    return Histogram(jnp.sum(share, axis=0), jnp.sum(share**2, axis=0))


def _steps_to_bins(above: Float[Array, " inner"]) -> Float[Array, " bins"]:
    # From `how far above each inner edge` to bins: what the edges below let through
    # and the edge above does not. The sum telescopes to one.
    ends = jnp.zeros((1,), above.dtype)
    return jnp.concatenate([1 + ends, above]) - jnp.concatenate([above, ends])
