"""From a pipeline and events to the measurement, soft and hard."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import PRNGKeyArray

from ..event import Event
from ..inference import (
    Analysis,
    Contributions,
    HardBins,
    SelectHard,
    SoftBins,
    find_contributions,
)
from ..pipeline import Pipeline, Sample
from ._forward import reconstruct
from ._pipeline import KEEP
from ._probes import stage


def measure(
    pipeline: Pipeline,
    events: Event,
    analysis: Analysis,
    *,
    draws: int,
    mesh: Mesh | None = None,
    description: str | None = None,
    key: PRNGKeyArray,
) -> Contributions:
    """What each event adds to the templates. No gradient is taken.

    Args:
        pipeline: The pipeline.
        events: A batch of events.
        analysis: How they are turned into a measurement.
        draws: How many times each event goes through.
        mesh: Devices to spread the events over.
        description: Text beside the progress bar.
        key: Random key.

    Returns:
        The contributions of all events and draws.
    """
    out = reconstruct(
        pipeline,
        events,
        keep=KEEP,
        draws=draws,
        mesh=mesh,
        description=description,
        key=key,
    )
    return find_contributions(Sample(out), analysis.bins)


def measure_hard(
    pipeline: Pipeline,
    events: Event,
    analysis: Analysis,
    *,
    mesh: Mesh | None = None,
    description: str | None = None,
    key: PRNGKeyArray,
) -> Contributions:
    """The same as an experiment would do it, without any relaxation.

    Deterministic jets, hard cuts and hard bins in the place of probabilistic jets, soft
    cuts and soft bins.

    Args:
        pipeline: The pipeline.
        events: A batch of events.
        analysis: How they are turned into a measurement.
        mesh: Devices to spread the events over.
        description: Text beside the progress bar.
        key: Random key.

    Returns:
        The contributions of all events, to be filled with the same yields.
    """
    # So sharp that the nearest pair is always taken, yet finite.
    sharp = eqx.tree_at(
        lambda p: stage(p, "ClusterJets").sharpness,
        pipeline,
        replace_fn=lambda x: jnp.full_like(x, 1e6),
    )
    keep = (*KEEP, "jets", "missing_momentum")
    out = reconstruct(
        sharp, events, keep=keep, mesh=mesh, description=description, key=key
    )
    selected = _select(stage(pipeline, "SelectEvents").harden(), out, key)
    return find_contributions(Sample(selected), hard_bins(analysis))


def hard_bins(analysis: Analysis) -> HardBins:
    """The bins of an analysis with hard edges."""
    bins = analysis.bins
    if isinstance(bins, SoftBins):
        return bins.harden()
    if isinstance(bins, HardBins):
        return bins
    raise ValueError(f"{type(bins).__name__} has no hard edges; use `SoftBins`.")


@eqx.filter_jit
def _select(cut: SelectHard, events: Event, key: PRNGKeyArray) -> Event:
    return jax.vmap(lambda event: cut(event, key=key))(events)
