"""Test statistics of toys that are fitted many at a time."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from ._lanes import search_in_lanes
from ._likelihood import AbstractLikelihood
from ._measurement import Measurement, search_measurement
from ._newton import FitResult, describe_end
from ._search import Search
from ._test_statistics import AbstractTestStatistic, evaluate


def statistics_in_lanes(
    measurement: Measurement,
    strength: Float[Array, ""],
    draw: Callable[[Any], AbstractLikelihood],
    questions: PyTree,
    *,
    statistic: AbstractTestStatistic,
    num_steps: int,
    lanes: int,
) -> Float[Array, " toys"]:
    """A test statistic of random experiments, all of whose data are drawn at once.

    Args:
        measurement: The measurement. Its own data do not matter.
        strength: The strength of the signal that is tested.
        draw: The likelihood of one experiment, of the structure of the measurement's.
        questions: What it is drawn from, along a leading axis.
        statistic: Which statistic.
        num_steps: How many Newton steps each fit may take.
        lanes: How many fits at a time.

    Returns:
        The values; NaN where a fit fails.
    """
    measurement = statistic.restrict(measurement)
    drawn, restore = _draw_all(draw, questions)
    number = jax.tree.leaves(questions)[0].shape[0]

    def measure(shared: Any, index: Int[Array, ""]) -> Measurement:
        own, _, all_drawn = shared
        one = restore([x[index] for x in all_drawn])
        return eqx.tree_at(lambda m: m.likelihood, own, one)

    def pose(shared: Any, task: tuple[Int[Array, ""], Bool[Array, ""]]) -> Search:
        index, held = task
        changed = measure(shared, index)
        return search_measurement(
            changed, strength=shared[1], held=held, num_steps=num_steps
        )

    # The free fit of each toy, then the one with the strength held.
    shared = (measurement, strength, drawn)
    index = jnp.repeat(jnp.arange(number), 2)
    held = jnp.tile(jnp.asarray([False, True]), number)
    ends = search_in_lanes(pose, shared, (index, held), lanes=lanes).states.point

    def value(item: Any) -> Float[Array, ""]:
        index, pair = item

        def describe(fit: Any) -> FitResult:
            held, end = fit
            return describe_end(end, pose(shared, (index, held)).problem)

        fits = jax.lax.map(describe, (jnp.asarray([False, True]), pair))
        best, conditional = (jax.tree.map(lambda x, i=i: x[i], fits) for i in (0, 1))
        changed = measure(shared, index)
        return evaluate(changed, strength, best, conditional, statistic=statistic)

    pairs = ends.reshape(number, 2, -1)
    return jax.lax.map(value, (jnp.arange(number), pairs), batch_size=lanes)


def _draw_all(
    draw: Callable[[Any], AbstractLikelihood], questions: PyTree
) -> tuple[list[Array], Callable[[list[Array]], AbstractLikelihood]]:
    # What differs between the experiments, and a function from that to the likelihood
    # of one of them: what they share, as templates, is not copied for each.
    first = jax.tree.map(lambda x: x[0], questions)
    common, structure = jax.tree.flatten(draw(first))
    differs = _find_differing(lambda q: jax.tree.leaves(draw(q)), questions)
    # Of no leaf at all where nothing is drawn.
    differs = differs or [False] * len(common)

    def keep(question: Any) -> list[Array]:
        leaves = jax.tree.leaves(draw(question))
        return [x for x, own in zip(leaves, differs, strict=True) if own]

    def restore(some: list[Array]) -> AbstractLikelihood:
        own = iter(some)
        leaves = [
            next(own) if mine else x for x, mine in zip(common, differs, strict=True)
        ]
        return jax.tree.unflatten(structure, leaves)

    return jax.vmap(keep)(questions), restore


def _find_differing(
    function: Callable[[Any], list[Array]], questions: PyTree
) -> list[bool]:
    # Which outcomes depend on the question: a batch of questions tells.
    differs: list[bool] = []

    @jax.custom_batching.custom_vmap
    def look(leaves: list[Array]) -> list[Array]:
        return leaves

    @look.def_vmap
    def look_at_batch(size: int, batched: Any, leaves: Any) -> Any:
        del size
        differs.extend(batched[0])
        return leaves, batched[0]

    jax.eval_shape(jax.vmap(lambda q: look(function(q))), questions)
    return differs
