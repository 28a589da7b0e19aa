from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import PyTree


def scale_updates(
    params: PyTree,
    scales: Sequence[tuple[Callable[[Any], Any], float | np.ndarray]],
    *,
    default: float = 1.0,
) -> optax.GradientTransformation:
    """An optimiser's last step: each update times the scale of its parameter.

    Adam's step has the size of its rate, whatever the gradient. With millimetres,
    probabilities and network weights in one tree, the natural step is the rate times
    the size of the parameter: `optax.chain(optax.adam(rate), scale_updates(...))`.

    Args:
        params: The parameters that will be optimised.
        scales: Pairs of `where`, from the parameters to an array or to a part with
            several, and their scale in the unit of the parameter. Zero freezes them.
            Where pairs overlap the later wins.
        default: Scale of everything else.

    Returns:
        The transformation.

    Raises:
        ValueError: A scale is negative or not finite.
    """
    if wrong := [
        s for _, s in scales if not np.all(np.isfinite(s) & (np.asarray(s) >= 0))
    ]:
        raise ValueError(
            f"The scale {wrong[0]} is negative or not finite; give the size of the "
            "parameter, or zero to freeze it."
        )
    tree = jax.tree.map(lambda _: default, eqx.filter(params, eqx.is_inexact_array))
    for where, scale in scales:
        tree = eqx.tree_at(
            where,
            tree,
            replace_fn=lambda part, s=scale: jax.tree.map(lambda _: s, part),
            is_leaf=lambda x: x is None,
        )

    def update(updates: PyTree, params: PyTree | None = None) -> PyTree:
        del params
        return jax.tree.map(
            lambda u, s: u * jnp.broadcast_to(jnp.asarray(s, u.dtype), u.shape),
            updates,
            tree,
        )

    return optax.stateless(update)
