"""The search for the minimum of a likelihood: projected Newton steps."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.lax import stop_gradient
from jaxtyping import Array, Bool, Float, Int

from ..numerics import solve_spd
from ._likelihood import AbstractLikelihood


# Fractions of a Newton step that are tried where the whole one does not do.
_FRACTIONS = (1.0, 0.5, 0.25, 0.0625, 0.0078125)
# Beyond the three kinds of steps.
_DONE = 3


class Problem(eqx.Module):
    """What is fitted."""

    likelihood: AbstractLikelihood
    """The negative log-likelihood."""
    held: Float[Array, " parameters"]
    """Where the parameters that do not move are held."""
    lower: Float[Array, " parameters"] | None
    """Lower bounds; of fixed parameters, none."""
    upper: Float[Array, " parameters"] | None
    """Upper bounds, likewise."""
    fixed: Bool[Array, " parameters"] | None
    """Which parameters do not move."""


def project(point: Float[Array, " n"], problem: Problem) -> Float[Array, " n"]:
    """The point between the bounds that is closest.

    Args:
        point: Any point.
        problem: What is fitted.

    Returns:
        The point within the bounds.
    """
    if problem.lower is not None:
        point = jnp.maximum(point, problem.lower)
    if problem.upper is not None:
        point = jnp.minimum(point, problem.upper)
    return point


def free_ones(
    point: Float[Array, " n"], slope: Float[Array, " n"], problem: Problem
) -> Bool[Array, " n"]:
    """All but fixed parameters, and those that a bound keeps from going downhill.

    Args:
        point: Where.
        slope: First derivatives of the likelihood there.
        problem: What is fitted.

    Returns:
        Which parameters are free.
    """
    free = jnp.ones(point.shape, bool) if problem.fixed is None else ~problem.fixed
    if problem.lower is not None:
        free = free & ((point > problem.lower) | (slope < 0))
    if problem.upper is not None:
        free = free & ((point < problem.upper) | (slope > 0))
    return free


def restrict(
    matrix: Float[Array, "n n"], free: Bool[Array, " n"]
) -> Float[Array, "n n"]:
    """The matrix of the free parameters, and the identity for all others.

    Args:
        matrix: A matrix.
        free: Which parameters are free.

    Returns:
        A matrix of the same shape.
    """
    identity = jnp.eye(matrix.shape[0], dtype=matrix.dtype)
    return jnp.where(free[:, None] & free[None, :], matrix, identity)


def find(
    begin: Float[Array, " n"], problem: Problem, *, mirror: bool, num_steps: int
) -> Float[Array, " n"]:
    """The end of the search for a minimum; to be called without tangents.

    Args:
        begin: Where to begin, within the bounds.
        problem: What is fitted.
        mirror: Whether to search a second time, from the other side of `begin`, and
            take the better end.
        num_steps: How many steps each search may take.

    Returns:
        The point where it ends.
    """
    if not mirror:
        return _search(begin, problem, num_steps=num_steps)

    def again(carry: Any, _: None) -> tuple[Any, None]:
        best, origin = carry
        found = _search(origin, problem, num_steps=num_steps)
        better = ~(problem.likelihood.change(found, best) >= 0)
        best = jnp.where(better & jnp.all(jnp.isfinite(found)), found, best)
        return (best, project(2 * begin - found, problem)), None

    (best, _), _ = jax.lax.scan(again, (begin, begin), length=2)
    return best


def _search(
    begin: Float[Array, " n"], problem: Problem, *, num_steps: int
) -> Float[Array, " n"]:
    def proceed(carry: Any) -> Bool[Array, ""]:
        _, mode, index = carry
        return (mode < _DONE) & (index < num_steps)

    def advance(carry: Any) -> Any:
        point, mode, index = carry
        return *newton_step(point, mode, problem), index + 1

    carry = (stop_gradient(begin), jnp.asarray(0), jnp.asarray(0))
    return jax.lax.while_loop(proceed, advance, carry)[0]


def newton_step(
    point: Float[Array, " n"], mode: Int[Array, ""], problem: Problem
) -> tuple[Float[Array, " n"], Int[Array, ""]]:
    """The next point, and how to go on.

    With the Hessian; where that does not help, with its stand-in; at last with the
    diagonal of this, downhill along the bounds too.

    Args:
        point: Where the search is.
        mode: Which of these to take.
        problem: What is fitted.

    Returns:
        The next point, and the next mode.
    """
    slope, hessian, fisher = problem.likelihood.derivatives(point)
    free = free_ones(point, slope, problem)
    slope = jnp.where(free, slope, 0.0)
    tiny = jnp.finfo(point.dtype).eps
    diagonal = jnp.diagonal(fisher)
    curvature = jnp.where(mode == 1, fisher, jnp.diag(diagonal))
    curvature = jnp.where(mode == 0, hessian, curvature)
    # A parameter without curvature goes as far as it may, and the others as without it.
    straight = is_straight(slope, curvature, fisher)
    bent = free & ~straight
    # A parameter without influence must not move, and must not spoil the others.
    identity = jnp.eye(point.shape[0], dtype=point.dtype)
    ridge = tiny * jnp.sum(diagonal) * identity
    step = -solve_spd(restrict(curvature + ridge, bent), jnp.where(bent, slope, 0.0))
    step = jnp.where(straight, _to_bound(point, slope, problem), step)
    whole = project(point + step, problem)
    # So close to the minimum the change is rounding error, and Newton's step is right.
    # (No comparison holds where the matrix is not positive definite.)
    decrement = -(slope @ step)
    close = (mode == 0) & (decrement < tiny**0.5)
    # Half of what a parabola promises.
    enough = problem.likelihood.change(whole, point) < -decrement / 4
    chosen, improves = jax.lax.cond(
        close | enough,
        lambda: (whole, jnp.asarray(True)),
        lambda: _shorten(point, step, problem),
    )
    after = jnp.where(improves, 0, mode + 1)
    # Newton's method about squares it: 1e-11 standard deviations are left in double
    # precision, 1e-5 in single.
    after = jnp.where(close & (decrement < tiny**0.7), _DONE, after)
    return chosen, after


def is_straight(
    slope: Float[Array, " n"],
    curvature: Float[Array, "n n"],
    fisher: Float[Array, "n n"],
) -> Bool[Array, " n"]:
    """Which parameters have a slope and nothing that would end it.

    As the signal has in a counting experiment without an event.

    Args:
        slope: First derivatives of a likelihood; zero where not free.
        curvature: Second derivatives.
        fisher: Their stand-in.

    Returns:
        The answer for each.
    """
    # What a parabola promises to gain, in units of the likelihood's logarithm, is more
    # than any number of events.
    bend = jnp.maximum(jnp.abs(jnp.diagonal(curvature)), jnp.diagonal(fisher))
    return bend < jnp.finfo(slope.dtype).eps ** 2 * slope**2


def _to_bound(
    point: Float[Array, " n"], slope: Float[Array, " n"], problem: Problem
) -> Float[Array, " n"]:
    # Downhill to the bound, or nowhere if there is none. Twice the way: rounding must
    # not let it end before: what is too long is projected.
    step = jnp.zeros_like(point)
    for bound, ahead in ((problem.lower, slope > 0), (problem.upper, slope < 0)):
        if bound is not None:
            known = ahead & jnp.isfinite(bound)
            step = jnp.where(known, 2 * (jnp.where(known, bound, point) - point), step)
    return step


def _shorten(
    point: Float[Array, " n"], step: Float[Array, " n"], problem: Problem
) -> tuple[Float[Array, " n"], Bool[Array, ""]]:
    # The best of some fractions of the step, if it leads downhill.
    fractions = jnp.asarray(_FRACTIONS, point.dtype)
    if problem.lower is not None or problem.upper is not None:
        # A step that bounds bend may lead uphill; as far as the first it does not. No
        # gradient to the fraction: the last steps, which count, are whole ones.
        room = _room(*stop_gradient((point, step, problem)))
        fractions = jnp.concatenate([fractions, jnp.stack([room, room / 4])])
    trials = jax.vmap(lambda f: project(point + f * step, problem))(fractions)
    changes = jax.vmap(lambda x: problem.likelihood.change(x, point))(trials)
    best = jnp.argmin(jnp.where(jnp.isnan(changes), jnp.inf, changes))
    improves = changes[best] < 0
    return jnp.where(improves, trials[best], point), improves


def _room(
    point: Float[Array, " n"], step: Float[Array, " n"], problem: Problem
) -> Float[Array, ""]:
    # The fraction of the step up to the first bound.
    some = step != 0
    safe = jnp.where(some, step, 1.0)
    room = jnp.ones_like(point)
    for bound, outwards in ((problem.lower, step < 0), (problem.upper, step > 0)):
        if bound is not None:
            gap = jnp.where(outwards, bound - point, safe)
            room = jnp.minimum(room, gap / safe)
    return jnp.min(room)
