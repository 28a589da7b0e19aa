import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PRNGKeyArray, PyTree

from ..estimators import Gradient
from ..event import Event
from ..pipeline import AbstractStage
from ._differences import finite_difference, inner_product, random_direction
from ._forward import TRACES, forward
from ._padding import check_dead_gradient, compare, live, poison, weighted_total


def check_stage(
    stage: AbstractStage,
    events: Event,
    *,
    key: PRNGKeyArray,
    rtol: float = 1e-8,
    gradient_rtol: float = 1e-5,
    eps: float = 3e-6,
) -> None:
    """Asserts the contract that every stage keeps.

    It reads what it declares and no more, and changes what it declares (beside
    `log_weight` and `status`) and no more; jit agrees with eager and `vmap` with a
    loop; it is deterministic in the key; a second call of the same shapes is not traced
    again; what dead slots hold changes neither values nor gradients; the gradients to
    all its parameters and inputs are finite, in float32 too; and if it promises an
    exact gradient, finite differences along a random direction agree.

    Args:
        stage: The stage.
        events: A batch of at least two events with everything that it reads, in
            float64.
        key: Random key.
        rtol: Allowed difference of values, relative to the largest of an array.
        gradient_rtol: Allowed difference of an exact gradient from finite differences.
        eps: Relative step of those.

    Raises:
        AssertionError: The contract is broken; the sentence says where.
        ValueError: The events are fewer than two or lack what the stage reads.
    """
    if not isinstance(stage.gradient, Gradient):
        raise AssertionError(f"The `gradient` of {_name(stage)} is no `Gradient`.")
    events = _only_reads(stage, events)
    number = events.log_weight.shape[0]
    keys = jax.random.split(key, number)
    first = _row(events, 0)
    single = _check_single(stage, first, keys=keys, rtol=rtol)
    _check_writes(stage, first, single)

    # One compilation for all that follows: the events as they are, then poisoned.
    both = jax.tree.map(lambda *x: jnp.concatenate(x), events, jax.vmap(poison)(events))
    both_keys = jnp.concatenate([keys, keys])
    (_, outputs), gradients = _evaluate(stage, both, both_keys)
    sentence = f"{_name(stage)} under vmap differs from a call on one event"
    compare(live(single), _row(outputs, 0), sentence, rtol=rtol)
    sentence = f"what dead slots hold changes what {_name(stage)}"
    clean, dirty = slice(None, number), slice(number, None)
    values = (_row(outputs, clean), _row(outputs, dirty))
    compare(values[0], values[1], f"{sentence} writes", rtol=rtol)
    # Gradients of a fit cancel more than its values do.
    passed = (_row(gradients, clean), _row(gradients, dirty))
    sentence = f"{sentence} passes back as gradient"
    compare(passed[0], passed[1], sentence, rtol=100 * rtol)
    whole = eqx.combine(gradients[1], both)
    check_dead_gradient(whole, jax.vmap(live)(whole))
    _check_finite(gradients, f"A gradient of {_name(stage)} is not finite")
    if stage.gradient is Gradient.EXACT:
        _check_exact(stage, both, both_keys, rtol=gradient_rtol, eps=eps)
    _check_float32(stage, both, keys=both_keys)


def _name(stage: AbstractStage) -> str:
    return type(stage).__name__


def _row(tree: PyTree, index: int | slice) -> PyTree:
    return jax.tree.map(lambda x: x[index], tree)


def _only_reads(stage: AbstractStage, events: Event) -> Event:
    if events.log_weight.ndim != 1 or events.log_weight.shape[0] < 2:
        raise ValueError(
            "`events` must be a batch of at least two, but `log_weight` has shape "
            f"{events.log_weight.shape}; stack two events."
        )
    missing = sorted(n for n in stage.reads if getattr(events, n) is None)
    if missing:
        raise ValueError(
            f"{_name(stage)} reads {missing}, which the events lack; run the stages "
            "before it first."
        )
    return events.keep(*stage.reads)


def _check_single(
    stage: AbstractStage, event: Event, *, keys: Key[Array, " events"], rtol: float
) -> Event:
    try:
        eager = stage(event, key=keys[0])
    except (AttributeError, TypeError, ValueError) as error:
        raise AssertionError(
            f"{_name(stage)} fails with only the declared {sorted(stage.reads)}: "
            f"{error}."
        ) from error
    output = forward(stage, event, keys[0])
    sentence = f"{_name(stage)} under jit differs from eager execution"
    compare(live(eager), live(output), sentence, rtol=rtol)
    again = forward(stage, event, keys[0])
    sentence = f"{_name(stage)} is not deterministic in its key"
    compare(live(output), live(again), sentence, rtol=0.0)
    number = len(TRACES)
    forward(stage, event, keys[1])
    if len(TRACES) != number:
        raise AssertionError(
            f"{_name(stage)} was traced again for inputs of the same shapes."
        )
    return output


def _check_writes(stage: AbstractStage, before: Event, after: Event) -> None:
    allowed = {*stage.writes, "log_weight", "status"}
    for field in dataclasses.fields(Event):
        old, new = getattr(before, field.name), getattr(after, field.name)
        if field.name in stage.writes and new is None:
            raise AssertionError(
                f"{_name(stage)} declares that it writes {field.name!r}, but leaves it "
                "empty."
            )
        if field.name not in allowed:
            sentence = (
                f"{_name(stage)} changes {field.name!r}, which it does not declare"
            )
            compare(old, new, sentence, rtol=0.0)


@eqx.filter_jit
def _evaluate(
    stage: AbstractStage, events: Event, keys: Key[Array, " events"]
) -> tuple[tuple[Float[Array, " events"], Event], PyTree]:
    # For each event: a scalar, the live output, and the gradient to stage and event.
    def one(inexact: PyTree, rest: PyTree, key: PRNGKeyArray) -> tuple[Array, Event]:
        stage, event = eqx.combine(inexact, rest)
        output = live(stage(event, key=key))
        return weighted_total(output), output

    inexact, rest = eqx.partition((stage, events), eqx.is_inexact_array)
    axes = (None, 0)  # one stage for all events
    return jax.vmap(jax.value_and_grad(one, has_aux=True), in_axes=(axes, axes, 0))(
        inexact, rest, keys
    )


def _check_finite(tree: PyTree, sentence: str) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if not np.isfinite(leaf).all():
            raise AssertionError(f"{sentence}, in {jax.tree_util.keystr(path)}.")


def _check_exact(
    stage: AbstractStage,
    events: Event,
    keys: Key[Array, " events"],
    *,
    rtol: float,
    eps: float,
) -> None:
    point, rest = eqx.partition((stage, events), eqx.is_inexact_array)
    generator = np.random.default_rng(0)
    direction = (
        random_direction(point[0], generator),
        random_direction(point[1], generator, scale_of_zero=0.0),
    )

    def values(point: PyTree) -> np.ndarray:
        moved_stage, moved_events = eqx.combine(point, rest)
        return np.asarray(_evaluate(moved_stage, moved_events, keys)[0][0])

    (_, _), (by_stage, by_event) = _evaluate(stage, events, keys)
    wanted = finite_difference(values, point, direction, eps=eps)
    largest = np.abs(values(point))
    for i, difference in enumerate(wanted):
        slope = (_row(by_stage, i), _row(by_event, i))
        along = (direction[0], _row(direction[1], i))
        found = inner_product(slope, along)
        absolute = inner_product(
            jax.tree.map(np.abs, slope), jax.tree.map(np.abs, along)
        )
        noise = 100 * np.finfo(wanted.dtype).eps * largest[i] / eps
        if not abs(found - difference) <= rtol * absolute + noise:
            raise AssertionError(
                f"{_name(stage)} promises an exact gradient, but along a random "
                f"direction it gives {found:.9g} where finite differences give "
                f"{difference:.9g} (event {i})."
            )


def _check_float32(
    stage: AbstractStage, events: Event, *, keys: Key[Array, " events"]
) -> None:
    def convert(leaf: Array) -> Array:
        values = np.asarray(leaf)
        narrow = {"float64": "float32", "int64": "int32"}.get(str(values.dtype))
        return jnp.asarray(values.astype(narrow) if narrow else values)

    with jax.enable_x64(False):
        arrays, static = eqx.partition((stage, events), eqx.is_array)
        stage, events = eqx.combine(jax.tree.map(convert, arrays), static)
        (_, outputs), gradients = _evaluate(stage, events, keys)
    for tree in (outputs, gradients):
        types = {str(leaf.dtype) for leaf in jax.tree.leaves(tree)}
        if wide := types & {"float64", "int64"}:
            raise AssertionError(f"{_name(stage)} makes {sorted(wide)} of float32.")
    _check_finite(gradients, f"A gradient of {_name(stage)} in float32 is not finite")
