import math
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.special import gammaln
from jaxtyping import Array, Float, PRNGKeyArray

from ..estimators import AbstractSampler, Gradient, Score
from ..event import Clusters, Event, Status
from ..geometry import (
    AbstractDetector,
    Cylinders,
    Discs,
    LayerGroup,
    detector_of,
)
from ..pipeline import AbstractStage


def expected_noise(
    occupancy: Float[Array, ""], detector: AbstractDetector, *, max_eta: float
) -> Float[Array, " layers"]:
    """How many pixels of each layer fire by themselves, on average.

    Args:
        occupancy: Probability that a pixel does.
        detector: The detector, of cylinders and discs.
        max_eta: Largest pseudorapidity that cylinders without end cover.

    Returns:
        Mean numbers of noise hits: smooth in radii, lengths and pitches.

    Raises:
        ValueError: A layer is a plane without end.
    """
    areas = []
    for group in detector.groups:
        if isinstance(group, Discs):
            areas.append(math.pi * (group.outer**2 - group.inner**2))
        else:
            cylinders, half_length = _cylinders(group, max_eta)
            areas.append(4 * math.pi * cylinders.radii * half_length)
    return occupancy * jnp.concatenate(areas) / jnp.prod(detector.pitch, axis=1)


def place_noise(
    uniform: Float[Array, "layers hits 2"],
    detector: AbstractDetector,
    *,
    max_eta: float,
) -> Float[Array, "layers hits 2"]:
    """Positions of noise hits, evenly over the area of each layer.

    Args:
        uniform: Independent numbers between 0 and 1.
        detector: The detector, of cylinders and discs.
        max_eta: Largest pseudorapidity that cylinders without end cover.

    Returns:
        What the layers measure, in rad and mm.

    Raises:
        ValueError: A layer is a plane without end.
    """
    parts, begin = [], 0
    for group in detector.groups:
        first, second = (
            uniform[begin : begin + group.number, :, axis] for axis in (0, 1)
        )
        begin += group.number
        if isinstance(group, Discs):
            inner, outer = group.inner[:, None] ** 2, group.outer[:, None] ** 2
            along = jnp.sqrt(inner + (outer - inner) * second)
        else:
            _, half_length = _cylinders(group, max_eta)
            along = half_length[:, None] * (2 * second - 1)
        parts.append(jnp.stack([math.pi * (2 * first - 1), along], axis=2))
    return jnp.concatenate(parts)


def _cylinders(
    group: LayerGroup, max_eta: float
) -> tuple[Cylinders, Float[Array, " layers"]]:
    if not isinstance(group, Cylinders):
        raise ValueError(
            f"Noise is spread over the area of a layer, but {type(group).__name__} "
            "have no end; use a detector of cylinders and discs."
        )
    if group.half_length is None:
        return group, group.radii * math.sinh(max_eta)
    return group, group.half_length


class AddNoise(AbstractStage):
    """Stage: `hits` and `detector` in, `clusters` out: found hits and noise, mixed.

    On each layer the hits of the particles come first, slot by slot, then noise hits in
    a number with the distribution of Poisson: a discrete choice. What comes after may
    not rely on that order. Where they are is pathwise.
    """

    occupancy: Float[Array, ""]
    """Probability that a pixel fires by itself."""
    capacity: int = eqx.field(static=True)
    """Largest number of noise hits on a layer; more set `Status.NOISE_OVERFLOW`."""
    max_eta: float = eqx.field(static=True, default=2.5)
    """Largest pseudorapidity that cylinders without end cover."""
    estimator: AbstractSampler = Score()
    """How the gradient crosses the choice of the number."""

    reads: ClassVar[frozenset[str]] = frozenset({"hits", "detector"})
    writes: ClassVar[frozenset[str]] = frozenset({"clusters", "num_noise"})

    def __check_init__(self) -> None:
        if self.capacity < 1 or self.max_eta <= 0:
            raise ValueError(
                f"`capacity` is {self.capacity} and `max_eta` is {self.max_eta}; give "
                "room for at least one noise hit on a layer, and a positive range."
            )

    @property
    def gradient(self) -> Gradient:
        """What the estimator promises."""
        return self.estimator.gradient

    def __call__(self, event: Event, *, key: PRNGKeyArray) -> Event:
        """The event with everything that the layers report."""
        hits, detector = event.hits, detector_of(event.detector)
        if hits is None:
            raise ValueError("The event lacks `hits`; run `DetectHits` before.")
        count_key, place_key = jax.random.split(key)
        mean = expected_noise(self.occupancy, detector, max_eta=self.max_eta)

        def draw():
            return jax.random.poisson(count_key, jax.lax.stop_gradient(mean))

        number = self.estimator.outcome(draw, event.num_noise)
        count = number.astype(mean.dtype)
        log_prob = jnp.sum(count * jnp.log(mean) - mean - gammaln(count + 1))
        shape = (mean.shape[0], self.capacity, 2)
        uniform = jax.random.uniform(place_key, shape, hits.position.dtype)
        noise = place_noise(uniform, detector, max_eta=self.max_eta)
        slots = jnp.arange(self.capacity)[None, :]
        owner = jnp.broadcast_to(
            jnp.arange(hits.mask.shape[0])[None, :], hits.mask.T.shape
        )
        clusters = Clusters(
            position=jnp.concatenate([jnp.swapaxes(hits.position, 0, 1), noise], 1),
            particle=jnp.concatenate([owner, -jnp.ones(shape[:2], owner.dtype)], 1),
            mask=jnp.concatenate([hits.mask.T, slots < number[:, None]], axis=1),
        )
        event = event.replace(clusters=clusters, num_noise=number)
        event = event.flag(Status.NOISE_OVERFLOW, jnp.any(number > self.capacity))
        return event.add_log_weight(self.estimator.term(log_prob))
