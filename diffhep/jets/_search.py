"""Clustering histories of single events; `vmap` puts the events into lanes."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jax.lax import stop_gradient
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from ..event import MergeHistory
from ..numerics import sanitise, store
from ._derivative import to_constituents
from ._lanes import Settings, start
from ._step import search


# History, log-probability and score.
_Output = tuple[Array, ...]
_Batched = tuple[bool, ...]

# Lanes that share a loop. On a CPU more would fall out of the cache, and fewer pay for
# overheads; an accelerator is idle with less, and a block is to fit into its memory.
_CPU_BLOCK = 32
_ACCELERATOR_BLOCK = 4096


class HistoryScore(eqx.Module):
    """The derivative of a history's log-probability."""

    momentum: Float[Array, "constituents 4"]
    """To the constituents' momenta, in 1/GeV; zero in dead slots."""
    radius: Float[Array, ""]
    """To the radius."""
    power: Float[Array, ""]
    """To the power."""
    sharpness: Float[Array, ""]
    """To the sharpness."""


def alive_momentum(
    momentum: Float[Array, "constituents 4"], mask: Bool[Array, " constituents"]
) -> Float[Array, "constituents 4"]:
    """The momenta with every dead slot holding one that is safe to compute with."""
    safe = jnp.asarray([1.0, 0.0, 0.0, 2.0], momentum.dtype)
    return jnp.where(mask[:, None], sanitise(momentum, mask), safe[None])


def sample_history(
    momentum: Float[Array, "constituents 4"],
    mask: Bool[Array, " constituents"],
    *,
    radius: Float[Array, ""],
    power: Float[Array, ""],
    sharpness: Float[Array, ""],
    key: PRNGKeyArray,
) -> tuple[MergeHistory, Float[Array, ""], HistoryScore]:
    r"""A clustering history drawn at random, its log-probability and its score.

    In each step a candidate $c$, any pair or any beam, is drawn with a probability
    proportional to $\exp(-\alpha (D_c - D_\mathrm{min}) / D_\mathrm{min})$. All pairs
    are candidates, not only nearest neighbours, so that the probability is continuous
    in the momenta and in the radius.

    The score is accumulated in closed form as the clustering goes: neither time nor
    memory of reverse mode. None of the outputs is differentiable; see
    `estimators.with_score`.

    Args:
        momentum: Four-momenta (px, py, pz, E), in GeV. Dead slots may hold anything.
        mask: Which slots hold a constituent.
        radius: Jet radius R.
        power: Power p of the transverse momentum: -1 anti-kt, 0 Cambridge/Aachen, 1 kt.
        sharpness: Inverse temperature alpha, positive and finite; the limit is
            `cluster`.
        key: Random key.

    Returns:
        The history; its log-probability; and the derivative of that.
    """
    slots = mask.shape[0]
    uniforms = jax.random.uniform(key, (slots,), momentum.dtype)
    # The gradient through the search is dropped: it is what the score is for.
    inputs = stop_gradient((alive_momentum(momentum, mask).T, radius, power, sharpness))
    output = store(_sample_lanes(mask, uniforms, *inputs))
    keep, take, log_prob, to_momentum, *to_settings = output
    return MergeHistory(keep, take), log_prob, HistoryScore(to_momentum.T, *to_settings)


def greedy_history(
    momentum: Float[Array, "constituents 4"],
    mask: Bool[Array, " constituents"],
    radius: Float[Array, ""],
    power: Float[Array, ""],
) -> tuple[Int[Array, " steps"], Int[Array, " steps"]]:
    """The history of ordinary sequential recombination.

    Args:
        momentum: Four-momenta (px, py, pz, E), in GeV, safe in dead slots.
        mask: Which slots hold a constituent.
        radius: Jet radius R.
        power: Power of the transverse momentum.

    Returns:
        `keep` and `take` of `MergeHistory`.
    """
    keep, take, *_ = _cluster_lanes(mask, momentum.T, radius, power)
    return keep, take


def _lanes_last(search: Callable[..., _Output]) -> Callable[..., _Output]:
    # From a function of arrays whose last axis is `lanes` to one of single arrays,
    # which any number of nested `vmap` turns into a single call of the former.
    @custom_vmap
    def lanes(*arrays: Array) -> _Output:
        return search(*arrays)

    @lanes.def_vmap
    def _(size: int, batched: list[bool], *arrays: Array) -> tuple[_Output, _Batched]:
        def fold(array: Array, has_axis: bool) -> Array:
            array = jnp.moveaxis(array, 0, -1) if has_axis else array[..., None]
            shape = (*array.shape[:-1], size)
            return jnp.reshape(jnp.broadcast_to(array, shape), (*shape[:-2], -1))

        def unfold(array: Array) -> Array:
            return jnp.moveaxis(
                jnp.reshape(array, (*array.shape[:-1], -1, size)), -1, 0
            )

        output = lanes(*(map(fold, arrays, batched)))
        return jax.tree.map(unfold, output), jax.tree.map(lambda _: True, output)

    def single(*arrays: Array) -> _Output:
        output = lanes(*(array[..., None] for array in arrays))
        return jax.tree.map(lambda x: x[..., 0], output)

    return single


def _sample_blocks(*arrays: Array) -> _Output:
    # Mask, uniforms, momentum, radius, power and sharpness.
    def one_block(block: tuple[Array, ...]) -> _Output:
        mask, uniforms, momentum, *settings = block
        return _search(mask, uniforms, momentum, Settings(*settings), greedy=False)

    return _in_blocks(one_block, arrays)


def _cluster_blocks(*arrays: Array) -> _Output:
    # Mask, momentum, radius and power.
    def one_block(block: tuple[Array, ...]) -> _Output:
        mask, momentum, radius, power = block
        # Neither is looked at.
        uniforms, sharpness = jnp.zeros_like(momentum[0]), jnp.ones_like(radius)
        settings = Settings(radius, power, sharpness)
        return _search(mask, uniforms, momentum, settings, greedy=True)

    return _in_blocks(one_block, arrays)


_sample_lanes = _lanes_last(_sample_blocks)
_cluster_lanes = _lanes_last(_cluster_blocks)


def _in_blocks(
    one_block: Callable[[tuple[Array, ...]], _Output], arrays: tuple[Array, ...]
) -> _Output:
    return jax.lax.platform_dependent(
        *arrays,
        cpu=lambda *arrays: _in_blocks_of(_CPU_BLOCK, one_block, arrays),
        default=lambda *arrays: _in_blocks_of(_ACCELERATOR_BLOCK, one_block, arrays),
    )


def _in_blocks_of(
    size: int,
    one_block: Callable[[tuple[Array, ...]], _Output],
    arrays: tuple[Array, ...],
) -> _Output:
    # Lanes of similar length share a block, which runs to its longest lane. The first
    # array is the mask.
    lanes = arrays[0].shape[-1]
    if lanes <= size:
        return one_block(arrays)
    order = jnp.argsort(jnp.sum(arrays[0], axis=0, dtype=jnp.int32))
    # An unfilled last block repeats the last lane.
    fill = jnp.repeat(order[-1:], -lanes % size)
    blocks = jnp.reshape(jnp.concatenate([order, fill]), (-1, size))
    output = jax.lax.map(
        lambda block: one_block(tuple(x[..., block] for x in arrays)), blocks
    )
    back = jnp.argsort(order)

    def join(array: Array) -> Array:
        array = jnp.moveaxis(array, 0, -2)
        return jnp.reshape(array, (*array.shape[:-2], -1))[..., back]

    return jax.tree.map(join, output)


def _search(
    mask: Bool[Array, "slots lanes"],
    uniforms: Float[Array, "slots lanes"],
    momentum: Float[Array, "4 slots lanes"],
    settings: Settings,
    *,
    greedy: bool,
) -> _Output:
    state, record = start(momentum, mask, settings.power)
    record = search(state, record, uniforms, settings, greedy=greedy)
    gradient = to_constituents(record, mask.shape[0])
    score = (gradient, record.radius, record.power, record.sharpness)
    return record.keep, record.take, record.log_prob, *score
