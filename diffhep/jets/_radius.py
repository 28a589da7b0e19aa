"""The jet radius: a number, or a function of transverse momentum or rapidity."""

import abc
import itertools
import math
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..numerics import safe_sqrt
from ._distance import coordinates_of


class AbstractRadius(eqx.Module):
    """A jet radius that may differ from pseudojet to pseudojet."""

    @abc.abstractmethod
    def __call__(
        self, pt: Float[Array, ""], rapidity: Float[Array, ""]
    ) -> Float[Array, ""]:
        """The radius of a pseudojet.

        Args:
            pt: Its transverse momentum, in GeV.
            rapidity: Its rapidity.

        Returns:
            The radius, positive; differentiable.
        """


class ConstantRadius(AbstractRadius):
    """The same radius for all."""

    value: Float[Array, ""]
    """The radius R."""

    def __call__(
        self, pt: Float[Array, ""], rapidity: Float[Array, ""]
    ) -> Float[Array, ""]:
        """The radius."""
        del pt, rapidity
        return self.value


class RadiusInPt(AbstractRadius):
    """A radius piecewise linear in the logarithm of the transverse momentum."""

    values: Float[Array, " knots"]
    """The radius at each knot; constant beyond the outer ones."""
    knots: tuple[float, ...] = eqx.field(static=True)
    """Transverse momenta, increasing, in GeV."""

    def __check_init__(self):
        _check(self.knots, self.values)

    def __call__(
        self, pt: Float[Array, ""], rapidity: Float[Array, ""]
    ) -> Float[Array, ""]:
        """The radius at a transverse momentum."""
        del rapidity
        # A pseudojet of no transverse momentum is that of the first knot.
        pt = jnp.clip(pt, self.knots[0], self.knots[-1])
        return _interpolate(jnp.log(pt), _logs(self.knots), self.values)


class RadiusInRapidity(AbstractRadius):
    """A radius piecewise linear in the absolute rapidity."""

    values: Float[Array, " knots"]
    """The radius at each knot; constant beyond the outer ones."""
    knots: tuple[float, ...] = eqx.field(static=True)
    """Absolute rapidities, increasing."""

    def __check_init__(self):
        _check(self.knots, self.values)

    def __call__(
        self, pt: Float[Array, ""], rapidity: Float[Array, ""]
    ) -> Float[Array, ""]:
        """The radius at a rapidity."""
        del pt
        return _interpolate(jnp.abs(rapidity), self.knots, self.values)


def as_radius(radius: Float[Array, ""] | AbstractRadius) -> AbstractRadius:
    """A radius as a function, a number being a constant one."""
    return radius if isinstance(radius, AbstractRadius) else ConstantRadius(radius)


def tabulated(
    radius: AbstractRadius,
) -> tuple[int, tuple[float, ...], Float[Array, " knots"]]:
    """A radius as the compiled engine knows it.

    Args:
        radius: One of the functions of this module.

    Returns:
        Zero for a constant, 1 for a function of the logarithm of the transverse
        momentum, 2 of the absolute rapidity; its knots; and the radius there.
    """
    if isinstance(radius, ConstantRadius):
        return 0, (0.0,), radius.value[None]
    if isinstance(radius, RadiusInPt):
        return 1, _logs(radius.knots), radius.values
    if isinstance(radius, RadiusInRapidity):
        return 2, radius.knots, radius.values
    raise ValueError(
        f"`CompiledEngine` does not know the radius `{type(radius).__name__}`; use "
        "`JaxEngine`, or one of `RadiusInPt` and `RadiusInRapidity`."
    )


def radii(
    radius: AbstractRadius,
    momentum: Float[Array, "4 *slots lanes"],
) -> Float[Array, "*slots lanes"]:
    """The radii of pseudojets, lanes last.

    Args:
        radius: The function, whose arrays have `lanes` as last axis.
        momentum: Four-momenta (px, py, pz, E), in GeV.

    Returns:
        The radii.
    """
    shape = momentum.shape[1:]
    if isinstance(radius, ConstantRadius):
        lead = (1,) * (len(shape) - 1)
        return jnp.broadcast_to(jnp.reshape(radius.value, (*lead, -1)), shape)
    pt = safe_sqrt(momentum[0] ** 2 + momentum[1] ** 2)
    # Computed for the distances, too: the compiler does so once.
    rapidity, _, _ = coordinates_of(momentum, jnp.zeros_like(pt))
    run: Callable = lambda r, pt, y: r(pt, y)  # noqa: E731
    for _ in range(len(shape) - 1):
        run = jax.vmap(run, in_axes=(None, 0, 0))
    return jax.vmap(run, in_axes=(-1, -1, -1), out_axes=-1)(radius, pt, rapidity)


def _logs(knots: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(math.log(knot) for knot in knots)


def _interpolate(
    x: Float[Array, ""], knots: tuple[float, ...], values: Float[Array, " knots"]
) -> Float[Array, ""]:
    # A sum of ramps: elementwise, whatever the number of pseudojets.
    total = values[0]
    for k, (low, high) in enumerate(itertools.pairwise(knots)):
        ramp = jnp.clip((x - low) / (high - low), 0.0, 1.0)
        total = total + (values[k + 1] - values[k]) * ramp
    return total


def _check(knots: tuple[float, ...], values: Array) -> None:
    increase = all(a < b for a, b in itertools.pairwise(knots))
    if len(knots) < 2 or not increase:
        raise ValueError(
            f"`knots` are {knots}, but there must be at least two, and they must "
            "increase; for one radius pass a number."
        )
    if eqx.is_array(values) and values.shape[:1] != (len(knots),):
        raise ValueError(
            f"`values` has the shape {values.shape}, but there are {len(knots)} knots; "
            "give one value for each."
        )
