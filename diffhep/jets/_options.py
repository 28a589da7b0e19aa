"""What a step of a clustering may do, with all distances at once: for any algorithm."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.lax import stop_gradient
from jaxtyping import Array, Bool, Float, Int

from ._algorithm import Algorithm
from ._candidates import AbstractCandidates, AllPairs, NearestOnly
from ._metric import AbstractMetric, Coordinates
from ._radius import radii


class Options(eqx.Module):
    """The candidates of a step: two slots that merge, or one, twice, that is a jet."""

    low: Int[Array, "rows slots"]
    """The lower slot."""
    high: Int[Array, "rows slots"]
    """The other one."""
    distance: Float[Array, "rows slots"]
    """Their distance, times the square of the radius."""
    allowed: Bool[Array, "rows slots"]
    """Which of them there are."""

    def logits(self, sharpness: Float[Array, ""]) -> Float[Array, "rows slots"]:
        """Logarithms of unnormalised probabilities.

        Args:
            sharpness: Inverse temperature alpha.

        Returns:
            The logarithms; minus infinity for what is not allowed.
        """
        least = jnp.min(jnp.where(self.allowed, self.distance, jnp.inf))
        # Two in one direction merge for certain; the floor keeps the ratio finite.
        floor = jnp.finfo(least.dtype).tiny ** 0.75
        excess = (self.distance - least) / jnp.maximum(least, floor)
        return jnp.where(self.allowed, -sharpness * excess, -jnp.inf)


def options_of(
    momenta: Float[Array, "slots 4"],
    alive: Bool[Array, " slots"],
    algorithm: Algorithm,
    candidates: AbstractCandidates,
) -> Options:
    """The candidates of a step.

    Args:
        momenta: Four-momenta of pseudojets, in GeV, safe in dead slots.
        alive: Which slots hold one.
        algorithm: The algorithm.
        candidates: Which pairs and beams are drawn from.

    Returns:
        The candidates.
    """
    metric = algorithm.metric
    jet = metric.coordinates(momenta.T, algorithm.power[None])
    lanes = jax.tree.map(lambda x: x[..., None], algorithm.radius)
    limit = metric.reach2(radii(lanes, momenta.T[..., None])[:, 0])
    if isinstance(candidates, AllPairs):
        return _all_pairs(jet, limit, alive, metric)
    options = _neighbours(jet, limit, alive, metric)
    if not isinstance(candidates, NearestOnly):
        return options
    only = options.allowed & _is_nearest(jet, limit, alive, metric)
    return eqx.tree_at(lambda o: o.allowed, options, only)


def merge_slots(
    momenta: Float[Array, "slots 4"],
    alive: Bool[Array, " slots"],
    keep: Int[Array, ""],
    take: Int[Array, ""],
    algorithm: Algorithm,
) -> tuple[Float[Array, "slots 4"], Bool[Array, " slots"]]:
    """The pseudojets after a step.

    Args:
        momenta: Four-momenta of pseudojets, in GeV, safe in dead slots.
        alive: Which slots hold one.
        keep: As in `MergeHistory`.
        take: As in `MergeHistory`.
        algorithm: The algorithm.

    Returns:
        Four-momenta, and which slots hold a pseudojet.
    """
    number = jnp.arange(alive.shape[0], dtype=keep.dtype)
    merged = algorithm.scheme.merge(momenta[keep], momenta[jnp.maximum(take, 0)])
    here = (number == keep) & (take >= 0)
    ended = jnp.where(take == -1, keep, take)
    return jnp.where(here[:, None], merged[None], momenta), alive & (number != ended)


def _all_pairs(
    jet: Coordinates,
    limit: Float[Array, " slots"],
    alive: Bool[Array, " slots"],
    metric: AbstractMetric,
) -> Options:
    # Pairs below the diagonal, beams on it.
    number = jnp.arange(alive.shape[0], dtype=jnp.int32)
    rows, columns = jnp.broadcast_arrays(number[:, None], number[None])
    row, column = ([x[:, None] for x in jet.place], [x[None] for x in jet.place])
    weight = jnp.minimum(jet.weight[:, None], jet.weight[None])
    pair = weight * metric.apart2(tuple(row), tuple(column))
    beam = (limit * jet.weight)[:, None]
    allowed = alive[:, None] & alive[None] & (rows >= columns)
    return Options(columns, rows, jnp.where(rows > columns, pair, beam), allowed)


def _neighbours(
    jet: Coordinates,
    limit: Float[Array, " slots"],
    alive: Bool[Array, " slots"],
    metric: AbstractMetric,
) -> Options:
    # Each slot with its neighbour, and each with the beam.
    number = jnp.arange(alive.shape[0], dtype=jnp.int32)
    nearest, known = _nearest(jet, alive, metric)
    apart = metric.apart2(jet.place, tuple(x[nearest] for x in jet.place))
    # A lone one is its own neighbour: no derivative at a distance of zero.
    pair = jnp.where(known, jnp.minimum(jet.weight, jet.weight[nearest]) * apart, 1.0)
    return Options(
        jnp.stack([jnp.minimum(number, nearest), number]),
        jnp.stack([jnp.maximum(number, nearest), number]),
        jnp.stack([pair, limit * jet.weight]),
        jnp.stack([alive & known, alive]),
    )


def _is_nearest(
    jet: Coordinates,
    limit: Float[Array, " slots"],
    alive: Bool[Array, " slots"],
    metric: AbstractMetric,
) -> Bool[Array, "1 slots"]:
    nearest, known = _nearest(jet, alive, metric)
    apart = metric.apart2(jet.place, tuple(x[nearest] for x in jet.place))
    own = jet.weight * jnp.where(known, jnp.minimum(apart, limit), limit)
    # Which one it is is an integer: there is no gradient to drop.
    own = stop_gradient(jnp.where(alive, own, jnp.inf))
    return (jnp.arange(alive.shape[0]) == jnp.argmin(own))[None]


def _nearest(
    jet: Coordinates, alive: Bool[Array, " slots"], metric: AbstractMetric
) -> tuple[Int[Array, " slots"], Bool[Array, " slots"]]:
    # The slot of each one's nearest neighbour, and whether there is one.
    row, column = ([x[:, None] for x in jet.place], [x[None] for x in jet.place])
    matrix = metric.apart2(tuple(row), tuple(column))
    others = alive[None] & ~jnp.eye(alive.shape[0], dtype=bool)
    # Integers come out: there is no gradient to drop.
    matrix = stop_gradient(jnp.where(others, matrix, jnp.inf))
    nearest = jnp.argmin(matrix, axis=1).astype(jnp.int32)
    return nearest, jnp.min(matrix, axis=1) < jnp.inf
