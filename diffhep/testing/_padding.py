import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from ..event import Event


# Bare arrays of `Event` and the collection that says which of their slots are alive.
_OWNERS = {"tags": "jets", "detected": "particles"}


def _fill_dead(event: Event, fill: Callable[[Array], Any]) -> Event:
    def overwrite(array: Array, mask: Array) -> Array:
        if not eqx.is_array(array) or array.shape[: mask.ndim] != mask.shape:
            return array
        alive = jnp.reshape(mask, mask.shape + (1,) * (array.ndim - mask.ndim))
        return jnp.where(alive, array, jnp.asarray(fill(array), array.dtype))

    replaced = {}
    for field in dataclasses.fields(event):
        value = getattr(event, field.name)
        owner = getattr(event, _OWNERS.get(field.name, field.name), None)
        mask = getattr(owner, "mask", None)
        if value is None or mask is None:
            continue
        filled = jax.tree.map(lambda x, m=mask: overwrite(x, m), value)
        if hasattr(filled, "mask"):
            filled = dataclasses.replace(filled, mask=mask)
        replaced[field.name] = filled
    return event.replace(**replaced)


def poison(event: Event, value: float = float("nan")) -> Event:
    """The event with every dead slot of every collection overwritten.

    Args:
        event: One event.
        value: What dead slots of floating-point arrays shall hold. Integers become
            an index far out of range, Booleans true.

    Returns:
        An event that means the same.
    """

    def fill(array: Array) -> Any:
        if jnp.issubdtype(array.dtype, jnp.inexact):
            return value
        if jnp.issubdtype(array.dtype, jnp.integer):
            return jnp.iinfo(array.dtype).max // 2
        return True

    return _fill_dead(event, fill)


def live(event: Event) -> Event:
    """The event with every dead slot set to zero, so that two can be compared.

    Args:
        event: One event.

    Returns:
        An event that means the same.
    """
    return _fill_dead(event, jnp.zeros_like)


def check_padding_inert(
    function: Callable[[Event], PyTree],
    event: Event,
    *,
    poison_value: float = float("nan"),
    rtol: float = 1e-9,
) -> None:
    """Asserts that dead slots change neither the value nor the gradient of a function.

    Args:
        function: From an event to arrays; an event that it returns is compared in its
            live slots only.
        event: One event.
        poison_value: What the dead slots are filled with.
        rtol: Allowed difference, relative to the largest number in each array.

    Raises:
        AssertionError: A value or gradient differs, or a dead slot has a gradient.
    """

    def total(inexact: PyTree, rest: PyTree) -> tuple[Array, PyTree]:
        outputs = function(eqx.combine(inexact, rest))
        outputs = live(outputs) if isinstance(outputs, Event) else outputs
        return weighted_total(outputs), outputs

    evaluate = eqx.filter_jit(jax.value_and_grad(total, has_aux=True))
    results = [
        evaluate(*eqx.partition(version, eqx.is_inexact_array))
        for version in (event, poison(event, poison_value))
    ]
    ((_, clean), clean_gradient), ((_, dirty), dirty_gradient) = results
    compare(clean, dirty, "what dead slots hold changes the value", rtol=rtol)
    compare(clean_gradient, dirty_gradient, "what dead slots hold changes the gradient")
    whole = eqx.combine(dirty_gradient, event)
    check_dead_gradient(whole, live(whole))


def check_dead_gradient(gradient: Event, live_gradient: Event) -> None:
    """Asserts that the gradient to every dead slot is exactly zero.

    Args:
        gradient: The gradient to an event or a batch, with the masks of the event.
        live_gradient: What `live` makes of it.
    """
    pairs = zip(
        jax.tree_util.tree_leaves_with_path(gradient),
        jax.tree.leaves(live_gradient),
        strict=True,
    )
    for (path, value), kept in pairs:
        if not np.array_equal(value, kept, equal_nan=True) and eqx.is_inexact_array(
            value
        ):
            raise AssertionError(
                f"A dead slot of event{jax.tree_util.keystr(path)} has a gradient; "
                "`sanitise` it before any arithmetic."
            )


def weighted_total(tree: PyTree) -> Array:
    """A sum of all finite numbers, each with its own weight of order one.

    Args:
        tree: Arrays, of which the floating-point ones of one type count.

    Returns:
        A scalar whose gradient sees every number.
    """
    leaves = jax.tree.leaves(eqx.filter(tree, eqx.is_inexact_array))
    total = jnp.zeros((), leaves[0].dtype)
    for leaf in leaves:
        flat = jnp.ravel(leaf)
        weight = jnp.cos(jnp.arange(1, flat.size + 1, dtype=flat.dtype))
        # Minus infinity is the honest logit of a hit that cannot be found.
        total += jnp.sum(weight * jnp.where(jnp.isfinite(flat), flat, 0.0))
    return total


def compare(left: PyTree, right: PyTree, sentence: str, *, rtol: float = 1e-9) -> None:
    """Asserts that two structures of arrays agree; integers and Booleans exactly.

    Args:
        left: Arrays.
        right: Arrays.
        sentence: What it means if they do not.
        rtol: Allowed difference, relative to the largest number in each array.
    """
    if jax.tree.structure(left) != jax.tree.structure(right):
        raise AssertionError(f"{sentence[0].upper()}{sentence[1:]}: other fields.")
    pairs = zip(
        jax.tree_util.tree_leaves_with_path(left), jax.tree.leaves(right), strict=True
    )
    for (path, first), second in pairs:
        a, b = np.asarray(first), np.asarray(second)
        if np.issubdtype(a.dtype, np.inexact):
            finite = np.abs(a[np.isfinite(a)])
            atol = rtol * float(np.max(finite, initial=0.0))
            same = np.allclose(a, b, rtol=0.0, atol=atol, equal_nan=True)
        else:
            same = np.array_equal(a, b)
        if not same:
            raise AssertionError(
                f"{sentence[0].upper()}{sentence[1:]}, in "
                f"{jax.tree_util.keystr(path) or 'the output'}: {_excerpt(a, b)}."
            )


def _excerpt(a: np.ndarray, b: np.ndarray) -> str:
    if a.shape != b.shape:
        return f"shape {a.shape} against {b.shape}"
    if a.dtype == bool or np.issubdtype(a.dtype, np.integer):
        worst = np.unravel_index(np.argmax(a != b), a.shape)
    else:
        same = (a == b) | (np.isnan(a) & np.isnan(b))
        distance = np.where(same, 0.0, np.abs(np.nan_to_num(a) - np.nan_to_num(b)))
        distance = np.where(np.isnan(a) != np.isnan(b), np.inf, distance)
        worst = np.unravel_index(np.argmax(distance), a.shape)
    where = tuple(int(i) for i in worst)
    return f"{a[worst]!r} against {b[worst]!r} at {where}"
