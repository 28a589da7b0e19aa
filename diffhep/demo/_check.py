"""The end-to-end gradient against finite differences, in two parts.

With every discrete outcome held fixed the pipeline is smooth, and the two agree to many
digits. With the choices free the derivative of the expectation is a random number; it
is compared with finite differences under common random numbers, event by event.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, PRNGKeyArray

from ..estimators import Detached, Recorded
from ..event import Event
from ..inference import (
    Analysis,
    BinnedModel,
    expected_uncertainty,
    find_contributions,
    sample_uncertainty,
    templates,
)
from ..pipeline import Pipeline, Sample, map_events, run
from ._pipeline import KEEP
from ._probes import PROBES
from ._variants import with_estimator, without_replicas


class FixedRow(NamedTuple):
    """One parameter with all outcomes held fixed."""

    name: str
    kind: str
    unit: str
    value: float
    gradient: float
    """d log(uncertainty) / d(parameter) by reverse mode."""
    difference: float
    """The same by central finite differences."""

    @property
    def deviation(self) -> float:
        """Relative difference; the absolute one where the derivative is zero."""
        scale = max(abs(self.gradient), abs(self.difference))
        return abs(self.gradient - self.difference) / (scale or 1.0)


class FreeRow(NamedTuple):
    """One parameter with the choices free."""

    name: str
    kind: str
    unit: str
    value: float
    gradient: float
    """d log(uncertainty) / d(parameter), by reverse mode with the score."""
    gradient_error: float
    difference: float
    """The same by finite differences under common random numbers."""
    difference_error: float
    deviation: float
    """The mean over events of gradient minus difference."""
    deviation_error: float
    """Its standard error."""

    @property
    def pull(self) -> float:
        """The deviation in standard errors."""
        return self.deviation / self.deviation_error if self.deviation_error else 0.0

    @property
    def relative_error(self) -> float:
        """Standard error of the comparison over the size of the derivative."""
        return self.deviation_error / abs(self.difference or np.nan)


def check_fixed(
    pipeline: Pipeline,
    events: Event,
    *,
    analysis: Analysis,
    key: PRNGKeyArray,
) -> list[FixedRow]:
    """The pathwise derivative of log(uncertainty), all discrete outcomes held fixed.

    Args:
        pipeline: The pipeline.
        events: A batch of events.
        analysis: How the events are turned into a measurement.
        key: Random key.

    Returns:
        One row per parameter of `PROBES`.
    """
    single = without_replicas(pipeline)
    record = eqx.filter_jit(run)(
        with_estimator(single, Detached()),
        events,
        keep=("detected", "history"),
        key=key,
    )
    recorded = events.replace(detected=record.detected, history=record.history)
    fixed = with_estimator(
        without_replicas(pipeline, inputs=("detected", "history")), Recorded()
    )

    @eqx.filter_jit
    def objective(pipeline: Pipeline) -> Float[Array, ""]:
        out = run(pipeline, recorded, keep=KEEP, key=key)
        return jnp.log(sample_uncertainty(Sample.from_events(out), analysis))

    gradient = eqx.filter_jit(eqx.filter_grad(objective))(fixed)
    rows = []
    for name, probe in PROBES.items():
        # Five points: the error of the stencil is of fourth order in the step.
        step = probe.step / 100
        near, far = (
            objective(probe.shift(fixed, n * step))
            - objective(probe.shift(fixed, -n * step))
            for n in (1, 2)
        )
        rows.append(
            FixedRow(
                name,
                probe.kind,
                probe.unit,
                float(probe.read(fixed)),
                float(probe.read_gradient(gradient)),
                float((8 * near - far) / (12 * step)),
            )
        )
    return rows


class Linearised(NamedTuple):
    """The uncertainty as a sum over events, to first order around a sample.

    The logarithm of the uncertainty is a nonlinear function of averages, whose estimate
    is biased by one over the number of events, differently for a derivative and for a
    finite difference. Its derivative is exactly that of this sum.
    """

    slope: BinnedModel
    """d log(uncertainty) / d(template)."""
    baseline: Float[Array, " processes"]
    """Mean contribution of an event of each process."""


def linearise(
    pipeline: Pipeline,
    events: Event,
    *,
    analysis: Analysis,
    mesh: Mesh | None = None,
    key: PRNGKeyArray,
) -> Linearised:
    """The slope of log(uncertainty) to the templates that a pipeline makes.

    Args:
        pipeline: The pipeline.
        events: A batch of events.
        analysis: How the events are turned into a measurement.
        mesh: Devices to spread the events over.
        key: Random key.

    Returns:
        Slope and baseline.
    """

    @eqx.filter_jit
    def compute(pipeline: Pipeline) -> Linearised:
        out = run(pipeline, events, keep=KEEP, mesh=mesh, key=key)
        model = templates(Sample.from_events(out), analysis)
        slope = eqx.filter_grad(lambda m: jnp.log(expected_uncertainty(m)))(model)
        value, weight, label = jax.vmap(lambda e: _weigh(e, slope, analysis))(out)
        share = jnp.stack([weight * (1 - label), weight * label])
        mean = jnp.sum(share * (value / weight)[None, :], axis=1)
        return Linearised(slope, mean / jnp.sum(share, axis=1))

    return compute(pipeline)


def _weigh(
    event: Event, slope: BinnedModel, analysis: Analysis
) -> tuple[Float[Array, ""], Float[Array, ""], Float[Array, ""]]:
    """What an event with its replicas adds to the sum; its weight; its label."""
    entries = find_contributions(Sample.from_events(event), analysis.bins)
    weight = jnp.exp(entries.log_weight)
    signal = jnp.stack([slope.signal, slope.signal_up, slope.signal_down])
    background = jnp.stack(
        [slope.background, slope.background_up, slope.background_down]
    )
    label = entries.label[:, None, None]
    slopes = label * signal[None] + (1 - label) * background[None]
    value = jnp.sum(weight[:, None, None] * entries.shares * slopes)
    return value, jnp.sum(weight), entries.label[0]


def _centred(event: Event, linear: Linearised, analysis: Analysis) -> Float[Array, ""]:
    # Yields are normalised: what every event of a process has in common has no effect.
    value, weight, label = _weigh(event, linear.slope, analysis)
    baseline = linear.baseline[0] * (1 - label) + linear.baseline[1] * label
    return value - weight * baseline


def check_free(
    pipeline: Pipeline,
    events: Event,
    *,
    names: tuple[str, ...] = tuple(PROBES),
    analysis: Analysis,
    mesh: Mesh | None = None,
    key: PRNGKeyArray,
) -> list[FreeRow]:
    """The full derivative of the expectation of log(uncertainty), with its errors.

    Args:
        pipeline: The pipeline, with its estimators.
        events: A batch of events.
        names: Which of `PROBES` to check.
        analysis: How the events are turned into a measurement.
        mesh: Devices to spread the events over.
        key: Random key.

    Returns:
        One row per parameter.
    """
    pilot, key = jax.random.split(key)
    linear = linearise(pipeline, events, analysis=analysis, mesh=mesh, key=pilot)

    def value(pipeline: Pipeline, event: Event, key: PRNGKeyArray) -> Float[Array, ""]:
        return _centred(pipeline(event, key=key), linear, analysis)

    def slopes(
        pipeline: Pipeline, event: Event, key: PRNGKeyArray
    ) -> Float[Array, " probes"]:
        gradient = eqx.filter_grad(value)(pipeline, event, key)
        return jnp.stack([PROBES[name].read_gradient(gradient) for name in names])

    @eqx.filter_jit
    def values(pipeline: Pipeline) -> Float[Array, " events"]:
        return map_events(value, pipeline, events, mesh=mesh, key=key)

    gradients = np.asarray(
        eqx.filter_jit(map_events)(slopes, pipeline, events, mesh=mesh, key=key)
    )
    rows = []
    for column, name in enumerate(names):
        probe = PROBES[name]
        up = np.asarray(values(probe.shift(pipeline, probe.step)))
        down = np.asarray(values(probe.shift(pipeline, -probe.step)))
        difference = (up - down) / (2 * probe.step)
        gradient = gradients[:, column]
        rows.append(
            FreeRow(
                name,
                probe.kind,
                probe.unit,
                float(probe.read(pipeline)),
                *_total(gradient),
                *_total(difference),
                *_total(gradient - difference),
            )
        )
    return rows


def _total(values: np.ndarray) -> tuple[float, float]:
    """Sum over independent events, and its standard error."""
    return float(values.sum()), float(values.std() * np.sqrt(len(values)))
