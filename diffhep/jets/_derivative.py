r"""The derivative of a step's log-probability, added up as the clustering goes.

With $l_c = -\alpha (D_c / D_\mathrm{min} - 1)$ and $\ln p = l_\mathrm{chosen} - \ln
\sum_c e^{l_c}$ the derivative to a distance is $(\alpha / D_\mathrm{min}) (P_c -
\delta_{c,\mathrm{chosen}})$, and to the least one $(\alpha / D_\mathrm{min}^2)
(D_\mathrm{chosen} - \langle D \rangle)$ in addition.

The distance of two pseudojets stays what it is for as long as both live, so that its
derivatives add up in a matrix; only when a pseudojet ends is its row handed on to the
coordinates of both ends, and its coordinates' derivatives to its constituents. The
derivative to a sum of momenta is that to each of its terms.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ._distance import coordinates_of, pair_distance
from ._draw import Choice, Draw
from ._lanes import Lanes, Record, Settings, add, at, put, slot_numbers, total
from ._matrices import Matrices, add_shares
from ._tiles import add_place, read_row


_Rows = tuple[Float[Array, "slots lanes"], Float[Array, "slots lanes"]]


def add_step(
    state: Lanes,
    record: Record,
    matrices: Matrices,
    *,
    nearest: Choice,
    draw: Draw,
    settings: Settings,
    blocks: Int[Array, ""],
) -> tuple[Lanes, Record, Matrices]:
    """Add a step to the log-probability and its derivatives.

    Args:
        state: The pseudojets before the step.
        record: What has been added up so far.
        matrices: The matrices, with the factors of the step.
        nearest: The candidate of least distance.
        draw: The candidate that was drawn.
        settings: The parameters.
        blocks: How many blocks of slots hold living ones.

    Returns:
        All three, with the derivatives to what the step ends in the record.
    """
    choice = draw.choice
    ratio = draw.scale / settings.sharpness
    excess = choice.distance - draw.mean
    # The derivative of the numerator, and of the least distance in all terms; each to
    # a pair or to a beam.
    to_chosen, to_beam = _split(choice, -draw.scale)
    to_least, to_least_beam = _split(nearest, excess * draw.scale * ratio)

    matrices = add_shares(matrices, draw.density, blocks=blocks)
    share = add_place(matrices.share, choice.keep, choice.take, to_chosen)
    share = add_place(share, nearest.keep, nearest.take, to_least)
    rows, matrices = _end_rows(share, matrices, draw)
    gradient, own = _hand_on(state, rows, choice)
    weight = gradient[2] + (settings.radius**2 * draw.density)[None] * draw.beam_factor
    weight = add(weight, choice.keep, settings.radius**2 * to_beam)
    weight = add(weight, nearest.keep, settings.radius**2 * to_least_beam)
    gradient = jnp.concatenate([gradient[:2], weight[None]])
    to_ends = own + jnp.stack([at(gradient, choice.keep), at(gradient, choice.take)], 1)
    for place in (choice.keep, choice.take):
        gradient = put(gradient, place, jnp.zeros_like(own[:, 0]))

    active = draw.scale > 0
    log_prob = (nearest.distance - choice.distance) * draw.scale - jnp.log(draw.norm)
    to_beams = draw.density * draw.beam_moment
    to_beams += to_beam * choice.distance + to_least_beam * nearest.distance
    to_momentum, to_power = _to_momentum(state, to_ends, draw, settings.power)
    record = eqx.tree_at(
        lambda r: (r.log_prob, r.momentum, r.radius, r.power, r.sharpness),
        record,
        (
            record.log_prob + jnp.where(active, log_prob, 0.0),
            jax.lax.dynamic_update_index_in_dim(
                record.momentum, to_momentum, record.step, axis=0
            ),
            record.radius + 2 / settings.radius * to_beams,
            record.power + to_power,
            record.sharpness - excess * ratio,
        ),
    )
    state = eqx.tree_at(lambda s: s.gradient, state, gradient)
    return state, record, matrices


def _split(
    choice: Choice, derivative: Float[Array, " lanes"]
) -> tuple[Float[Array, " lanes"], Float[Array, " lanes"]]:
    pair = choice.keep != choice.take
    return jnp.where(pair, derivative, 0.0), jnp.where(pair, 0.0, derivative)


def _end_rows(
    share: Float[Array, "places lanes"], matrices: Matrices, draw: Draw
) -> tuple[_Rows, Matrices]:
    # The derivatives to the distances of the two slots that end, which are to be handed
    # on: they are taken out of the matrix.
    keep, take = draw.choice.keep, draw.choice.take
    zero = jnp.zeros_like(draw.beam_factor)
    number = slot_numbers(zero)
    is_keep, is_take = number == keep[None], number == take[None]
    taken = read_row(share, take, zero)
    # The pair of the two, and all of a lone one, must not be counted twice.
    taken = jnp.where(is_keep | (keep == take)[None], 0.0, taken)
    stale = (is_keep | is_take) & (draw.scale > 0)[None]
    matrices = eqx.tree_at(lambda m: (m.share, m.stale), matrices, (share, stale))
    return (read_row(share, keep, zero), taken), matrices


def _hand_on(
    state: Lanes, rows: _Rows, choice: Choice
) -> tuple[Float[Array, "3 slots lanes"], Float[Array, "3 2 lanes"]]:
    # The derivatives to the distances of the two slots from all others, handed on to
    # the coordinates of the others (added to theirs) and of the two (on their own).
    gradient, own = state.gradient, []
    for row, place in zip(rows, (choice.keep, choice.take), strict=True):
        here = jnp.broadcast_to(at(state.jet, place)[:, None], state.jet.shape)
        _, pull = jax.vjp(pair_distance, here, state.jet)
        to_here, to_others = pull(row)
        gradient = gradient + to_others
        own.append(total(to_here))
    return gradient, jnp.stack(own, axis=1)


def _to_momentum(
    state: Lanes,
    to_ends: Float[Array, "3 2 lanes"],
    draw: Draw,
    power: Float[Array, " lanes"],
) -> tuple[Float[Array, "4 2 lanes"], Float[Array, " lanes"]]:
    # Two pseudojets end, or one, which stands there twice and counts once.
    keep, take = draw.choice.keep, draw.choice.take
    active = draw.scale > 0
    counts = jnp.stack([active, active & (keep != take)])
    momentum = jnp.stack([at(state.momentum, keep), at(state.momentum, take)], axis=1)
    _, pull = jax.vjp(coordinates_of, momentum, power[None])
    to_momentum, to_power = pull(jnp.where(counts[None], to_ends, 0.0))
    return to_momentum, to_power[0]


def to_constituents(
    keep: Int[Array, "steps lanes"],
    take: Int[Array, "steps lanes"],
    ended: Float[Array, "steps 4 2 lanes"],
) -> Float[Array, "4 steps lanes"]:
    """The derivative of the log-probability to the constituents' momenta.

    The derivative to a sum is that to each of its terms: down the tree from the jets.

    Args:
        keep: As in `MergeHistory`.
        take: As in `MergeHistory`.
        ended: The derivative to the momenta of the two pseudojets that end in a step,
            in 1/GeV.

    Returns:
        The derivative, in 1/GeV.
    """
    slots, lanes = keep.shape
    rows = (keep, take, ended)

    def back(
        step: Int[Array, ""], gradient: Float[Array, "4 slots lanes"]
    ) -> Float[Array, "4 slots lanes"]:
        keep, take, ended = (
            jax.lax.dynamic_index_in_dim(x, slots - 1 - step, keepdims=False)
            for x in rows
        )
        merged = at(gradient, keep)
        gradient = put(gradient, jnp.where(take < 0, slots, take), merged + ended[:, 1])
        # What ends in a jet has nothing above it, and `merged` is still zero.
        return put(gradient, jnp.where(take < -1, slots, keep), merged + ended[:, 0])

    zero = jnp.zeros((4, slots, lanes), ended.dtype)
    return jax.lax.fori_loop(0, slots, back, zero)
