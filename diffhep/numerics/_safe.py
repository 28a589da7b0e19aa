import math

import jax.numpy as jnp
from jaxtyping import Array, Float


def safe_sqrt(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """The square root of the positive part, with zero derivative at and below zero.

    Args:
        x: Any number.

    Returns:
        `sqrt(max(x, 0))`, whose derivative is finite everywhere; NaN for NaN.
    """
    outside = x <= 0
    return jnp.where(outside, 0.0, jnp.sqrt(jnp.where(outside, 1.0, x)))


def safe_norm(
    vector: Float[Array, "*shape components"],
) -> Float[Array, "*shape"]:
    """The Euclidean norm over the last axis, with zero derivative at the origin.

    Args:
        vector: Vectors.

    Returns:
        Their lengths, in the unit of the components.
    """
    return safe_sqrt(jnp.sum(vector**2, axis=-1))


def sinc(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    r"""$\sin(x)/x$, smooth in value and in all derivatives at zero.

    Args:
        x: An angle, in radians. (Not multiplied by pi, unlike `numpy.sinc`.)

    Returns:
        The ratio; 1 at zero.
    """
    # The series is good to one part in 1e17 below the switch: x^8 / 362880.
    small = jnp.abs(x) < 3e-2
    safe = jnp.where(small, 1.0, x)
    square = jnp.where(small, x, 0.0) ** 2
    series = 1 - square / 6 * (1 - square / 20 * (1 - square / 42))
    return jnp.where(small, series, jnp.sin(safe) / safe)


def sinc_defect(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    r"""$(1 - \sin(x)/x)/x^2$, smooth in value and in derivative at zero.

    Args:
        x: An angle, in radians.

    Returns:
        The ratio; 1/6 at zero.
    """
    small = jnp.abs(x) < 3e-2
    safe = jnp.where(small, 1.0, x)
    square = jnp.where(small, x, 0.0) ** 2
    series = (1 - square / 20 * (1 - square / 42 * (1 - square / 72))) / 6
    return jnp.where(small, series, (1 - sinc(safe)) / safe**2)


def arcsine_ratio(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    r"""$\arcsin(x)/x$, smooth in value and in all derivatives at zero.

    The angle is halved twice, $\arcsin x = 2\arcsin(x / \sqrt{2 + 2\sqrt{1-x^2}})$, and
    a series takes the rest: half the time of a library's arcsine, to 1e-14.

    Args:
        x: The sine of an angle.

    Returns:
        The ratio; 1 at zero, NaN where there is no angle.
    """
    square = x**2
    factor = jnp.ones_like(x)
    for _ in range(2):
        sum_ = 2 + 2 * jnp.sqrt(1 - square)
        square = square / sum_
        factor = factor * 2 / jnp.sqrt(sum_)
    series = jnp.zeros_like(x)
    for coefficient in _ARCSINE_SERIES:
        series = series * square + coefficient
    return series * factor


_ARCSINE_SERIES = [math.comb(2 * n, n) / 4**n / (2 * n + 1) for n in range(14)][::-1]


def smooth_step(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """A step from exactly 0 (below 0) to exactly 1 (above 1), twice differentiable.

    The compact support is the point: what lies outside contributes nothing at all, so
    leaving it out (a capacity, a pre-selection) is no approximation.

    Args:
        x: The position along the step.

    Returns:
        `6x^5 - 15x^4 + 10x^3` in between.
    """
    t = jnp.clip(x, 0.0, 1.0)
    return t**3 * (10 + t * (6 * t - 15))
