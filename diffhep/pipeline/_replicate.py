from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from ..estimators import AbstractEventBaseline, Gradient, LeaveOneOut
from ..event import Event
from ._pipeline import Pipeline
from ._stage import AbstractStage


class Replicate(AbstractStage):
    """The stages inside, drawn several times on the same event.

    Variance reduction: what the replicas share is paid for once, and each replica's
    score is compared with the others' result (`LeaveOneOut`, unless `baseline` is
    another), so that only the variation within the event makes noise. All arrays of the
    event that comes out have a leading axis `replicas`, whose weights add up to the
    event's weight: it must be the last stage.

    The stages inside may add score terms to `log_weight`, but no true weights.
    """

    pipeline: Pipeline
    num: int = eqx.field(static=True)
    baseline: AbstractEventBaseline = LeaveOneOut()
    """What a replica is compared with. `BatchMean` is none of these: an event does not
    know its batch. With `NoBaseline` the normalisation of `weighted_mean` is just that.
    """

    @classmethod
    def around(
        cls,
        stages: Sequence[AbstractStage],
        *,
        num: int,
        baseline: AbstractEventBaseline | None = None,
    ) -> "Replicate":
        """Replicas of some stages; the pipeline around them checks the wiring.

        Args:
            stages: The stages to draw several times.
            num: How many times, at least 2 with baselines.
            baseline: What a replica is compared with; `LeaveOneOut` unless given.

        Returns:
            The stage.
        """
        reads = frozenset().union(*(stage.reads for stage in stages))
        baseline = LeaveOneOut() if baseline is None else baseline
        return cls(Pipeline(stages, inputs=reads), num, baseline)

    def __check_init__(self):
        least = self.baseline.least_replicas
        if self.num < least:
            raise ValueError(
                f"`num` is {self.num}, but `{type(self.baseline).__name__}` needs at "
                f"least {least} replicas; raise it, or use the stages without "
                "`Replicate`."
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
        terms = self.baseline.centre(replicas.log_weight - event.log_weight)
        share = jnp.log(jnp.asarray(self.num, terms.dtype))
        return replicas.replace(log_weight=event.log_weight + terms - share)
