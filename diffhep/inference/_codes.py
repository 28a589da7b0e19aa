"""How a template or a yield goes from one variation through nominal to the other.

ROOT's and pyhf's names: codes 0, 2 and 4p for shapes, which are added; 1 and 4 for
normalisations, which are multiplied (HistFactory, CERN-OPEN-2012-016).
"""

import abc
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float


class Smooth(NamedTuple):
    """A function of nuisance parameters, with its derivatives to them."""

    value: Float[Array, "*shape"]
    """The function."""
    first: Float[Array, "*shape"]
    """Its first derivative."""
    second: Float[Array, "*shape"]
    """Its second derivative."""


class AbstractShapeCode(eqx.Module):
    r"""How the bins of a template depend on a nuisance parameter (histosys).

    For each code the change of a template is $\alpha (u - d) / 2 + g(\alpha)
    ((u + d) / 2 - n)$, with the template up, down and nominal, and an even function $g$
    that is 1 at $\pm 1$. So all changes together are two matrix products.
    """

    @property
    @abc.abstractmethod
    def kink(self) -> bool:
        """Whether the template has a kink at zero."""

    @abc.abstractmethod
    def even_part(self, shift: Float[Array, "*shape"]) -> Smooth:
        """The even function.

        Args:
            shift: Nuisance parameters, in standard deviations.

        Returns:
            The function, with its derivatives.
        """


class Code0(AbstractShapeCode):
    """Linear on each side, with a kink at zero."""

    @property
    def kink(self) -> bool:
        """There is one."""
        return True

    def even_part(self, shift: Float[Array, "*shape"]) -> Smooth:
        """The modulus, with the derivative of the lower side at zero, as in pyhf."""
        sign = jnp.where(shift > 0, 1.0, -1.0)
        return Smooth(shift * sign, sign, jnp.zeros_like(shift))


class Code2(AbstractShapeCode):
    """Quadratic inside one standard deviation, linear outside.

    Continuous, with its slope, as in ROOT. pyhf 0.7 jumps at one standard deviation.
    """

    @property
    def kink(self) -> bool:
        """There is none."""
        return False

    def even_part(self, shift: Float[Array, "*shape"]) -> Smooth:
        """A parabola, continued by its tangents."""
        inside = jnp.abs(shift) < 1
        x = jnp.where(inside, shift, 0.0)
        sign = jnp.sign(shift)
        return Smooth(
            jnp.where(inside, x**2, 2 * jnp.abs(shift) - 1),
            jnp.where(inside, 2 * x, 2 * sign),
            jnp.where(inside, 2.0, jnp.zeros_like(shift)),
        )


class Code4p(AbstractShapeCode):
    """Of sixth order inside one standard deviation, linear outside; twice smooth."""

    @property
    def kink(self) -> bool:
        """There is none."""
        return False

    def even_part(self, shift: Float[Array, "*shape"]) -> Smooth:
        """The polynomial that matches value, slope and curvature of the modulus."""
        inside = jnp.abs(shift) < 1
        x = jnp.where(inside, shift, 0.0)
        square = x**2
        value = square * (15 + square * (3 * square - 10)) / 8
        first = x * (15 + square * (9 * square - 20)) / 4
        second = (15 + square * (45 * square - 60)) / 4
        return Smooth(
            jnp.where(inside, value, jnp.abs(shift)),
            jnp.where(inside, first, jnp.sign(shift)),
            jnp.where(inside, second, 0.0),
        )


class AbstractNormCode(eqx.Module):
    """How a normalisation depends on a nuisance parameter (normsys)."""

    @property
    @abc.abstractmethod
    def kink(self) -> bool:
        """Whether the factor has a kink at zero."""

    @abc.abstractmethod
    def coefficients(
        self, up: Float[Array, "*shape"], down: Float[Array, "*shape"]
    ) -> tuple[Float[Array, "*shape"], ...]:
        """What does not depend on the nuisance parameter, to be computed once per fit.

        Args:
            up: The factor at plus one, not negative.
            down: The factor at minus one, not negative.

        Returns:
            Coefficients for `factor`.
        """

    @abc.abstractmethod
    def factor(
        self,
        coefficients: tuple[Float[Array, "*shape"], ...],
        shift: Float[Array, "*#shape"],
    ) -> Smooth:
        """The factor on the yield.

        Args:
            coefficients: What `coefficients` returned.
            shift: Nuisance parameters, in standard deviations.

        Returns:
            The factor, with its derivatives.
        """


class Code1(AbstractNormCode):
    """Exponential on each side, with a kink at zero."""

    @property
    def kink(self) -> bool:
        """There is one."""
        return True

    def coefficients(
        self, up: Float[Array, "*shape"], down: Float[Array, "*shape"]
    ) -> tuple[Float[Array, "*shape"], ...]:
        """Logarithms of both factors."""
        return _safe_log(up), _safe_log(down)

    def factor(
        self,
        coefficients: tuple[Float[Array, "*shape"], ...],
        shift: Float[Array, "*#shape"],
    ) -> Smooth:
        """A power of the factor of that side."""
        log_up, log_down = coefficients
        return _power(log_up, log_down, shift)


class Code4(AbstractNormCode):
    """Of sixth order inside one standard deviation, a power outside; twice smooth."""

    @property
    def kink(self) -> bool:
        """There is none."""
        return False

    def coefficients(
        self, up: Float[Array, "*shape"], down: Float[Array, "*shape"]
    ) -> tuple[Float[Array, "*shape"], ...]:
        """Logarithms of both factors, and the polynomial's six coefficients.

        These match value, slope and curvature of the exponentials at one standard
        deviation: even and odd powers are systems of three equations each.
        """
        log_up, log_down = _safe_log(up), _safe_log(down)
        # Value less one, slope, curvature: halves of sums and differences of both ends.
        ends = [(up - 1, down - 1)]
        ends += [(up * log_up, -down * log_down)]
        ends += [(up * log_up**2, down * log_down**2)]
        (s0, d0), (s1, d1), (s2, d2) = (((u + v) / 2, (u - v) / 2) for u, v in ends)
        odd = (
            (15 * d0 - 7 * s1 + d2) / 8,
            (-10 * d0 + 10 * s1 - 2 * d2) / 8,
            (3 * d0 - 3 * s1 + d2) / 8,
        )
        even = (
            (24 * s0 - 9 * d1 + s2) / 8,
            (-24 * s0 + 14 * d1 - 2 * s2) / 8,
            (8 * s0 - 5 * d1 + s2) / 8,
        )
        return log_up, log_down, *odd, *even

    def factor(
        self,
        coefficients: tuple[Float[Array, "*shape"], ...],
        shift: Float[Array, "*#shape"],
    ) -> Smooth:
        """A polynomial, continued by powers."""
        log_up, log_down, a1, a3, a5, a2, a4, a6 = coefficients
        inside = jnp.abs(shift) < 1
        x = jnp.where(inside, shift, 0.0)
        square = x**2
        odd = a1 + square * (a3 + square * a5)
        even = a2 + square * (a4 + square * a6)
        value = 1 + x * (odd + x * even)
        slope = a1 + square * (3 * a3 + square * 5 * a5)
        first = slope + x * (2 * a2 + square * (4 * a4 + square * 6 * a6))
        bend = x * (6 * a3 + square * 20 * a5)
        second = bend + 2 * a2 + square * (12 * a4 + square * 30 * a6)
        outside = _power(log_up, log_down, shift)
        polynomial = (value, first, second)
        pairs = zip(polynomial, outside, strict=True)
        value, first, second = (jnp.where(inside, p, o) for p, o in pairs)
        return Smooth(value, first, second)


def _power(
    log_up: Float[Array, "*shape"],
    log_down: Float[Array, "*shape"],
    shift: Float[Array, "*#shape"],
) -> Smooth:
    # up^shift above zero, down^-shift below.
    rate = jnp.where(shift > 0, log_up, -log_down)
    value = jnp.exp(shift * rate)
    return Smooth(value, rate * value, rate**2 * value)


def _safe_log(factor: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    # A factor of zero counts as the least positive number: what is made of it, powers
    # and products with the factor, is then zero within rounding, and so is its slope.
    return jnp.log(jnp.maximum(factor, jnp.finfo(factor.dtype).tiny))
