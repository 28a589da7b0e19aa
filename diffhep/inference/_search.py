"""The search for the minimum of a likelihood: projected Newton steps."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.lax import stop_gradient
from jaxtyping import Array, Bool, Float, Int

from ..numerics import cond_few, solve_spd
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


class SearchState(NamedTuple):
    """How far a search is."""

    point: Float[Array, " parameters"]
    """Where it is."""
    mode: Int[Array, ""]
    """How to take the next step (`newton_step`), or that it is the last one."""
    index: Int[Array, ""]
    """How many steps it has taken."""
    num_ended: Int[Array, ""]
    """How many searches, one after the other, have ended."""
    best: Float[Array, " parameters"]
    """The best of their ends."""


class Search(eqx.Module):
    """Searches for a minimum, one after the other, of which the best end counts.

    In pieces, so that one loop can take the steps of many. To be used without tangents.
    """

    problem: Problem
    """What is fitted. The first search begins where the parameters are held."""
    mirror: bool = eqx.field(static=True)
    """Whether to search a second time from the other side of where each began."""
    num_steps: int = eqx.field(static=True)
    """How many steps each search may take."""
    others: Float[Array, "others parameters"] | None = None
    """Where to begin besides."""

    def begin(self) -> SearchState:
        """The state before the first step."""
        zero = jnp.asarray(0)
        point = project(self.problem.held, self.problem)
        return SearchState(point, zero, zero, zero, point)

    def proceed(self, state: SearchState) -> Bool[Array, ""]:
        """Whether it is not over."""
        return (state.mode < _DONE) & (state.index < self.num_steps)

    def advance(self, state: SearchState) -> SearchState:
        """The state one step further; the point of the last one is the best end."""
        point, mode = newton_step(state.point, state.mode, self.problem)
        state = state._replace(point=point, mode=mode, index=state.index + 1)
        if not self.mirror and self.others is None:
            return state
        return cond_few(~self.proceed(state), _turn, lambda _, x: x, self, state)


def _turn(search: Search, state: SearchState) -> SearchState:
    # Keeps the better end, and begins at the next place if there is one.
    num_ended = state.num_ended + 1
    best = jnp.where(_is_better(search, state), state.point, state.best)
    sides = 2 if search.mirror else 1
    places = 1 if search.others is None else 1 + search.others.shape[0]
    over = num_ended == sides * places
    origin = _origin(search, jnp.minimum(num_ended // sides, places - 1))
    if search.mirror:
        across = project(2 * origin - state.point, search.problem)
        origin = jnp.where(num_ended % 2 == 1, across, origin)
    return SearchState(
        jnp.where(over, best, origin),
        jnp.where(over, _DONE, 0),
        jnp.where(over, state.index, 0),
        num_ended,
        best,
    )


def _is_better(search: Search, state: SearchState) -> Bool[Array, ""]:
    likelihood, point, best = search.problem.likelihood, state.point, state.best
    change = likelihood.change(point, best)
    # Where the likelihood is no number, any other place is better, and no worse one is.
    better = jax.lax.cond(
        jnp.isnan(change),
        lambda: ~jnp.isfinite(likelihood.value(best)),
        lambda: change < 0,
    )
    return (better | (state.num_ended == 0)) & jnp.all(jnp.isfinite(point))


def _origin(search: Search, which: Int[Array, ""]) -> Float[Array, " parameters"]:
    # Where the parameters that do not move are held, whatever the others say.
    problem = search.problem
    place = problem.held
    if search.others is not None:
        place = jnp.concatenate([place[None], search.others])[which]
    if problem.fixed is not None:
        place = jnp.where(problem.fixed, problem.held, place)
    return project(place, problem)


def find(search: Search) -> Float[Array, " parameters"]:
    """The point where a search ends; to be called without tangents.

    Args:
        search: The search.

    Returns:
        The point.
    """

    # Of bound methods JAX would want a hash, of all that they hold.
    def proceed(state: SearchState) -> Bool[Array, ""]:
        return search.proceed(state)

    def advance(state: SearchState) -> SearchState:
        return search.advance(state)

    return jax.lax.while_loop(proceed, advance, search.begin()).point


def newton_step(
    point: Float[Array, " n"],
    mode: Int[Array, ""],
    problem: Problem,
    *,
    branch: Callable[..., Any] = cond_few,
) -> tuple[Float[Array, " n"], Int[Array, ""]]:
    """The next point, and how to go on.

    With the Hessian; where that does not help, with its stand-in; at last with the
    diagonal of this, downhill along the bounds too.

    Args:
        point: Where the search is.
        mode: Which of these to take.
        problem: What is fitted.
        branch: How to shorten a step only where that is needed; `jax.lax.cond` if the
            step is differentiated.

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
    # A lane of a batch that is over must not ask for it.
    short = ~(close | enough) & (mode < _DONE)
    trial, gain = branch(short, _shorten, _accept, point, step, problem)
    # A step that bounds stop at once gains rounding errors, again and again.
    improves = gain > tiny**0.5 * jnp.minimum(decrement, 1.0)
    chosen = jnp.where(improves, trial, point)
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


def _accept(
    point: Float[Array, " n"], step: Float[Array, " n"], problem: Problem
) -> tuple[Float[Array, " n"], Float[Array, ""]]:
    # The whole step, whatever it gains.
    return project(point + step, problem), jnp.asarray(jnp.inf, point.dtype)


def _shorten(
    point: Float[Array, " n"], step: Float[Array, " n"], problem: Problem
) -> tuple[Float[Array, " n"], Float[Array, ""]]:
    # The best of some fractions of the step, and how far downhill it leads.
    fractions = jnp.asarray(_FRACTIONS, point.dtype)
    if problem.lower is not None or problem.upper is not None:
        # A step that bounds bend may lead uphill; as far as the first it does not. No
        # gradient to the fraction: the last steps, which count, are whole ones.
        room = _room(*stop_gradient((point, step, problem)))
        fractions = jnp.concatenate([fractions, jnp.stack([room, room / 4])])
    trials = jax.vmap(lambda f: project(point + f * step, problem))(fractions)
    changes = jax.vmap(lambda x: problem.likelihood.change(x, point))(trials)
    best = jnp.argmin(jnp.where(jnp.isnan(changes), jnp.inf, changes))
    # A likelihood may be of lower precision than its parameters.
    return trials[best], -changes[best].astype(point.dtype)


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
