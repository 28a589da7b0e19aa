"""The second training: everything at once, on the result and the price."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Float, PRNGKeyArray

from ..event import Event
from ..geometry import detector_price
from ..inference import Analysis, sample_uncertainty
from ..optimise import TrainResult, scale_updates, train
from ..pipeline import Pipeline, Sample, run
from ._batches import draw_batch
from ._config import DemoConfig
from ._forward import reconstruct
from ._pipeline import KEEP
from ._tunables import TUNABLES, barrel_of


def train_everything(
    loss: "FullLoss",
    pipeline: Pipeline,
    config: DemoConfig,
    *,
    names: Sequence[str] = tuple(TUNABLES),
    checkpoint: Path,
    fingerprint: str,
    key: PRNGKeyArray,
) -> tuple[Pipeline, TrainResult, list[dict[str, Any]]]:
    """The pipeline with everything tuned on the uncertainty and the price at once.

    Args:
        loss: The objective.
        pipeline: The pipeline at the start.
        config: Steps and rates.
        names: Which of `TUNABLES` to move.
        checkpoint: File to go on from after an interruption.
        fingerprint: What distinguishes this training from others.
        key: Random key.

    Returns:
        The pipeline, the course of the training, and the values of the parameters by
        step.
    """
    rate = optax.cosine_decay_schedule(config.learning_rate, config.num_steps, 0.1)
    parts = [TUNABLES[name] for name in names]
    scales = [(part.where, part.scale) for part in parts]
    constraints = [
        (part.where, part.constraint) for part in parts if part.constraint is not None
    ]
    record = Trajectory(checkpoint.with_suffix(".jsonl"))
    result = train(
        loss,
        pipeline,
        optimiser=optax.chain(
            optax.adam(rate), scale_updates(pipeline, scales, default=0.0)
        ),
        num_steps=config.num_steps,
        constraints=constraints,
        checkpoint=checkpoint,
        checkpoint_every=5,
        fingerprint=fingerprint,
        discard_other=True,
        description="everything at once",
        callback=record,
        key=key,
    )
    return result.params, result, record.read()


def full_loss(
    pipeline: Pipeline,
    events: Event,
    analysis: Analysis,
    config: DemoConfig,
    *,
    mesh: Mesh,
    key: PRNGKeyArray,
) -> "FullLoss":
    """The objective of the second training.

    Its batches prefer events that look like signal to the networks at the start: few
    of the background do, and they decide.

    Args:
        pipeline: The pipeline at the start, whose price is the unit.
        events: Training events.
        analysis: How they are turned into a measurement.
        config: Batch size and weight of the price.
        mesh: Devices to spread the events over.
        key: Random key.

    Returns:
        The loss of a random batch.
    """
    out = reconstruct(
        pipeline,
        events,
        keep=("log_ratio",),
        mesh=mesh,
        description="looking for events to prefer",
        key=key,
    )
    assert out.log_ratio is not None
    # A floor, so that no weight is more than ten times another.
    preference = 0.1 + 0.9 * jax.nn.sigmoid(out.log_ratio[:, 0])
    weight = jnp.exp(events.log_weight - jnp.max(events.log_weight))
    price = detector_price(barrel_of(pipeline))
    return FullLoss(events, preference * weight, analysis, price, config, mesh)


class FullLoss(eqx.Module):
    """log(uncertainty) + price_weight log2(price) of a random batch.

    The price is relative to that at the start.
    """

    events: Event
    preference: Float[Array, " events"]
    analysis: Analysis
    start_price: Float[Array, ""]
    config: DemoConfig = eqx.field(static=True)
    mesh: Mesh = eqx.field(static=True)

    def __call__(
        self, pipeline: Pipeline, key: PRNGKeyArray, step: Array
    ) -> Float[Array, ""]:
        """The loss of a step."""
        del step
        return jnp.log(self.uncertainty(pipeline, key)) + self.price_term(pipeline)

    def price_term(self, pipeline: Pipeline) -> Float[Array, ""]:
        """The part of the loss that the price makes."""
        price = detector_price(barrel_of(pipeline)) / self.start_price
        return self.config.price_weight * jnp.log2(price)

    def uncertainty(self, pipeline: Pipeline, key: PRNGKeyArray) -> Float[Array, ""]:
        """The uncertainty that a random batch predicts.

        Args:
            pipeline: The pipeline.
            key: Random key of the step.

        Returns:
            One standard deviation of the signal strength.
        """
        run_key = jax.random.split(key)[1]
        out = run(pipeline, self.batch(key), keep=KEEP, mesh=self.mesh, key=run_key)
        return sample_uncertainty(Sample.from_events(out), self.analysis)

    def batch(self, key: PRNGKeyArray) -> Event:
        """The events of a step.

        Args:
            key: Random key of the step.

        Returns:
            A batch, half of it signal.
        """
        return draw_batch(
            self.events,
            self.preference,
            num_each=self.config.batch_events // 2,
            key=jax.random.split(key)[0],
        )


class Trajectory:
    """The values of the tunable arrays by step, in a file that outlives the process."""

    def __init__(self, path: Path):
        """A record in a file of JSON lines, which is made at the first step."""
        self.path = path

    def __call__(self, step: int, loss: float, pipeline: Pipeline) -> None:
        """Add a line."""
        parts = {name: part.where(pipeline) for name, part in TUNABLES.items()}
        values = {
            name: np.asarray(part).tolist()
            for name, part in parts.items()
            if eqx.is_array(part)
        }
        mode = "w" if step == 1 else "a"
        with self.path.open(mode, encoding="utf-8") as file:
            file.write(
                json.dumps({"step": step, "loss": loss, "values": values}) + "\n"
            )

    def read(self) -> list[dict[str, Any]]:
        """One entry per step; of a step taken twice the later."""
        lines = self.path.read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line) for line in lines]
        return list({row["step"]: row for row in rows}.values())
