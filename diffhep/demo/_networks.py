"""The first training: the networks alone, on events reconstructed once."""

from pathlib import Path

import equinox as eqx
import jax
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Float, PRNGKeyArray

from ..event import Event
from ..inference import cross_entropy
from ..optimise import TrainResult, train
from ..pipeline import Pipeline, Sample, map_events
from ._batches import take
from ._config import DemoConfig
from ._forward import reconstruct
from ._pipeline import KEEP
from ._probes import stage


RECONSTRUCTED = (
    "tracks",
    "jets",
    "primary_vertex",
    "secondary_vertices",
    "missing_momentum",
    "detector",
    "label",
)
"""What the networks read."""


def networks(pipeline: Pipeline) -> list[eqx.Module]:
    """The parts of a pipeline that the first training moves."""
    return [
        stage(pipeline, "TagJets").network,
        stage(pipeline, "EstimateRatio").network,
        stage(pipeline, "EstimateRatio").score,
    ]


def train_networks(
    pipeline: Pipeline,
    events: Event,
    config: DemoConfig,
    *,
    mesh: Mesh,
    checkpoint: Path,
    fingerprint: str,
    key: PRNGKeyArray,
) -> tuple[Pipeline, TrainResult]:
    """The pipeline with its networks trained on events reconstructed once.

    Args:
        pipeline: The pipeline.
        events: Training events.
        config: Steps and sizes.
        mesh: Devices to spread the events over.
        checkpoint: File to go on from after an interruption.
        fingerprint: What distinguishes this training from others.
        key: Random key.

    Returns:
        The pipeline, and the course of the training.
    """
    run_key, train_key = jax.random.split(key)
    sample = reconstruct(
        pipeline,
        events,
        keep=RECONSTRUCTED,
        mesh=mesh,
        description="reconstructing the training events",
        key=run_key,
    )
    tail = Pipeline(
        [
            stage(pipeline, name)
            for name in ("TagJets", "SelectEvents", "EstimateRatio")
        ],
        inputs=RECONSTRUCTED,
    )

    result = train(
        _NetworkLoss(tail, sample, config.pretrain_batch, mesh),
        networks(tail),
        optimiser=optax.adam(optax.cosine_decay_schedule(3e-3, config.pretrain_steps)),
        num_steps=config.pretrain_steps,
        checkpoint=checkpoint,
        fingerprint=fingerprint,
        discard_other=True,
        description="networks alone",
        key=train_key,
    )
    return eqx.tree_at(networks, pipeline, result.params), result


class _NetworkLoss(eqx.Module):
    """The cross-entropy of a random batch of reconstructed events."""

    tail: Pipeline
    sample: Event
    batch_size: int = eqx.field(static=True)
    mesh: Mesh = eqx.field(static=True)

    def __call__(
        self, trained: list[eqx.Module], key: PRNGKeyArray, step: Array
    ) -> Float[Array, ""]:
        del step
        number = self.sample.log_weight.shape[0]
        chosen = jax.random.randint(key, (self.batch_size,), 0, number)
        current = eqx.tree_at(networks, self.tail, trained)
        out = map_events(
            _infer,
            current,
            take(self.sample, chosen),
            block_size=self.batch_size,
            mesh=self.mesh,
            key=key,
        )
        return cross_entropy(Sample(out))


def _infer(pipeline: Pipeline, event: Event, key: PRNGKeyArray) -> Event:
    return pipeline(event, key=key).keep(*KEEP)
