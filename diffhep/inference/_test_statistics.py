"""Profile likelihood ratios: Cowan, Cranmer, Gross, Vitells, arXiv 1007.1727."""

import abc

import equinox as eqx
import jax.numpy as jnp
from jax.lax import stop_gradient
from jaxtyping import Array, Float

from ._likelihood import AbstractLikelihood
from ._measurement import Measurement, fit_strengths
from ._newton import FitResult, FitStatus


class AbstractTestStatistic(eqx.Module):
    """A function of the profile likelihood ratio."""

    @abc.abstractmethod
    def restrict(self, measurement: Measurement) -> Measurement:
        """The measurement with the bounds that the statistic wants.

        Args:
            measurement: The measurement.

        Returns:
            A measurement.
        """

    @abc.abstractmethod
    def value(
        self,
        strength: Float[Array, ""],
        best: Float[Array, ""],
        deviance: Float[Array, ""],
    ) -> Float[Array, ""]:
        """The statistic; zero where the data speak for the hypothesis.

        Args:
            strength: The strength that is tested.
            best: The fitted one.
            deviance: Twice the rise of the negative log-likelihood from `best`.

        Returns:
            The value, not negative.
        """


class AbstractOneSidedStatistic(AbstractTestStatistic):
    """A statistic whose square root is a distance of the fitted strength."""

    @abc.abstractmethod
    def asimov_strength(self) -> float:
        """The strength of the alternative hypothesis."""

    @abc.abstractmethod
    def displacement(
        self, value: Float[Array, ""], asimov: Float[Array, ""]
    ) -> Float[Array, ""]:
        """How far the data are from what the alternative hypothesis expects.

        Args:
            value: Square root of the observed statistic.
            asimov: That of the Asimov data of the alternative.

        Returns:
            The displacement in standard deviations, away from the tested strength.
        """


class TwoSidedTest(AbstractTestStatistic):
    r"""The statistic $t_\mu$ (equation 8), for intervals."""

    def restrict(self, measurement: Measurement) -> Measurement:
        """As it is."""
        return measurement

    def value(
        self,
        strength: Float[Array, ""],
        best: Float[Array, ""],
        deviance: Float[Array, ""],
    ) -> Float[Array, ""]:
        """The deviance."""
        del strength, best
        return deviance


class BoundedTwoSidedTest(AbstractTestStatistic):
    r"""The statistic $\tilde t_\mu$ (equation 11): intervals of a positive signal.

    The one by which Feldman and Cousins order, physics/9711021.
    """

    def restrict(self, measurement: Measurement) -> Measurement:
        """No negative strength."""
        return _not_negative(measurement)

    def value(
        self,
        strength: Float[Array, ""],
        best: Float[Array, ""],
        deviance: Float[Array, ""],
    ) -> Float[Array, ""]:
        """The deviance."""
        del strength, best
        return deviance


class DiscoveryTest(AbstractOneSidedStatistic):
    """The statistic $q_0$ (equation 12): tests the strength zero."""

    def restrict(self, measurement: Measurement) -> Measurement:
        """As it is."""
        return measurement

    def value(
        self,
        strength: Float[Array, ""],
        best: Float[Array, ""],
        deviance: Float[Array, ""],
    ) -> Float[Array, ""]:
        """Zero where there are less events than without signal."""
        return jnp.where(best < strength, 0.0, deviance)

    def asimov_strength(self) -> float:
        """The signal as predicted."""
        return 1.0

    def displacement(
        self, value: Float[Array, ""], asimov: Float[Array, ""]
    ) -> Float[Array, ""]:
        """A difference."""
        return value - asimov


class LimitTest(AbstractOneSidedStatistic):
    r"""The statistic $q_\mu$ (equation 14): for upper limits, any sign of the signal.

    The bounds of the measurement apply: let its lower one be negative.
    """

    def restrict(self, measurement: Measurement) -> Measurement:
        """As it is."""
        return measurement

    def value(
        self,
        strength: Float[Array, ""],
        best: Float[Array, ""],
        deviance: Float[Array, ""],
    ) -> Float[Array, ""]:
        """Zero where there is more signal than tested."""
        return jnp.where(best > strength, 0.0, deviance)

    def asimov_strength(self) -> float:
        """No signal."""
        return 0.0

    def displacement(
        self, value: Float[Array, ""], asimov: Float[Array, ""]
    ) -> Float[Array, ""]:
        """A difference."""
        return value - asimov


class BoundedLimitTest(AbstractOneSidedStatistic):
    r"""The statistic $\tilde q_\mu$ (equation 16): limits on a positive signal."""

    def restrict(self, measurement: Measurement) -> Measurement:
        """No negative strength."""
        return _not_negative(measurement)

    def value(
        self,
        strength: Float[Array, ""],
        best: Float[Array, ""],
        deviance: Float[Array, ""],
    ) -> Float[Array, ""]:
        """Zero where there is more signal than tested."""
        return jnp.where(best > strength, 0.0, deviance)

    def asimov_strength(self) -> float:
        """No signal."""
        return 0.0

    def displacement(
        self, value: Float[Array, ""], asimov: Float[Array, ""]
    ) -> Float[Array, ""]:
        """A difference of squares where the fitted strength is zero (equation 65)."""
        below = value <= asimov
        safe = jnp.where(below, 1.0, asimov)
        return jnp.where(below, value - asimov, (value**2 - asimov**2) / (2 * safe))


def _not_negative(measurement: Measurement) -> Measurement:
    start, lower = measurement.start, measurement.lower
    own = jnp.arange(start.shape[0]) == measurement.poi
    lower = jnp.full_like(start, -jnp.inf) if lower is None else lower
    lower = jnp.where(own, jnp.maximum(lower, 0.0), lower)
    return eqx.tree_at(
        lambda m: m.lower, measurement, lower, is_leaf=lambda x: x is None
    )


def deviance(
    likelihood: AbstractLikelihood, conditional: FitResult, best: FitResult
) -> Float[Array, ""]:
    """Twice the rise of the negative log-likelihood from a minimum to another.

    Its derivative needs none of the free parameters (the envelope theorem): both are
    minima. So it is exact in first order, and in first order only.

    Args:
        likelihood: The likelihood.
        conditional: A fit with parameters held.
        best: A fit with these free.

    Returns:
        The rise, not negative.
    """
    ends = (
        jnp.where(x.free, stop_gradient(x.parameters), x.parameters)
        for x in (conditional, best)
    )
    return jnp.maximum(2 * likelihood.change(*ends), 0.0)


def profile_statistic(
    measurement: Measurement,
    strength: Float[Array, ""],
    *,
    statistic: AbstractTestStatistic,
    num_steps: int = 100,
) -> Float[Array, ""]:
    """A test statistic of what was observed.

    Args:
        measurement: The measurement.
        strength: The strength of the signal that is tested.
        statistic: Which statistic.
        num_steps: How many Newton steps each fit may take.

    Returns:
        Its value; NaN where a fit fails.
    """
    measurement = statistic.restrict(measurement)
    best, conditional = fit_strengths(
        measurement,
        jnp.stack([strength, strength]),
        jnp.asarray([False, True]),
        num_steps=num_steps,
    )
    return evaluate(measurement, strength, best, conditional, statistic=statistic)


def evaluate(
    measurement: Measurement,
    strength: Float[Array, ""],
    best: FitResult,
    conditional: FitResult,
    *,
    statistic: AbstractTestStatistic,
) -> Float[Array, ""]:
    """A test statistic, of fits that are known.

    Args:
        measurement: The measurement, with the bounds that the statistic wants.
        strength: The strength of the signal that is tested.
        best: The free fit.
        conditional: The fit with this strength.
        statistic: Which statistic.

    Returns:
        Its value; NaN where a fit failed.
    """
    rise = deviance(measurement.likelihood, conditional, best)
    good = (best.status == FitStatus.converged) & (
        conditional.status == FitStatus.converged
    )
    value = statistic.value(strength, best.parameters[measurement.poi], rise)
    return jnp.where(good, value, jnp.nan)
