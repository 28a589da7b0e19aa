"""Clustering histories of single events; `vmap` puts the events into lanes."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.lax import stop_gradient
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from ..event import MergeHistory
from ..numerics import sanitise, store
from ._blocks import lanes_last
from ._derivative import to_constituents
from ._lanes import Settings, start
from ._step import search


_CPU_BLOCK = 32


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


def _search(
    mask: Bool[Array, "slots lanes"],
    uniforms: Float[Array, "slots lanes"],
    momentum: Float[Array, "4 slots lanes"],
    *settings: Float[Array, " lanes"],
) -> tuple[Array, ...]:
    parameters = Settings(*settings)
    state, record = start(momentum, mask, parameters.power)
    record = search(state, record, uniforms, parameters)
    gradient = to_constituents(record, mask.shape[0])
    score = (gradient, record.radius, record.power, record.sharpness)
    return record.keep, record.take, record.log_prob, *score


_sample_lanes = lanes_last(_search, cpu_block=_CPU_BLOCK)
