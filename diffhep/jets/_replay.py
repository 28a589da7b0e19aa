import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from ..event import MergeHistory
from ._algorithm import Algorithm
from ._alive import alive_momentum
from ._candidates import AbstractCandidates, AllPairs
from ._metric import AbstractMetric
from ._options import merge_slots, options_of
from ._radius import AbstractRadius
from ._scheme import AbstractScheme


_Pseudojets = tuple[Float[Array, "slots 4"], Bool[Array, " slots"]]


def history_log_prob(
    history: MergeHistory,
    momentum: Float[Array, "constituents 4"],
    mask: Bool[Array, " constituents"],
    *,
    radius: Float[Array, ""] | AbstractRadius,
    power: Float[Array, ""],
    sharpness: Float[Array, ""],
    metric: AbstractMetric | None = None,
    scheme: AbstractScheme | None = None,
    candidates: AbstractCandidates | None = None,
) -> Float[Array, ""]:
    """The log-probability of a clustering history under `sample_history`.

    Differentiable to any order, by replaying the history: the time of all distances in
    each step. For a history that was just drawn, `sample_history` gives value and score
    for less.

    Args:
        history: Which pseudojets merged, in order.
        momentum: Four-momenta (px, py, pz, E), in GeV. Dead slots may hold anything.
        mask: Which slots hold a constituent.
        radius: Jet radius R, or a function for it.
        power: Power p of the transverse momentum: -1 anti-kt, 0 Cambridge/Aachen, 1 kt.
        sharpness: Inverse temperature alpha, positive and finite.
        metric: In which coordinates; `RapidityAzimuth` unless given.
        scheme: How momenta are recombined; by `EScheme` unless given.
        candidates: Which pairs and beams are drawn from; `AllPairs` unless given.

    Returns:
        The log-probability; minus infinity for a history that cannot come about.
        Meaningless for one of another set of constituents.
    """
    algorithm = Algorithm.of(radius, power, metric, scheme)
    candidates = AllPairs() if candidates is None else candidates

    def step(
        state: _Pseudojets, merge: tuple[Int[Array, ""], Int[Array, ""]]
    ) -> tuple[_Pseudojets, Float[Array, ""]]:
        (momenta, alive), (keep, take) = state, merge
        options = options_of(momenta, alive, algorithm, candidates)
        done = take < -1
        other = jnp.where(take < 0, keep, take)
        chosen = options.low == jnp.minimum(keep, other)
        chosen &= options.high == jnp.maximum(keep, other)
        # A step that is not taken: all are candidates, so that nothing diverges.
        options = type(options)(
            options.low,
            options.high,
            jnp.where(done, 1.0, options.distance),
            options.allowed | done,
        )
        logits = options.logits(sharpness)
        logit = jax.nn.logsumexp(jnp.where(chosen | done, logits, -jnp.inf))
        log_prob = jnp.where(done, 0.0, logit - jax.nn.logsumexp(logits))
        return merge_slots(momenta, alive, keep, take, algorithm), log_prob

    prepared = algorithm.scheme.prepare(alive_momentum(momentum, mask).T).T
    _, log_probs = jax.lax.scan(step, (prepared, mask), (history.keep, history.take))
    return jnp.sum(log_probs)


def draw_history(
    momentum: Float[Array, "constituents 4"],
    mask: Bool[Array, " constituents"],
    algorithm: Algorithm,
    sharpness: Float[Array, ""],
    *,
    candidates: AbstractCandidates,
    key: PRNGKeyArray,
) -> MergeHistory:
    """A history at random under any algorithm: see `sample_history`.

    Args:
        momentum: Four-momenta, in GeV, safe in dead slots.
        mask: Which slots hold a constituent.
        algorithm: The algorithm.
        sharpness: Inverse temperature alpha.
        candidates: Which pairs and beams are drawn from.
        key: Random key.

    Returns:
        The history.
    """

    def step(
        state: _Pseudojets, key: PRNGKeyArray
    ) -> tuple[_Pseudojets, tuple[Int[Array, ""], Int[Array, ""]]]:
        momenta, alive = state
        options = options_of(momenta, alive, algorithm, candidates)
        logits = jnp.ravel(options.logits(sharpness))
        place = jax.random.categorical(key, logits)
        low, high = jnp.ravel(options.low)[place], jnp.ravel(options.high)[place]
        left = jnp.any(alive)
        keep = jnp.where(left, low, 0)
        take = jnp.where(left, jnp.where(high == low, -1, high), -2)
        state = merge_slots(momenta, alive, keep, take, algorithm)
        return state, (keep, take)

    prepared = algorithm.scheme.prepare(momentum.T).T
    keys = jax.random.split(key, mask.shape[0])
    return MergeHistory(*jax.lax.scan(step, (prepared, mask), keys)[1])
