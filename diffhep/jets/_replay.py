import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ..event import MergeHistory
from ._distance import beam_distance, coordinates_of, pair_distance
from ._search import alive_momentum


def history_log_prob(
    history: MergeHistory,
    momentum: Float[Array, "constituents 4"],
    mask: Bool[Array, " constituents"],
    *,
    radius: Float[Array, ""],
    power: Float[Array, ""],
    sharpness: Float[Array, ""],
) -> Float[Array, ""]:
    """The log-probability of a clustering history under `sample_history`.

    Differentiable to any order, by replaying the history: the time of a search and the
    memory of all its distances. For a history that was just drawn, `sample_history`
    gives value and score for less.

    Args:
        history: Which pseudojets merged, in order.
        momentum: Four-momenta (px, py, pz, E), in GeV. Dead slots may hold anything.
        mask: Which slots hold a constituent.
        radius: Jet radius R.
        power: Power p of the transverse momentum: -1 anti-kt, 0 Cambridge/Aachen, 1 kt.
        sharpness: Inverse temperature alpha, positive and finite.

    Returns:
        The log-probability. Meaningless for a history of another set of constituents.
    """
    slots = mask.shape[0]
    number = jnp.arange(slots, dtype=history.keep.dtype)
    below = number[:, None] > number[None]

    def step(
        state: tuple[Float[Array, "slots 4"], Bool[Array, " slots"]],
        merge: tuple[Int[Array, ""], Int[Array, ""]],
    ) -> tuple[tuple[Array, Array], Float[Array, ""]]:
        (momenta, alive), (keep, take) = state, merge
        jet = coordinates_of(momenta.T, power[None])
        # Beams stand on the diagonal.
        distance = jnp.where(
            below,
            pair_distance(jet[:, :, None], jet[:, None]),
            beam_distance(jet, radius[None])[:, None],
        )
        allowed = alive[:, None] & alive[None] & (number[:, None] >= number[None])
        done = take < -1
        # A step that is not taken: let one candidate be left, so that nothing diverges.
        allowed |= done & jnp.eye(slots, dtype=bool)
        least = jnp.min(jnp.where(allowed, distance, jnp.inf))
        logits = jnp.where(allowed, -sharpness * (distance / least - 1), -jnp.inf)
        other = jnp.where(take < 0, keep, take)
        chosen = (number == jnp.maximum(keep, other))[:, None]
        chosen &= (number == jnp.minimum(keep, other))[None]
        logit = jnp.sum(jnp.where(chosen, logits, 0.0))
        log_prob = jnp.where(done, 0.0, logit - jax.nn.logsumexp(logits))

        merged = jnp.sum(jnp.where((number == take)[:, None], momenta, 0.0), axis=0)
        momenta = momenta + jnp.where((number == keep)[:, None], merged[None], 0.0)
        ended = jnp.where(take == -1, keep, take)
        return (momenta, alive & (number != ended)), log_prob

    start = (alive_momentum(momentum, mask), mask)
    _, log_probs = jax.lax.scan(step, start, (history.keep, history.take))
    return jnp.sum(log_probs)
