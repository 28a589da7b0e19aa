from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from ..estimators import Gradient, leave_one_out
from ..event import Event
from ._pipeline import Pipeline
from ._stage import AbstractStage


class Replicate(AbstractStage):
    """The stages inside, drawn several times on the same event.

    Variance reduction: what the replicas share is paid for once, and each replica's
    score is compared with the others' result (leave-one-out baseline), so that only
    the variation within the event makes noise. All arrays of the event that comes out
    have a leading axis `replicas`, whose weights add up to the event's weight: it must
    be the last stage.

    The stages inside may add score terms to `log_weight`, but no true weights.
    """

    pipeline: Pipeline
    num: int = eqx.field(static=True)

    @classmethod
    def around(cls, stages: Sequence[AbstractStage], *, num: int) -> "Replicate":
        """Replicas of some stages; the pipeline around them checks the wiring.

        Args:
            stages: The stages to draw several times.
            num: How many times, at least 2.

        Returns:
            The stage.
        """
        reads = frozenset().union(*(stage.reads for stage in stages))
        return cls(Pipeline(stages, inputs=reads), num)

    def __check_init__(self):
        if self.num < 2:
            raise ValueError(
                f"`num` is {self.num}, but leave-one-out baselines need at least 2 "
                "replicas; raise it, or use the stages without `Replicate`."
            )

    @property
    def reads(self) -> frozenset[str]:
        """What the stages inside read."""
        return self.pipeline.reads

    @property
    def writes(self) -> frozenset[str]:
        """What the stages inside write."""
        return self.pipeline.writes

    @property
    def gradient(self) -> Gradient:
        """What the stages inside promise."""
        return self.pipeline.gradient

    def __call__(self, event: Event, *, key: PRNGKeyArray) -> Event:
        """The replicas, with a leading axis."""
        keys = jax.random.split(key, self.num)
        replicas = jax.vmap(lambda key: self.pipeline(event, key=key))(keys)
        terms = leave_one_out(replicas.log_weight - event.log_weight)
        share = jnp.log(jnp.asarray(self.num, terms.dtype))
        return replicas.replace(log_weight=event.log_weight + terms - share)
