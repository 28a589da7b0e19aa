"""Clustering histories of single events; `vmap` puts the events into lanes."""

import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
from jax.lax import stop_gradient
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from ..event import MergeHistory
from ..numerics import store
from ._algorithm import Algorithm
from ._alive import alive_momentum
from ._blocks import lanes_last
from ._candidates import AbstractCandidates, AllPairs, NearestOnly
from ._derivative import to_constituents
from ._engine import AbstractEngine, CompiledEngine, JaxEngine
from ._lanes import Settings, start
from ._metric import AbstractMetric
from ._neighbour_state import Parameters
from ._neighbours import search_neighbours
from ._radius import AbstractRadius, ConstantRadius, as_radius
from ._replay import draw_history, history_log_prob
from ._scheme import AbstractScheme
from ._step import search


_CPU_BLOCK = 32
_CPU_BLOCK_NEIGHBOURS = 64


class HistoryScore(eqx.Module):
    """The derivative of a history's log-probability."""

    momentum: Float[Array, "constituents 4"]
    """To the constituents' momenta, in 1/GeV; zero in dead slots."""
    radius: Float[Array, ""] | AbstractRadius
    """To the radius, or to its parameters."""
    power: Float[Array, ""]
    """To the power."""
    sharpness: Float[Array, ""]
    """To the sharpness."""


def sample_history(
    momentum: Float[Array, "constituents 4"],
    mask: Bool[Array, " constituents"],
    *,
    radius: Float[Array, ""] | AbstractRadius,
    power: Float[Array, ""],
    sharpness: Float[Array, ""],
    metric: AbstractMetric | None = None,
    scheme: AbstractScheme | None = None,
    candidates: AbstractCandidates | None = None,
    engine: AbstractEngine | None = None,
    key: PRNGKeyArray,
) -> tuple[MergeHistory, Float[Array, ""], HistoryScore]:
    r"""A clustering history drawn at random, its log-probability and its score.

    In each step a candidate $c$, a pair or a beam, is drawn with a probability
    proportional to $\exp(-\alpha (D_c - D_\mathrm{min}) / D_\mathrm{min})$.

    The score is accumulated in closed form as the clustering goes: neither time nor
    memory of reverse mode. Only for other metrics and schemes than the default ones,
    and for `AllPairs` with a function as radius, it is that of a replay
    (`history_log_prob`). None of the outputs is differentiable; see
    `estimators.with_score`.

    Args:
        momentum: Four-momenta (px, py, pz, E), in GeV. Dead slots may hold anything.
        mask: Which slots hold a constituent.
        radius: Jet radius R, or a function for it.
        power: Power p of the transverse momentum: -1 anti-kt, 0 Cambridge/Aachen, 1 kt.
        sharpness: Inverse temperature alpha, positive and finite; the limit is
            `cluster`.
        metric: In which coordinates; `RapidityAzimuth` unless given.
        scheme: How momenta are recombined; by `EScheme` unless given.
        candidates: Which pairs and beams are drawn from; `AllPairs` unless given.
        engine: How histories are drawn: by `JaxEngine` unless given, or among
            neighbours by `CompiledEngine`, which draws others with the same key.
        key: Random key.

    Returns:
        The history; its log-probability; and the derivative of that.
    """
    algorithm = Algorithm.of(radius, power, metric, scheme)
    candidates = AllPairs() if candidates is None else candidates
    everything = isinstance(candidates, AllPairs)
    _check_engine(engine, among_neighbours=not everything and algorithm.is_usual)
    by_function = isinstance(radius, AbstractRadius)
    if not algorithm.is_usual or (everything and by_function):
        inputs = HistoryScore(momentum, radius, power, sharpness)
        return _sample_by_replay(inputs, mask, algorithm, candidates, key)
    uniforms = jax.random.uniform(key, mask.shape, momentum.dtype)
    # The gradient through the search is dropped: it is what the score is for.
    safe, reach, *settings = stop_gradient(
        (alive_momentum(momentum, mask).T, radius, power, sharpness)
    )
    if everything:
        output = store(_sample_lanes(mask, uniforms, safe, reach, *settings))
        keep, take, log_prob, to_momentum, *to_settings = output
    else:
        parameters = Parameters(as_radius(reach), *settings)
        only = isinstance(candidates, NearestOnly)
        if isinstance(engine, CompiledEngine):
            output = engine.sample(safe.T, mask, uniforms, parameters, only=only)
        else:
            output = _sample_in_jax(mask, uniforms, safe, parameters, only)
        keep, take, log_prob, to_momentum, score = store(output)
        to_radius = score.radius
        if isinstance(to_radius, ConstantRadius) and not by_function:
            to_radius = to_radius.value
        to_settings = [to_radius, score.power, score.sharpness]
    return MergeHistory(keep, take), log_prob, HistoryScore(to_momentum.T, *to_settings)


def _check_engine(engine: AbstractEngine | None, *, among_neighbours: bool) -> None:
    if engine is None or isinstance(engine, JaxEngine):
        return
    if not isinstance(engine, CompiledEngine):
        raise ValueError(
            f"`{type(engine).__name__}` does not draw histories; use `JaxEngine` or "
            "`CompiledEngine`."
        )
    if not among_neighbours:
        raise ValueError(
            "`CompiledEngine` draws histories among neighbours, with `RapidityAzimuth` "
            "and `EScheme`; use `JaxEngine`, or pass `candidates=NearestNeighbours()`."
        )


def _sample_by_replay(
    inputs: HistoryScore,
    mask: Bool[Array, " constituents"],
    algorithm: Algorithm,
    candidates: AbstractCandidates,
    key: PRNGKeyArray,
) -> tuple[MergeHistory, Float[Array, ""], HistoryScore]:
    # For any algorithm: all distances in each step, and reverse mode through these.
    inputs, algorithm = stop_gradient((inputs, algorithm))
    safe = alive_momentum(inputs.momentum, mask)
    draw = functools.partial(draw_history, candidates=candidates, key=key)
    history = draw(safe, mask, algorithm, inputs.sharpness)

    def log_prob(inputs: HistoryScore) -> Float[Array, ""]:
        return history_log_prob(
            history,
            inputs.momentum,
            mask,
            radius=inputs.radius,
            power=inputs.power,
            sharpness=inputs.sharpness,
            metric=algorithm.metric,
            scheme=algorithm.scheme,
            candidates=candidates,
        )

    return history, *jax.value_and_grad(log_prob)(inputs)


def _sample_in_jax(
    mask: Bool[Array, " slots"],
    uniforms: Float[Array, " slots"],
    momentum: Float[Array, "4 slots"],
    parameters: Parameters,
    only: bool,
) -> tuple[Array, Array, Array, Array, Parameters]:
    leaves, structure = jax.tree.flatten(parameters)
    sample = _sample_neighbours(structure, only)
    output = sample(mask, uniforms, momentum, *leaves)
    keep, take, log_prob, to_momentum, *to_leaves = output
    score = jax.tree.unflatten(structure, to_leaves)
    return keep, take, log_prob, to_momentum, score


@functools.cache
def _sample_neighbours(structure: Any, only: bool) -> Callable[..., tuple[Array, ...]]:
    # One per kind of radius: `custom_vmap` knows arrays, not functions.
    def search(mask: Array, uniforms: Array, momentum: Array, *leaves: Array) -> Any:
        parameters = jax.tree.unflatten(structure, leaves)
        *found, score = search_neighbours(
            mask, uniforms, momentum, parameters, only=only
        )
        return (*found, *jax.tree.leaves(score))

    return lanes_last(search, cpu_block=_CPU_BLOCK_NEIGHBOURS)


def _search(
    mask: Bool[Array, "slots lanes"],
    uniforms: Float[Array, "slots lanes"],
    momentum: Float[Array, "4 slots lanes"],
    *settings: Float[Array, " lanes"],
) -> tuple[Array, ...]:
    parameters = Settings(*settings)
    state, record = start(momentum, mask, parameters.power)
    record = search(state, record, uniforms, parameters)
    gradient = to_constituents(record.keep, record.take, record.momentum)
    score = (gradient, record.radius, record.power, record.sharpness)
    return record.keep, record.take, record.log_prob, *score


_sample_lanes = lanes_last(_search, cpu_block=_CPU_BLOCK)
