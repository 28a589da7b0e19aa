"""The binned likelihood of a signal over a background, with nuisance parameters.

The parameters are one vector: the signal strength mu (1 is the prediction), then the
nuisance parameters of the background's normalisation and of the jet energy scale, both
in units of their constraint's standard deviation. Those of the templates' statistical
error, one per bin, are eliminated in closed form.
"""

from typing import NamedTuple, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ._template_error import eliminate_factors


_Tree = TypeVar("_Tree", bound=PyTree)


class BinnedModel(eqx.Module):
    """Expected yields per bin, with their variations."""

    signal: Float[Array, " bins"]
    """Expected signal at mu = 1."""
    signal_up: Float[Array, " bins"]
    """The same with the jet energy scale one standard deviation up."""
    signal_down: Float[Array, " bins"]
    """The same, down."""
    background: Float[Array, " bins"]
    """Expected background."""
    background_up: Float[Array, " bins"]
    """The same with the jet energy scale one standard deviation up."""
    background_down: Float[Array, " bins"]
    """The same, down."""
    norm_width: Float[Array, ""]
    """Relative uncertainty of the background's normalisation (0.1 is 10 per cent)."""
    relative_variance: Float[Array, " bins"] | None = None
    """Square of the relative error of each bin's total yield at mu = 1, from the finite
    number of simulated events. None: the templates are exact."""
    floor: float = eqx.field(static=True, default=1e-6)
    """Yield added to each bin, so that an empty bin has a likelihood and a bin that
    empties does so smoothly: below the floor a bin stops to matter."""


def interpolate(
    nominal: Float[Array, "*shape"],
    up: Float[Array, "*shape"],
    down: Float[Array, "*shape"],
    shift: Float[Array, ""],
) -> tuple[Float[Array, "*shape"], Float[Array, "*shape"], Float[Array, "*shape"]]:
    r"""A template between and beyond its variations, twice differentiable.

    pyhf's interpolation code 4p (HistFactory, CERN-OPEN-2012-016): linear outside
    $|\alpha| \le 1$, a polynomial of sixth order inside, that matches value, slope and
    curvature where they meet.

    Args:
        nominal: The template at zero.
        up: The template at plus one.
        down: The template at minus one.
        shift: The nuisance parameter $\alpha$, in standard deviations.

    Returns:
        The template there, which may be negative far outside, and its first and
        second derivative to the nuisance parameter.
    """
    slope = (up - down) / 2
    bend = (up + down - 2 * nominal) / 16
    inside = jnp.abs(shift) < 1
    x = jnp.where(inside, shift, 0.0)
    square = x**2
    even = square * (15 + square * (3 * square - 10))
    value = jnp.where(inside, even, 8 * jnp.abs(shift))
    odd = x * (30 + square * (18 * square - 40))
    first = jnp.where(inside, odd, 8 * jnp.sign(shift))
    second = jnp.where(inside, 30 + square * (90 * square - 120), 0.0)
    return nominal + shift * slope + value * bend, slope + first * bend, second * bend


class Yields(NamedTuple):
    """Expected number of events per bin, with derivatives to the parameters."""

    rate: Float[Array, " bins"]
    """The numbers, above zero."""
    first: Float[Array, "3 bins"]
    """First derivatives."""
    second: Float[Array, "3 3 bins"]
    """Second derivatives."""


def expected_yields(model: BinnedModel, parameters: Float[Array, " 3"]) -> Yields:
    """The expected number of events per bin, with its derivatives.

    They are written out because a fit needs them together: that is several times
    faster to compile than differentiating twice.

    Args:
        model: The model.
        parameters: Signal strength, then the nuisance parameters of the background's
            normalisation and of the jet energy scale.

    Returns:
        `mu S(jes) + B(jes) (1 + norm_width)^norm`, plus the floor. Where an
        extrapolation is negative, something small and positive.
    """
    strength, norm, scale = parameters[0], parameters[1], parameters[2]
    value, slope, bend = interpolate(
        jnp.stack([model.signal, model.background]),
        jnp.stack([model.signal_up, model.background_up]),
        jnp.stack([model.signal_down, model.background_down]),
        scale,
    )
    rate = jnp.log1p(model.norm_width)
    factor = jnp.exp(norm * rate)
    weight = jnp.stack([strength, factor])[:, None]
    total = jnp.sum(weight * value, axis=0)
    signal, background = value[0], factor * value[1]
    tilt = factor * rate * slope[1]
    zero = jnp.zeros_like(total)
    first = jnp.stack([signal, rate * background, jnp.sum(weight * slope, axis=0)])
    second = jnp.stack(
        [
            jnp.stack([zero, zero, slope[0]]),
            jnp.stack([zero, rate**2 * background, tilt]),
            jnp.stack([slope[0], tilt, jnp.sum(weight * bend, axis=0)]),
        ]
    )
    return _keep_positive(Yields(total, first, second), model.floor)


def _keep_positive(yields: Yields, floor: float) -> Yields:
    # Add the floor; below zero go on with a hyperbola of the same value and slope, so
    # that a fit that strays there finds a likelihood, and its way back.
    total, first, second = yields
    positive = total > 0
    ratio = floor / (floor - jnp.where(positive, 0.0, total))
    slope = ratio**2
    bend = jnp.where(positive, 0.0, 2 * ratio**3 / floor)
    outer = first[:, None, :] * first[None, :, :]
    return Yields(
        jnp.where(positive, total + floor, floor * ratio),
        first * slope[None, :],
        second * slope[None, None, :] + outer * bend[None, None, :],
    )


def negative_log_likelihood(
    model: BinnedModel,
    parameters: Float[Array, " 3"],
    data: Float[Array, " bins"],
) -> Float[Array, ""]:
    """Minus the log-probability of the data: Poisson bins, Gaussian constraints.

    At the best factors of the bins, if the templates have a statistical error. In 64
    bits wherever JAX has them.

    Args:
        model: The model.
        parameters: Signal strength, then the nuisance parameters of the background's
            normalisation and of the jet energy scale.
        data: Observed number of events per bin; need not be whole.

    Returns:
        The negative logarithm, with all constants but those of the bins' factors.
    """
    model, parameters, data = widest((model, parameters, data))
    rate = expected_yields(model, parameters).rate
    bins = eliminate_factors(rate, data, model.relative_variance)
    rate = rate * bins.factor
    poisson = rate - data * jnp.log(rate) + jax.lax.lgamma(data + 1)
    constraint = parameters[1:] ** 2 / 2 + jnp.log(2 * jnp.pi) / 2
    return jnp.sum(poisson + bins.penalty) + jnp.sum(constraint)


def likelihood_change(
    model: BinnedModel,
    new: Float[Array, " 3"],
    old: Float[Array, " 3"],
    data: Float[Array, " bins"],
) -> Float[Array, ""]:
    """The difference of two negative log-likelihoods of the same data.

    Without the cancellation between large numbers that subtracting them would suffer.

    Args:
        model: The model.
        new: Parameters of the minuend.
        old: Parameters of the subtrahend.
        data: Observed number of events per bin.

    Returns:
        The negative log-likelihood at `new` minus that at `old`.
    """
    rates = [expected_yields(model, x).rate for x in (old, new)]
    bins = [eliminate_factors(x, data, model.relative_variance) for x in rates]
    rate = rates[0] * bins[0].factor
    # Unless there are factors, exactly the difference of the two rates.
    step = rates[1] * bins[1].factor - rate
    poisson = step - data * jnp.log1p(step / rate) + bins[1].penalty - bins[0].penalty
    return jnp.sum(poisson) + jnp.sum((new - old)[1:] * (new + old)[1:]) / 2


def widest(tree: _Tree) -> _Tree:
    """The floating-point arrays in the widest precision that JAX has switched on.

    Networks may run in 32 bits; the likelihood loses too many digits there. If
    `jax_enable_x64` is off, this does nothing.

    Args:
        tree: Anything.

    Returns:
        The same structure.
    """
    dtype = jnp.result_type(float)
    return jax.tree.map(
        lambda x: x.astype(dtype) if eqx.is_inexact_array(x) else x, tree
    )
