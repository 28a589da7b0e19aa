"""How processes add up to what is observed, with a signal of some strength."""

import abc

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..numerics import safe_sqrt


class AbstractMixture(eqx.Module):
    """Processes whose rates add up, with coefficients that depend on the strength."""

    rates: eqx.AbstractVar[Float[Array, " processes"]]
    """Expected number of events, or cross-section, of each process."""

    @abc.abstractmethod
    def coefficients(self, strength: Float[Array, ""]) -> Float[Array, " processes"]:
        """How much of each process there is.

        Args:
            strength: The strength mu of the signal.

        Returns:
            Factors of the rates; some may be negative.
        """


class Addition(AbstractMixture):
    """A signal on top of its backgrounds: mu S + B_1 + B_2 + ..."""

    rates: Float[Array, " processes"]
    """Expected number of events: of the signal at mu = 1, then of each background."""

    def coefficients(self, strength: Float[Array, ""]) -> Float[Array, " processes"]:
        """The strength, then ones."""
        return jnp.ones_like(self.rates).at[0].set(strength)


class Interference(AbstractMixture):
    r"""The density of $|\sqrt\mu\,A_S + A_B|^2$ from ratios of positive samples.

    $$\sigma(\mu)\,p(x|\mu) = \mu\,\sigma_S\,p_S(x) + \sqrt\mu\,\sigma_I\,p_I(x)
      + \sigma_B\,p_B(x)$$

    The interference $p_I$ is no density: it has both signs, so that no classifier can
    learn it. But the left-hand side at three strengths determines the three terms, and
    with them all other strengths (morphing: ATLAS, ATL-PHYS-PUB-2015-047; as density
    ratios ATLAS, arXiv 2412.01600).
    """

    strengths: tuple[float, ...] = eqx.field(static=True)
    """Three different strengths mu of which there are samples; 0 is the background."""
    rates: Float[Array, "3"]
    """The cross-sections (or expected numbers of events) sigma at these strengths."""

    def __check_init__(self):
        values = self.strengths
        if len(values) != 3 or len(set(values)) != 3 or min(values) < 0:
            raise ValueError(
                f"`strengths` are {values}, but three terms need three different ones "
                "that are not negative; for example 0, 1 and 4."
            )

    def coefficients(self, strength: Float[Array, ""]) -> Float[Array, "3"]:
        """How much of each sample is in one of another strength.

        Args:
            strength: The strength mu, not negative. At 0 the slope is infinite, and
                given as zero: bound fits a little above 0, or they may stay there.

        Returns:
            Factors of the rates, some negative.
        """
        basis = np.array([[mu, np.sqrt(mu), 1.0] for mu in self.strengths])
        inverse = jnp.asarray(np.linalg.inv(basis), strength.dtype)
        terms = jnp.stack([strength, safe_sqrt(strength), jnp.ones_like(strength)])
        return jnp.sum(terms[:, None] * inverse, axis=0)

    def rate(self, strength: Float[Array, ""]) -> Float[Array, ""]:
        """The cross-section at a strength.

        Args:
            strength: The strength mu, not negative.

        Returns:
            The cross-section, in the unit of `rates`.
        """
        return jnp.sum(self.coefficients(strength) * self.rates)

    def ratio(
        self, strength: Float[Array, ""], log_ratios: Float[Array, "3 *entries"]
    ) -> Float[Array, "*entries"]:
        """The density ratio to the reference.

        Args:
            strength: The strength mu, not negative.
            log_ratios: Logarithms of the density ratios of each sample to one and the
                same reference.

        Returns:
            p(x | mu) / p_ref(x). Exact ratios make it positive; learnt ones may not,
            where samples cancel: `log` then is not a number, which says so.
        """
        share = self.coefficients(strength) * self.rates / self.rate(strength)
        return jnp.tensordot(share, jnp.exp(log_ratios), axes=1)

    def interference(
        self, log_ratios: Float[Array, "3 *entries"]
    ) -> Float[Array, "*entries"]:
        """The signed ratio of the interference, times its cross-section.

        Args:
            log_ratios: As in `ratio`.

        Returns:
            sigma_I p_I(x) / p_ref(x).
        """
        basis = np.array([[mu, np.sqrt(mu), 1.0] for mu in self.strengths])
        row = jnp.asarray(np.linalg.inv(basis)[1], log_ratios.dtype)
        return jnp.tensordot(row * self.rates, jnp.exp(log_ratios), axes=1)
