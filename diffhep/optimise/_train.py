from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from ._checkpoint import (
    OtherCheckpointError,
    TrainState,
    load_checkpoint,
    save_checkpoint,
)
from ._constraints import Constraints, project
from ._progress import progress_bar


Loss = Callable[[Any, PRNGKeyArray, Int[Array, ""]], Float[Array, ""]]
"""From parameters, the step's random key and its number to a number."""


class _Problem(NamedTuple):
    """What stays the same from step to step."""

    loss: Loss
    optimiser: optax.GradientTransformation
    constraints: Constraints
    static: PyTree
    key: PRNGKeyArray


class TrainResult(eqx.Module):
    """The outcome of a training."""

    params: Any
    """The parameters after the last step."""
    losses: np.ndarray
    """The loss before each step."""
    resumed_at: int
    """Number of steps that were found in a checkpoint."""


def train(
    loss: Loss,
    params: PyTree,
    *,
    optimiser: optax.GradientTransformation,
    num_steps: int,
    constraints: Constraints = (),
    checkpoint: Path | None = None,
    checkpoint_every: int = 25,
    fingerprint: str = "",
    discard_other: bool = False,
    description: str | None = None,
    callback: Callable[[int, float, Any], None] | None = None,
    key: PRNGKeyArray,
) -> TrainResult:
    """Parameters at which a loss is low, by gradient steps.

    Step number i draws its random numbers from `key` and i alone, so that a training
    that was interrupted goes on from its checkpoint to exactly the same end.

    The parameters stay on the devices where they lie. For a loss that runs on a mesh,
    let them lie on all of it from the beginning (`eqx.filter_shard`): they come out of
    the first step so, and everything would be compiled again for the second.

    Args:
        loss: From parameters, random key and step number to a number. It is compiled
            here. Arrays that it closes over become constants of the compiled program:
            pass large ones through an `eqx.Partial` or a module with `__call__`.
        params: Where to begin. Its floating-point arrays are optimised.
        optimiser: Turns gradients into steps.
        num_steps: How many steps to take, those in a checkpoint included.
        constraints: Pairs of `where` and constraint, imposed at the beginning and after
            each step (see `project`).
        checkpoint: File to go on from if it exists, and to keep the state in.
        checkpoint_every: Steps between two writes. The state is also written at the
            end and when the training is interrupted (Ctrl-C) or fails.
        fingerprint: Whatever distinguishes this training from others (a hash of the
            configuration, say), stored in the checkpoint beside the key.
        discard_other: Whether a checkpoint of another configuration is overwritten;
            otherwise it is an error.
        description: Text beside the progress bar; None for no bar.
        callback: Called after each step with the number of steps taken, the loss before
            the step, and the parameters after it.
        key: Random key.

    Returns:
        The parameters and the course of the loss.

    Raises:
        ValueError: The checkpoint is damaged, cannot be written, or belongs to another
            configuration.
        FloatingPointError: The loss or a gradient is not finite; says which.
    """
    if num_steps < 0 or checkpoint_every < 1:
        raise ValueError(
            f"`num_steps` is {num_steps} and `checkpoint_every` is {checkpoint_every}, "
            "but must be at least 0 and 1."
        )
    params = project(params, constraints)
    dynamic, static = eqx.partition(params, eqx.is_inexact_array)
    # Weakly typed numbers would lose that at the first step, and the second step would
    # be compiled anew.
    dynamic = jax.tree.map(lambda x: x.astype(x.dtype), dynamic)
    state = TrainState(0, (), (dynamic, optimiser.init(dynamic)))
    mark = f"{fingerprint}:{_key_text(key)}"
    if checkpoint is not None:
        state = _resume(checkpoint, state, fingerprint=mark, discard=discard_other)
    resumed_at = saved_at = state.step
    problem = _Problem(loss, optimiser, tuple(constraints), static, key)
    try:
        with progress_bar(description, total=num_steps, completed=state.step) as bar:
            while state.step < num_steps:
                state = _advance(problem, state)
                if checkpoint is not None and state.step - saved_at >= checkpoint_every:
                    save_checkpoint(checkpoint, state, fingerprint=mark)
                    saved_at = state.step
                if callback is not None:
                    current = eqx.combine(state.arrays[0], static)
                    callback(state.step, state.losses[-1], current)
                bar(f"loss {state.losses[-1]:.5g}")
    finally:
        # Also on Ctrl-C and on an error: `state` is always that of a finished step.
        if checkpoint is not None and state.step > saved_at:
            save_checkpoint(checkpoint, state, fingerprint=mark)
    final = eqx.combine(state.arrays[0], static)
    return TrainResult(final, np.asarray(state.losses), resumed_at)


def _resume(
    path: Path, state: TrainState, *, fingerprint: str, discard: bool
) -> TrainState:
    if not path.exists():
        # Written at once, so that a folder that cannot be written is found before
        # and not after the work.
        save_checkpoint(path, state, fingerprint=fingerprint)
        return state
    try:
        loaded = load_checkpoint(path, state.arrays, fingerprint=fingerprint)
    except OtherCheckpointError:
        if not discard:
            raise
        return state
    return loaded._replace(
        arrays=jax.tree.map(
            lambda x, like: jax.device_put(x, like.sharding) if like.committed else x,
            loaded.arrays,
            state.arrays,
        )
    )


def _advance(problem: _Problem, state: TrainState) -> TrainState:
    # The number as an array: an integer would be compiled in, anew for each step.
    params = eqx.combine(state.arrays[0], problem.static)
    step = jnp.asarray(state.step)
    value, gradient = value_and_gradient(
        problem.loss, params, key=problem.key, step=step
    )
    arrays, finite = _move(problem, state.arrays, value, gradient)
    value = float(value)
    if not np.all(finite):
        raise FloatingPointError(
            _complaint(value, np.asarray(finite), state.arrays[0], state.step)
        )
    return TrainState(state.step + 1, (*state.losses, value), arrays)


@eqx.filter_jit
def value_and_gradient(
    loss: Loss, params: PyTree, *, key: PRNGKeyArray, step: Int[Array, ""]
) -> tuple[Float[Array, ""], PyTree]:
    """The loss of a training step, and its gradient.

    Compiled once for a loss and parameters of one structure: `train` calls it too, so
    that a gradient at its start or end costs no compilation of its own.

    Args:
        loss: From parameters, random key and step number to a number.
        params: The parameters.
        key: Random key of the training.
        step: Number of the step.

    Returns:
        The loss, and its gradient: of the structure of the parameters, with `None` in
        the place of everything that is not a floating-point array.
    """
    dynamic, static = eqx.partition(params, eqx.is_inexact_array)

    def evaluate(dynamic: PyTree) -> Float[Array, ""]:
        step_key = jax.random.fold_in(key, step)
        return loss(eqx.combine(dynamic, static), step_key, step)

    return jax.value_and_grad(evaluate)(dynamic)


@eqx.filter_jit
def _move(
    problem: _Problem,
    arrays: tuple[PyTree, PyTree],
    value: Float[Array, ""],
    gradient: PyTree,
) -> tuple[tuple[PyTree, PyTree], Bool[Array, " results"]]:
    dynamic, optimiser_state = arrays
    optimiser = problem.optimiser
    # Optax mixes integers with floating-point numbers, which strict users forbid.
    with jax.numpy_dtype_promotion("standard"):
        updates, optimiser_state = optimiser.update(gradient, optimiser_state, dynamic)
    moved = eqx.apply_updates(dynamic, updates)
    moved = project(moved, problem.constraints)
    finite = [jnp.isfinite(value)]
    finite += [jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(gradient)]
    return (moved, optimiser_state), jnp.stack(finite)


def _complaint(value: float, finite: np.ndarray, dynamic: PyTree, step: int) -> str:
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(dynamic)]
    pairs = zip(paths, finite[1:], strict=True)
    broken = [jax.tree_util.keystr(path) for path, good in pairs if not good]
    remedy = "reduce the learning rate, or look at the parameters of the step before."
    if not broken:
        return f"In step {step} the loss is {value} (its gradient is finite); {remedy}"
    more = f" and of {len(broken) - 1} others" if len(broken) > 1 else ""
    return (
        f"In step {step} the gradient of {broken[0]}{more} is not finite (the loss is "
        f"{value}); {remedy}"
    )


def _key_text(key: PRNGKeyArray) -> str:
    data = key if jnp.issubdtype(key.dtype, jnp.integer) else jax.random.key_data(key)
    return np.asarray(data).tobytes().hex()
