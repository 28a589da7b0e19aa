"""The end-to-end gradient against finite differences, in two parts.

With every discrete outcome held fixed the pipeline is smooth, and the two agree to many
digits. With the choices free the derivative of the expectation is a random number; it
is compared with finite differences under common random numbers, event by event.
"""

import functools
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import betainc, ndtri
from jax.sharding import Mesh
from jaxtyping import Array, Float, PRNGKeyArray

from ..estimators import Detached, Recorded
from ..event import Event
from ..inference import (
    Analysis,
    BinnedModel,
    Contributions,
    expected_uncertainty,
    fill_templates,
    find_contributions,
    sample_uncertainty,
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
    """Gradient minus difference, from pairs that share their random numbers."""
    deviation_error: float
    """Its standard error."""
    pairs: int
    """The number of pairs that the standard errors come from."""

    @property
    def pull(self) -> float:
        """The deviation in standard errors, as far out as for a normal distribution.

        A standard error from few pairs is itself uncertain: by Student's t, 12 of them
        from two pairs are no more than 1.9.
        """
        if not self.deviation_error:
            return 0.0
        squared = (self.deviation / self.deviation_error) ** 2
        freedom = self.pairs - 1.0
        # The probability of a larger one. The library has no quantile of t.
        outside = betainc(freedom / 2, 0.5, freedom / (freedom + squared))
        return float(np.copysign(-ndtri(outside / 2), self.deviation))

    @property
    def relative_error(self) -> float:
        """Standard error of the comparison over the size of the derivative."""
        return self.deviation_error / abs(self.difference or np.nan)

    @property
    def times_for_tenth(self) -> float:
        """How many times the events a relative error of 10 % would need."""
        return (self.relative_error / 0.1) ** 2


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

    def objective(pipeline: Pipeline) -> Float[Array, ""]:
        out = run(pipeline, recorded, keep=KEEP, key=key)
        return jnp.log(sample_uncertainty(Sample.from_events(out), analysis))

    # The differences come from the same program: another would take as long to compile
    # as all of them take to run.
    both = eqx.filter_jit(eqx.filter_value_and_grad(objective))
    _, gradient = both(fixed)
    rows = []
    for name, probe in PROBES.items():
        # Five points: the error of the stencil is of fourth order in the step.
        step = probe.step / 100
        near, far = (
            both(probe.shift(fixed, n * step))[0]
            - both(probe.shift(fixed, -n * step))[0]
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


class Counts(NamedTuple):
    """What an event, with its replicas, adds to the templates of its process."""

    entries: Float[Array, "*events variations bins"]
    weight: Float[Array, "*events"]
    label: Float[Array, "*events"]


def count(event: Event, analysis: Analysis) -> Counts:
    """What an event adds to the templates.

    Args:
        event: One event that went through the pipeline, replicas and all.
        analysis: How it is turned into a measurement.

    Returns:
        Its counts.
    """
    found = find_contributions(Sample.from_events(event), analysis.bins)
    weight = jnp.exp(found.log_weight)
    entries = jnp.sum(weight[:, None, None] * found.shares, axis=0)
    return Counts(entries, jnp.sum(weight), found.label[0])


def linearise(counts: Counts, analysis: Analysis) -> Linearised:
    """The slope of log(uncertainty) to the templates of a sample.

    Args:
        counts: What each event adds.
        analysis: Uncertainty of the normalisation, and yields.

    Returns:
        Slope and baseline.
    """
    shares = jnp.where(counts.weight > 0, 1 / counts.weight, 0.0)
    sample = Contributions(
        counts.entries * shares[:, None, None],
        jnp.log(counts.weight),
        counts.label,
        jnp.arange(counts.label.shape[0]),
    )
    model = fill_templates(sample, analysis)
    slope = eqx.filter_grad(lambda m: jnp.log(expected_uncertainty(m)))(model)
    value = jax.vmap(lambda c: _sum(c, slope))(counts)
    label = counts.label
    share = jnp.stack([1 - label, label])
    total = jnp.sum(share * counts.weight[None, :], axis=1)
    return Linearised(slope, jnp.sum(share * value[None, :], axis=1) / total)


def _sum(counts: Counts, slope: BinnedModel) -> Float[Array, ""]:
    signal = jnp.stack([slope.signal, slope.signal_up, slope.signal_down])
    background = jnp.stack(
        [slope.background, slope.background_up, slope.background_down]
    )
    label = counts.label
    return jnp.sum(counts.entries * (label * signal + (1 - label) * background))


def _centred(counts: Counts, linear: Linearised) -> Float[Array, ""]:
    # Yields are normalised: what every event of a process has in common has no effect.
    label = counts.label
    baseline = linear.baseline[0] * (1 - label) + linear.baseline[1] * label
    return _sum(counts, linear.slope) - counts.weight * baseline


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

    def counts_of(pipeline: Pipeline, event: Event, key: PRNGKeyArray) -> Counts:
        return count(pipeline(event, key=key), analysis)

    spread = eqx.filter_jit(functools.partial(map_events, mesh=mesh))

    # From other random numbers, so that it is independent of what it is applied to.
    pilot, key = jax.random.split(key)
    linear = linearise(spread(counts_of, pipeline, events, key=pilot), analysis)

    def slopes(
        parameters: tuple[Pipeline, Linearised], event: Event, key: PRNGKeyArray
    ) -> Float[Array, " probes"]:
        pipeline, linear = parameters

        def value(pipeline: Pipeline) -> Float[Array, ""]:
            return _centred(counts_of(pipeline, event, key), linear)

        gradient = eqx.filter_grad(value)(pipeline)
        return jnp.stack([PROBES[name].read_gradient(gradient) for name in names])

    def values(pipeline: Pipeline) -> np.ndarray:
        counts = spread(counts_of, pipeline, events, key=key)
        return np.asarray(jax.vmap(lambda c: _centred(c, linear))(counts))

    both = (pipeline, linear)
    gradients = np.asarray(spread(slopes, both, events, key=key))
    rows = []
    for column, name in enumerate(names):
        probe = PROBES[name]
        up = values(probe.shift(pipeline, probe.step))
        down = values(probe.shift(pipeline, -probe.step))
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
                len(gradient),
            )
        )
    return rows


def _total(values: np.ndarray) -> tuple[float, float]:
    """Sum over independent events, and its standard error."""
    return float(values.sum()), float(values.std() * np.sqrt(len(values)))
