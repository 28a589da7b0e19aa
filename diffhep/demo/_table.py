"""The training's own gradient beside finite differences, without new compilation."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import PRNGKeyArray

from ..event import Event
from ..inference import sample_uncertainty
from ..optimise import progress_bar, value_and_gradient
from ..pipeline import Pipeline, Sample
from ._check import FreeRow
from ._everything import FullLoss
from ._forward import reconstruct
from ._pipeline import KEEP
from ._probes import PROBES


def compare_gradient(
    loss: FullLoss,
    pipeline: Pipeline,
    *,
    num_batches: int,
    draws: int,
    mesh: Mesh,
    key: PRNGKeyArray,
) -> list[FreeRow]:
    """The gradient of log(uncertainty) as the training sees it, beside an oracle.

    Batch by batch: reverse mode through the training's loss, and central finite
    differences with common random numbers of the same batch, for each of `PROBES`. The
    errors are those of the mean over batches, rough if these are few. The expectations
    differ by a term of the order of one over the events of a batch; `check_free` has
    none.

    Args:
        loss: The objective of the training.
        pipeline: The pipeline.
        num_batches: How many batches.
        draws: Draws of each event for the finite differences.
        mesh: Devices to spread the events over.
        key: Random key.

    Returns:
        One row per parameter.
    """

    def log_uncertainty(
        pipeline: Pipeline, batch: Event, batch_key: PRNGKeyArray
    ) -> float:
        out = reconstruct(
            pipeline, batch, keep=KEEP, draws=draws, mesh=mesh, key=batch_key
        )
        return float(jnp.log(_uncertainty(Sample(out), loss.analysis)))

    # The price is a function of its own, without choices.
    price_gradient = eqx.filter_grad(loss.price_term)(pipeline)
    gradients, differences = np.zeros((2, num_batches, len(PROBES)))
    total = num_batches * len(PROBES)
    with progress_bar("gradient against finite differences", total=total) as bar:
        for number in range(num_batches):
            step = jnp.asarray(number)
            _, gradient = value_and_gradient(loss, pipeline, key=key, step=step)
            batch_key = jax.random.fold_in(key, step)
            # Like the data set it lies on no device in particular: for arrays that lie
            # elsewhere the program would be compiled again.
            batch = jax.tree.map(jnp.asarray, jax.device_get(_batch(loss, batch_key)))
            for column, probe in enumerate(PROBES.values()):
                price = probe.read_gradient(price_gradient)
                slope = probe.read_gradient(gradient) - price
                gradients[number, column] = float(slope)
                up, down = (
                    log_uncertainty(
                        probe.shift(pipeline, s * probe.step), batch, batch_key
                    )
                    for s in (1, -1)
                )
                differences[number, column] = (up - down) / (2 * probe.step)
                bar("")
    rows = []
    for column, (name, probe) in enumerate(PROBES.items()):
        gradient, difference = gradients[:, column], differences[:, column]
        rows.append(
            FreeRow(
                name,
                probe.kind,
                probe.unit,
                float(probe.read(pipeline)),
                *_mean(gradient),
                *_mean(difference),
                *_mean(gradient - difference),
                num_batches,
            )
        )
    return rows


_uncertainty = eqx.filter_jit(sample_uncertainty)


@eqx.filter_jit
def _batch(loss: FullLoss, key: PRNGKeyArray) -> Event:
    return loss.batch(key)


def _mean(values: np.ndarray) -> tuple[float, float]:
    """Mean over batches, and its standard error."""
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))
