"""Density ratios whose logarithm is a polynomial in the parameters."""

import itertools
from collections.abc import Callable

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, Shaped

from ._learnt_ratio import Standardisation, apply_network, float_type, perceptron


class Polynomial(eqx.Module):
    r"""Monomials of the displacement $(\theta - c) / w$, from the first degree on."""

    centre: tuple[float, ...] = eqx.field(static=True)
    """The parameters c at which it is zero."""
    width: tuple[float, ...] = eqx.field(static=True)
    """How far w parameters are from there typically."""
    degree: int = eqx.field(static=True, default=2)
    """The highest degree."""

    def __check_init__(self):
        """Raise where there is no polynomial."""
        if self.degree < 1 or len(self.centre) != len(self.width) or not self.centre:
            raise ValueError(
                f"The degree is {self.degree}, and there are {len(self.centre)} "
                f"centres and {len(self.width)} widths; give a degree of at least 1, "
                "and a centre and a width for each parameter."
            )
        if 0 in self.width:
            raise ValueError(
                f"The widths are {self.width}; a parameter that does not change has no "
                "place in the polynomial."
            )

    @property
    def monomials(self) -> tuple[tuple[int, ...], ...]:
        """Which parameters each is the product of, in the order of the terms."""
        number = range(len(self.centre))
        return tuple(
            chosen
            for k in range(1, self.degree + 1)
            for chosen in itertools.combinations_with_replacement(number, k)
        )

    def __call__(
        self,
        terms: Float[Array, "*entries terms"],
        parameters: Float[Array, " parameters"],
    ) -> Float[Array, "*entries"]:
        """Its value.

        Args:
            terms: The coefficient of each monomial.
            parameters: Where.

        Returns:
            One value for each set of coefficients.

        Raises:
            ValueError: There is another number of terms or parameters.
        """
        wanted = (len(self.monomials),), (len(self.centre),)
        if (terms.shape[-1:], parameters.shape) != wanted:
            raise ValueError(
                f"Terms and parameters have the shapes {terms.shape} and "
                f"{parameters.shape}, but there are {wanted[0][0]} monomials of "
                f"{wanted[1][0]} parameters; give as many. (Those of `VariedEvents` "
                "come after the parameters with which its events were simulated.)"
            )
        dtype = float_type(terms, parameters)
        centre, width = (jnp.asarray(x, dtype) for x in (self.centre, self.width))
        shift = (parameters.astype(dtype) - centre) / width
        powers = [jnp.prod(shift[jnp.asarray(x)]) for x in self.monomials]
        return terms.astype(dtype) @ jnp.stack(powers)


class PolynomialRatio(eqx.Module):
    r"""A density ratio with a network for each monomial's coefficient.

    $$\log \frac{p(x|\theta)}{p(x|c)} = \sum_k t_k(x)\, m_k\Bigl(\frac{\theta - c}{w}
      \Bigr)$$

    It is positive everywhere and exactly 1 at the centre, where the numerator is the
    reference; and cheap in fits, for the network is evaluated once for each event. It
    is not exactly normalised elsewhere; `normalisation` tells by how much. For
    densities that change smoothly over the range of the parameters: where a normal
    distribution is shifted the second degree is exact.
    """

    network: Callable[[Float[Array, " features"]], Float[Array, " terms"]]
    """From standardised features to the coefficients."""
    standardisation: Standardisation
    """Of the features."""
    polynomial: Polynomial
    """Of the parameters."""

    @classmethod
    def init(
        cls,
        features: Shaped[Array, "entries features"],
        polynomial: Polynomial,
        *,
        width: int = 64,
        depth: int = 2,
        key: PRNGKeyArray,
    ) -> "PolynomialRatio":
        """A new one, with a multilayer perceptron in 32 bits.

        Args:
            features: Those of the training, to standardise.
            polynomial: Of the parameters.
            width: Width of the network's hidden layers.
            depth: Number of hidden layers.
            key: Random key.

        Returns:
            The ratio, at random.
        """
        standardisation = Standardisation.of(features)
        sizes = len(standardisation.mean), len(polynomial.monomials)
        return cls(perceptron(*sizes, width, depth, key), standardisation, polynomial)

    def terms(self, features: Shaped[Array, " features"]) -> Float[Array, " terms"]:
        """The coefficients, all that a likelihood has to know of an event.

        Args:
            features: Of one event.

        Returns:
            The coefficient of each monomial: what `polynomial` takes.
        """
        features = features.astype(float_type(features))
        return apply_network(self.network, self.standardisation(features))

    def __call__(
        self,
        features: Shaped[Array, " features"],
        parameters: Float[Array, " parameters"],
    ) -> Float[Array, ""]:
        """The logarithm of the ratio.

        Args:
            features: Of one event.
            parameters: The parameters.

        Returns:
            The logarithm.
        """
        return self.polynomial(self.terms(features), parameters)
