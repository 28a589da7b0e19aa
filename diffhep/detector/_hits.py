import functools
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from ..estimators import AbstractSampler, Gradient, Score
from ..event import Event, Hits
from ..geometry import detector_of
from ..helix import Ionisation
from ..pipeline import AbstractStage
from ._transport import simulate_hits


class SimulateHits(AbstractStage):
    """Stage: `particles` and `detector` in, `hits` out: all that could be found."""

    ionisation: Ionisation | None = None
    """How much energy is lost in the material; none if None."""

    reads: ClassVar[frozenset[str]] = frozenset({"particles", "detector"})
    writes: ClassVar[frozenset[str]] = frozenset({"hits"})

    @property
    def gradient(self) -> Gradient:
        """Exact: positions and resolutions are pathwise in every parameter."""
        return Gradient.EXACT

    def __call__(self, event: Event, *, key: PRNGKeyArray) -> Event:
        """The event with its possible hits, and the log-odds that each is found."""
        particles, detector = event.particles, detector_of(event.detector)
        if particles is None:
            raise ValueError("The event lacks `particles`; load events first.")
        charged = particles.mask & (particles.charge != 0)
        # Neutral particles and dead slots: a canned charged particle stands in.
        alive = charged[:, None]
        canned = jnp.asarray([10.0, 0.0, 0.0, 11.0], particles.momentum.dtype)
        momentum = jnp.where(alive, particles.momentum, canned[None, :])
        vertex = jnp.where(alive, particles.vertex, 0.0)
        charge = jnp.where(charged, particles.charge, 1.0)
        shape = (
            charged.shape[0],
            detector.pitch.shape[0],
            4 if self.ionisation is None else 5,
        )
        noise = jax.random.normal(key, shape, vertex.dtype)
        simulate = functools.partial(simulate_hits, ionisation=self.ionisation)
        hits = jax.vmap(simulate, in_axes=(0, 0, 0, None, 0))(
            vertex, momentum, charge, detector, noise
        )
        reached = hits.reached & alive
        logit = jnp.where(reached, hits.logit, -jnp.inf)
        return event.replace(hits=Hits(hits.position, logit, reached))


class DetectHits(AbstractStage):
    """Stage: decides which of the possible `hits` are found: a discrete choice."""

    estimator: AbstractSampler = Score()
    """How the gradient crosses the choice."""

    reads: ClassVar[frozenset[str]] = frozenset({"hits"})
    writes: ClassVar[frozenset[str]] = frozenset({"hits", "detected"})

    @property
    def gradient(self) -> Gradient:
        """What the estimator promises."""
        return self.estimator.gradient

    def __call__(self, event: Event, *, key: PRNGKeyArray) -> Event:
        """The event with the hits that were found, and the score of finding those."""
        hits = event.hits
        if hits is None:
            raise ValueError("The event lacks `hits`; run `SimulateHits` before.")
        # What is out of reach may hold anything, and is never found.
        logit = jnp.where(hits.mask, hits.logit, 0.0)

        def draw():
            # The gradient through the draw itself is what `term` stands for.
            probability = jax.nn.sigmoid(jax.lax.stop_gradient(logit))
            return jax.random.bernoulli(key, probability) & hits.mask

        detected = self.estimator.outcome(draw, event.detected)
        # Summed over found and lost hits; exactly zero for those out of reach.
        log_prob = jax.nn.log_sigmoid(jnp.where(detected, logit, -logit))
        log_prob = jnp.sum(jnp.where(hits.mask, log_prob, 0.0))
        found = Hits(hits.position, hits.logit, detected & hits.mask)
        event = event.replace(hits=found, detected=detected)
        return event.add_log_weight(self.estimator.term(log_prob))
