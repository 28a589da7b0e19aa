import jax
import jax.numpy as jnp
from jax.lax import stop_gradient
from jaxtyping import Array, Bool, Float, Int

from ..event import MergeHistory
from ._alive import alive_momentum
from ._candidates import AbstractCandidates, AllPairs, NearestOnly
from ._distance import beam_distance, coordinates_of, pair_distance, plane_distance2
from ._radius import AbstractRadius, as_radius, radii


_Options = tuple[
    Float[Array, "options slots"], Bool[Array, "options slots"], Bool[Array, "..."]
]


def history_log_prob(
    history: MergeHistory,
    momentum: Float[Array, "constituents 4"],
    mask: Bool[Array, " constituents"],
    *,
    radius: Float[Array, ""] | AbstractRadius,
    power: Float[Array, ""],
    sharpness: Float[Array, ""],
    candidates: AbstractCandidates | None = None,
) -> Float[Array, ""]:
    """The log-probability of a clustering history under `sample_history`.

    Differentiable to any order, by replaying the history: the time and the memory of
    all distances in each step. For a history that was just drawn, `sample_history`
    gives value and score for less.

    Args:
        history: Which pseudojets merged, in order.
        momentum: Four-momenta (px, py, pz, E), in GeV. Dead slots may hold anything.
        mask: Which slots hold a constituent.
        radius: Jet radius R, or a function for it.
        power: Power p of the transverse momentum: -1 anti-kt, 0 Cambridge/Aachen, 1 kt.
        sharpness: Inverse temperature alpha, positive and finite.
        candidates: Which pairs and beams are drawn from; `AllPairs` unless given.

    Returns:
        The log-probability; minus infinity for a history that cannot come about.
        Meaningless for one of another set of constituents.
    """
    slots = mask.shape[0]
    number = jnp.arange(slots, dtype=history.keep.dtype)
    candidates = AllPairs() if candidates is None else candidates
    reach = as_radius(radius)

    def step(
        state: tuple[Float[Array, "slots 4"], Bool[Array, " slots"]],
        merge: tuple[Int[Array, ""], Int[Array, ""]],
    ) -> tuple[tuple[Array, Array], Float[Array, ""]]:
        (momenta, alive), (keep, take) = state, merge
        jet = coordinates_of(momenta.T, power[None])
        size = _radii(reach, momenta, jet)
        other = jnp.where(take < 0, keep, take)
        ends = jnp.minimum(keep, other), jnp.maximum(keep, other)
        options = _all_pairs if isinstance(candidates, AllPairs) else _neighbours
        distance, allowed, chosen = options(jet, size, alive, ends)
        if isinstance(candidates, NearestOnly):
            allowed &= _is_nearest(jet, size, alive)
        done = take < -1
        # A step that is not taken: let one candidate be left, so that nothing diverges.
        distance = jnp.where(done, 1.0, distance)
        allowed |= done
        least = jnp.min(jnp.where(allowed, distance, jnp.inf))
        logits = jnp.where(allowed, -sharpness * (distance / least - 1), -jnp.inf)
        logit = jax.nn.logsumexp(jnp.where(chosen | done, logits, -jnp.inf))
        log_prob = jnp.where(done, 0.0, logit - jax.nn.logsumexp(logits))

        merged = jnp.sum(jnp.where((number == take)[:, None], momenta, 0.0), axis=0)
        momenta = momenta + jnp.where((number == keep)[:, None], merged[None], 0.0)
        ended = jnp.where(take == -1, keep, take)
        return (momenta, alive & (number != ended)), log_prob

    start = (alive_momentum(momentum, mask), mask)
    _, log_probs = jax.lax.scan(step, start, (history.keep, history.take))
    return jnp.sum(log_probs)


def _radii(
    radius: AbstractRadius,
    momenta: Float[Array, "slots 4"],
    jet: Float[Array, "3 slots"],
) -> Float[Array, " slots"]:
    lanes = jax.tree.map(lambda x: x[..., None], radius)
    return radii(lanes, momenta.T[..., None], jet[0][:, None])[:, 0]


def _all_pairs(
    jet: Float[Array, "3 slots"],
    size: Float[Array, " slots"],
    alive: Bool[Array, " slots"],
    ends: tuple[Int[Array, ""], Int[Array, ""]],
) -> _Options:
    # Pairs below the diagonal, beams on it.
    number = jnp.arange(alive.shape[0], dtype=ends[0].dtype)
    distance = jnp.where(
        number[:, None] > number[None],
        pair_distance(jet[:, :, None], jet[:, None]),
        beam_distance(jet, size)[:, None],
    )
    allowed = alive[:, None] & alive[None] & (number[:, None] >= number[None])
    chosen = (number == ends[1])[:, None] & (number == ends[0])[None]
    return distance, allowed, chosen


def _neighbours(
    jet: Float[Array, "3 slots"],
    size: Float[Array, " slots"],
    alive: Bool[Array, " slots"],
    ends: tuple[Int[Array, ""], Int[Array, ""]],
) -> _Options:
    # Each slot with its neighbour, and each with the beam.
    number = jnp.arange(alive.shape[0], dtype=ends[0].dtype)
    nearest, known = _nearest(jet, alive)
    pair = pair_distance(jet, jet[:, nearest])
    # A lone one is its own neighbour: no derivative at a distance of zero.
    pair = jnp.where(known, pair, 1.0)
    distance = jnp.stack([pair, beam_distance(jet, size)])
    allowed = jnp.stack([alive & known, alive])
    low, high = jnp.minimum(number, nearest), jnp.maximum(number, nearest)
    beam = (ends[0] == ends[1]) & (number == ends[0])
    merge = (ends[0] != ends[1]) & (low == ends[0]) & (high == ends[1])
    return distance, allowed, jnp.stack([merge, beam])


def _is_nearest(
    jet: Float[Array, "3 slots"],
    size: Float[Array, " slots"],
    alive: Bool[Array, " slots"],
) -> Bool[Array, "1 slots"]:
    nearest, known = _nearest(jet, alive)
    apart = plane_distance2(tuple(jet), tuple(jet[:, nearest]))
    own = jet[2] * jnp.where(known, jnp.minimum(apart, size**2), size**2)
    own = stop_gradient(jnp.where(alive, own, jnp.inf))
    return (jnp.arange(alive.shape[0]) == jnp.argmin(own))[None]


def _nearest(
    jet: Float[Array, "3 slots"], alive: Bool[Array, " slots"]
) -> tuple[Int[Array, " slots"], Bool[Array, " slots"]]:
    # The slot of each one's nearest neighbour, and whether there is one.
    matrix = plane_distance2(tuple(jet[:, :, None]), tuple(jet[:, None]))
    others = alive[None] & ~jnp.eye(alive.shape[0], dtype=bool)
    matrix = stop_gradient(jnp.where(others, matrix, jnp.inf))
    nearest = jnp.argmin(matrix, axis=1).astype(jnp.int32)
    return nearest, jnp.min(matrix, axis=1) < jnp.inf
