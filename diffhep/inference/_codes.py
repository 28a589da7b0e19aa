"""How a template or a yield goes from one variation through nominal to the other.

ROOT's and pyhf's names: codes 0, 2 and 4p for shapes, which are added; 1 and 4 for
normalisations, which are multiplied (HistFactory, CERN-OPEN-2012-016). `Parabola` is
not theirs.
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


class AbstractCode(eqx.Module):
    """How what is positive depends on nuisance parameters, given its variations."""

    @property
    @abc.abstractmethod
    def kink(self) -> bool:
        """Whether there is a kink at zero."""

    @property
    @abc.abstractmethod
    def additive(self) -> bool:
        """Whether changes are added: then means over a sample are kept.

        What is one on average at each variation is so at any nuisance parameter.
        """

    @abc.abstractmethod
    def combined(
        self,
        up: Float[Array, "nuisances *shape"],
        down: Float[Array, "nuisances *shape"],
        shift: Float[Array, " nuisances"],
    ) -> Float[Array, "*shape"]:
        """The factor of all nuisance parameters together.

        Args:
            up: The factor at plus one standard deviation of each, not negative.
            down: The factor at minus one, not negative.
            shift: Nuisance parameters, in standard deviations.

        Returns:
            The factor on what there is at zero.
        """


class AbstractShapeCode(AbstractCode):
    r"""How the bins of a template depend on a nuisance parameter (histosys).

    For each code the change of a template is $\alpha (u - d) / 2 + g(\alpha)
    ((u + d) / 2 - n)$, with the template up, down and nominal, and an even function $g$
    that is 1 at $\pm 1$. So all changes together are two matrix products.
    """

    @abc.abstractmethod
    def even_part(self, shift: Float[Array, "*shape"]) -> Smooth:
        """The even function.

        Args:
            shift: Nuisance parameters, in standard deviations.

        Returns:
            The function, with its derivatives.
        """

    @property
    def additive(self) -> bool:
        """They are."""
        return True

    def combined(
        self,
        up: Float[Array, "nuisances *shape"],
        down: Float[Array, "nuisances *shape"],
        shift: Float[Array, " nuisances"],
    ) -> Float[Array, "*shape"]:
        """One and all changes; negative where these are large."""
        shift = _raised(shift, up)
        even = self.even_part(shift).value
        change = shift * (up - down) / 2 + even * ((up + down) / 2 - 1)
        return 1 + jnp.sum(change, axis=0)


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


class Parabola(AbstractShapeCode):
    r"""Quadratic everywhere: a density to second order of the nuisance parameter.

    That is exact for $|A + \alpha A'|^2$, so for a zero of an amplitude that moves
    little, where other codes make densities negative beyond one standard deviation.
    """

    @property
    def kink(self) -> bool:
        """There is none."""
        return False

    def even_part(self, shift: Float[Array, "*shape"]) -> Smooth:
        """The square."""
        return Smooth(shift**2, 2 * shift, jnp.full_like(shift, 2.0))


class AbstractNormCode(AbstractCode):
    """How a normalisation depends on a nuisance parameter (normsys)."""

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

    @property
    def additive(self) -> bool:
        """They are not."""
        return False

    def combined(
        self,
        up: Float[Array, "nuisances *shape"],
        down: Float[Array, "nuisances *shape"],
        shift: Float[Array, " nuisances"],
    ) -> Float[Array, "*shape"]:
        """The product."""
        numbers = self.coefficients(up, down)
        return jnp.prod(self.factor(numbers, _raised(shift, up)).value, axis=0)


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
    """Of sixth order inside one standard deviation, a power outside; twice smooth.

    Positive, except that the polynomial may not be where a variation is a factor of 25
    or more. `Code1` always is.
    """

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


def _raised(
    shift: Float[Array, " nuisances"], like: Float[Array, "nuisances *shape"]
) -> Float[Array, "nuisances *ones"]:
    # With as many axes.
    return jnp.expand_dims(shift, tuple(range(1, like.ndim)))


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
