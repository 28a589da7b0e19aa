"""The root of a function of one number, between two bounds."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optimistix as optx
from jax.lax import stop_gradient
from jaxtyping import Array, Float, PyTree

from ._general import SmallGeneral
from ._optimality import solve_optimality


_IMPLICIT = optx.ImplicitAdjoint(linear_solver=SmallGeneral())


def find_root(
    function: Callable[[Float[Array, ""], PyTree], Float[Array, ""]],
    low: Float[Array, ""],
    high: Float[Array, ""],
    args: PyTree,
    *,
    tolerance: float = 1e-12,
    num_steps: int = 100,
) -> Float[Array, ""]:
    """Where a continuous function is zero, with its implicit derivative.

    Inverse quadratic interpolation where that is safe and bisection elsewhere
    (Chandrupatla, Adv. Eng. Software 28 (1997) 145): never more steps than bisection by
    much, and mostly about ten.

    Args:
        function: The function, `(x, args) -> value`. A module-level function: it may
            not close over arrays.
        low: One bound. No gradient flows to it.
        high: The other. The function has different signs at the two.
        args: Everything else that the function depends on and that is differentiated.
        tolerance: Relative to the distance of the bounds, how well the root is found.
        num_steps: How many evaluations to take at most.

    Returns:
        The root; NaN where the function has the same sign at both bounds, where it is
        not a number on the way, and where it is not found in `num_steps`.
    """
    constant = stop_gradient(args)
    low, high = stop_gradient(low), stop_gradient(high)
    root = _bracketed(
        lambda x: function(x, constant),
        low,
        high,
        tolerance=tolerance,
        num_steps=num_steps,
    )
    return solve_optimality(
        _stay,
        _residual,
        root[None],
        _Question(function, args),
        num_steps=0,
        adjoint=_IMPLICIT,
        symmetric=False,
    )[0]


class _Question(eqx.Module):
    function: Callable[..., Any] = eqx.field(static=True)
    args: PyTree


def _residual(point: Float[Array, " 1"], question: _Question) -> Float[Array, " 1"]:
    return question.function(point[0], question.args)[None]


def _stay(point: Float[Array, " 1"], question: _Question) -> Float[Array, " 1"]:
    del question
    return point


def _bracketed(
    function: Callable[[Float[Array, ""]], Float[Array, ""]],
    low: Float[Array, ""],
    high: Float[Array, ""],
    *,
    tolerance: float,
    num_steps: int,
) -> Float[Array, ""]:
    # Chandrupatla's names: the root lies between a and b, c is the point before them.
    reach = tolerance * jnp.abs(high - low)
    values = function(low), function(high)
    half = jnp.full_like(low, 0.5)

    def proceed(carry: Any) -> Any:
        _, _, _, _, _, _, fraction, index = carry
        return (fraction > 0) & (index < num_steps)

    def advance(carry: Any) -> Any:
        a, fa, b, fb, c, fc, fraction, index = carry
        x = a + fraction * (b - a)
        fx = function(x)
        same = jnp.sign(fx) == jnp.sign(fa)
        c, fc = jnp.where(same, a, b), jnp.where(same, fa, fb)
        b, fb = jnp.where(same, b, a), jnp.where(same, fb, fa)
        a, fa = x, fx
        limit = reach / jnp.maximum(jnp.abs(b - a), jnp.finfo(a.dtype).tiny)
        fraction = jnp.clip(_next_fraction(a, fa, b, fb, c, fc), limit, 1 - limit)
        done = (limit > 0.5) | (fa == 0) | jnp.isnan(fa)
        return a, fa, b, fb, c, fc, jnp.where(done, 0.0, fraction), index + 1

    start = (high, values[1], low, values[0], low, values[0], half, jnp.asarray(0))
    a, fa, b, fb, _, _, fraction, _ = jax.lax.while_loop(proceed, advance, start)
    root = jnp.where(jnp.abs(fa) < jnp.abs(fb), a, b)
    found = (fraction == 0) & ~jnp.isnan(fa + fb)
    bracketed = jnp.sign(values[0]) * jnp.sign(values[1]) <= 0
    return jnp.where(found & bracketed, root, jnp.nan)


def _next_fraction(  # noqa: PLR0917 - three points and their values
    a: Float[Array, ""],
    fa: Float[Array, ""],
    b: Float[Array, ""],
    fb: Float[Array, ""],
    c: Float[Array, ""],
    fc: Float[Array, ""],
) -> Float[Array, ""]:
    # Inverse quadratic interpolation, where it is monotone between a and b.
    place, level = (a - b) / (c - b), (fa - fb) / (fc - fb)
    safe = (level**2 < place) & ((1 - level) ** 2 < 1 - place)
    first = fa / (fb - fa) * fc / (fb - fc)
    second = (c - a) / (b - a) * fa / (fc - fa) * fb / (fc - fb)
    return jnp.where(safe, first + second, 0.5)
