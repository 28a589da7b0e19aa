"""The main job: events, training of everything, measurement, report."""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, PRNGKeyArray
from rich.console import Console
from rich.table import Table

from ..event import Event, explain_status
from ..generator import Dataset, generate_events, load_events, split_halves
from ..geometry import detector_price
from ..inference import Analysis, Comparison, Contributions, SoftBins, compare
from ..pipeline import Pipeline
from ._batches import deal
from ._check import FixedRow, FreeRow
from ._config import DemoConfig
from ._everything import full_loss, train_everything
from ._kept import hash_code, kept
from ._measure import hard_bins, measure, measure_hard
from ._networks import train_networks
from ._pipeline import build_pipeline
from ._runtime import cache_folder, device_mesh, replicate
from ._table import compare_gradient
from ._tunables import barrel_of


HARD = "hard cuts"

# Pairs from which a standard error is known to about an eighth.
_MANY_PAIRS = 30

_Pair = tuple[Contributions, Contributions]


class Setting(NamedTuple):
    """What every step of a command needs."""

    config: DemoConfig
    folder: Path
    """Where results that belong to this configuration are kept."""
    train: Dataset
    held_out: Dataset
    mesh: Mesh
    console: Console
    fingerprint: str


class Outcome(NamedTuple):
    """What the main job found."""

    before: Pipeline
    after: Pipeline
    analysis: Analysis
    network_losses: np.ndarray
    losses: np.ndarray
    trajectory: list[dict[str, Any]]
    comparisons: dict[str, Comparison]
    """By name of the evaluation."""
    contributions: dict[str, _Pair]
    """The same evaluations' entries, before and after."""
    rows: list[FreeRow]
    """The gradient before the second training, beside finite differences."""


def load(
    config: DemoConfig, *, cache: Path | None, console: Console
) -> tuple[Path, str, Dataset]:
    """Events, generated or from the cache, with their yields printed.

    Args:
        config: The configuration.
        cache: The cache folder, or None for the default.
        console: Where to print.

    Returns:
        The cache folder, the name of the data set, and the events.
    """
    root = cache_folder(cache)
    source = generate_events(cache=root)
    dataset = load_events(
        source, capacity=config.capacity, luminosity_fb=config.luminosity
    )
    console.print(dataset.describe(), highlight=False, soft_wrap=True)
    for sentence, number in explain_status(dataset.events.status).items():
        console.print(f"Note: in {number} events {sentence}.")
    return root, source.name, dataset


def prepare(config: DemoConfig, *, cache: Path | None, console: Console) -> Setting:
    """Events, generated or from the cache, and where to keep the results.

    Args:
        config: The configuration.
        cache: The cache folder, or None for the default.
        console: Where to print.

    Returns:
        The setting of a command.
    """
    root, source, dataset = load(config, cache=cache, console=console)
    mesh = device_mesh()
    halves = split_halves(dataset, multiple=mesh.size)
    train, held_out = (
        eqx.tree_at(lambda d: d.events, half, deal(half.events)) for half in halves
    )
    facts = [source, hash_code(), mesh.size, dataclasses.asdict(config)]
    fingerprint = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:12]
    folder = root / f"demo-{fingerprint}"
    folder.mkdir(parents=True, exist_ok=True)
    return Setting(config, folder, train, held_out, mesh, console, fingerprint)


def make_analysis(dataset: Dataset, config: DemoConfig) -> Analysis:
    """How the events of a data set are turned into a measurement.

    Args:
        dataset: The events, whose weights give the yields.
        config: The configuration.

    Returns:
        The analysis.
    """
    yields = jnp.asarray([part.sum() for part in _weights(dataset)])
    # In log(p1 / p0): the background is a thousand times the signal, so that the bins
    # that decide lie far up.
    bins = SoftBins.uniform(config.num_bins, low=-2.0, high=6.0)
    one_event = yields[0] / effective_number(dataset)[0]
    return Analysis(bins, yields=yields, least_background=one_event)


def effective_number(dataset: Dataset) -> Float[Array, " 2"]:
    """How many events of equal weight are worth as much as those of a data set.

    Args:
        dataset: The events.

    Returns:
        (sum w)^2 / sum w^2 of background and of signal.
    """
    parts = _weights(dataset)
    return jnp.asarray([part.sum() ** 2 / (part**2).sum() for part in parts])


def _weights(dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    weight = np.exp(np.asarray(dataset.events.log_weight))
    signal = np.asarray(dataset.events.label) > 0.5
    return weight[~signal], weight[signal]


def solve(setting: Setting) -> Outcome:
    """Train, measure, compare.

    Args:
        setting: Events and configuration.

    Returns:
        Everything that the report shows.
    """
    config, mesh, console = setting.config, setting.mesh, setting.console
    keys = list(jax.random.split(jax.random.key(config.seed), 7))
    start = replicate(
        build_pipeline(replicas=config.replicas, num_jets=config.num_jets, key=keys[0]),
        mesh,
    )
    console.print(start.describe(), highlight=False, soft_wrap=True)
    analysis = make_analysis(setting.train, config)
    before, network_result = train_networks(
        start,
        setting.train.events,
        config,
        mesh=mesh,
        checkpoint=setting.folder / "networks.ckpt",
        fingerprint=setting.fingerprint,
        key=keys[1],
    )
    loss = full_loss(
        before, setting.train.events, analysis, config, mesh=mesh, key=keys[6]
    )
    after, result, trajectory = train_everything(
        loss,
        before,
        config,
        checkpoint=setting.folder / "everything.ckpt",
        fingerprint=setting.fingerprint,
        key=keys[2],
    )
    pairs = kept(
        setting.folder / "measurement.pickle",
        lambda: _evaluate(setting, before, after, analysis, key=keys[3]),
    )
    comparisons = _compare(pairs, analysis, setting.held_out, key=keys[4])
    rows = kept(
        setting.folder / "gradient.pickle",
        lambda: compare_gradient(
            loss,
            before,
            num_batches=config.check_batches,
            draws=1,
            mesh=mesh,
            key=keys[5],
        ),
    )
    return Outcome(
        before,
        after,
        analysis,
        network_result.losses,
        result.losses,
        trajectory,
        comparisons,
        pairs,
        rows,
    )


def _compare(
    pairs: dict[str, _Pair],
    analysis: Analysis,
    dataset: Dataset,
    *,
    key: PRNGKeyArray,
) -> dict[str, Comparison]:
    cut = dataclasses.replace(analysis, bins=hard_bins(analysis))
    number = effective_number(dataset)
    analyses = {name: cut if name.endswith(HARD) else analysis for name in pairs}
    comparisons = {
        name: compare(*pair, analyses[name], num_draws=400, key=key)
        for name, pair in pairs.items()
    }
    # What these few simulated events support: their own statistical error counted in.
    real = dataclasses.replace(cut, num_simulated=number, least_background=None)
    pair = pairs[f"held-out half, {HARD}"]
    name = f"held-out half, {HARD}, with the simulation's error as a nuisance"
    return comparisons | {name: compare(*pair, real, num_draws=400, key=key)}


def _evaluate(
    setting: Setting,
    before: Pipeline,
    after: Pipeline,
    analysis: Analysis,
    *,
    key: PRNGKeyArray,
) -> dict[str, _Pair]:
    mesh, draws = setting.mesh, setting.config.measure_draws
    held_out = setting.held_out.events

    def soft(name: str, events: Event, draws: int) -> _Pair:
        def one(pipeline: Pipeline, when: str) -> Contributions:
            return measure(
                pipeline,
                events,
                analysis,
                draws=draws,
                mesh=mesh,
                description=f"measuring the {name}, {when}",
                key=key,
            )

        return one(before, "before"), one(after, "after")

    def hard(pipeline: Pipeline, when: str) -> Contributions:
        return measure_hard(
            pipeline,
            held_out,
            analysis,
            mesh=mesh,
            description=f"measuring the held-out half, {when}, hard",
            key=key,
        )

    return {
        "training half, soft": soft("training half", setting.train.events, 1),
        "held-out half, soft": soft("held-out half", held_out, draws),
        f"held-out half, {HARD}": (hard(before, "before"), hard(after, "after")),
    }


def verdict(comparison: Comparison) -> str:
    """One sentence that says whether the optimisation helped.

    Args:
        comparison: Before and after, on the same events.

    Returns:
        The sentence, with its numbers.
    """
    before, after = float(comparison.before), float(comparison.after)
    change, error = float(comparison.difference), float(comparison.difference_error)
    pull = change / error
    numbers = (
        f"{before:.4f} +- {float(comparison.before_error):.4f} before, {after:.4f} +- "
        f"{float(comparison.after_error):.4f} after; change {change:+.4f} +- "
        f"{error:.4f} ({pull:+.1f} standard errors of the simulation)"
    )
    if pull <= -5:
        return f"The optimisation improved the uncertainty: {numbers}."
    if pull <= -3:
        return f"There is evidence that the optimisation helped: {numbers}."
    if pull < 3:
        return f"The optimisation made no significant difference: {numbers}."
    return f"The optimisation made the uncertainty worse: {numbers}."


def print_outcome(console: Console, outcome: Outcome) -> None:
    """The result in a few lines.

    Args:
        console: Where to print.
        outcome: What was found.
    """
    prices = [
        float(detector_price(barrel_of(p))) for p in (outcome.before, outcome.after)
    ]
    console.print("Expected uncertainty on the signal strength mu:")
    for name, comparison in outcome.comparisons.items():
        console.print(
            f"  {name}: {verdict(comparison)}", highlight=False, soft_wrap=True
        )
    console.print(
        f"Price of the detector: {prices[0]:.1f} before, {prices[1]:.1f} after "
        "(units of one square metre of plain silicon).",
        highlight=False,
    )
    print_free(console, outcome.rows)


def print_fixed(console: Console, rows: Sequence[FixedRow]) -> None:
    """The gradient with all outcomes held fixed, beside its oracle.

    Args:
        console: Where to print.
        rows: One per parameter.
    """
    table = Table(title="d log sigma(mu) / d parameter, all outcomes held fixed")
    for name in ("parameter", "value", "gradient", "finite differences", "relative"):
        table.add_column(name, justify="left" if name == "parameter" else "right")
    for row in rows:
        table.add_row(
            row.name,
            f"{row.value:.4g} {row.unit}",
            f"{row.gradient:+.8e}",
            f"{row.difference:+.8e}",
            f"{row.deviation:.1e}",
        )
    console.print(table)


def print_free(console: Console, rows: Sequence[FreeRow]) -> None:
    """The gradient with the choices free, beside its oracle.

    Args:
        console: Where to print.
        rows: One per parameter.
    """
    table = Table(title="d log sigma(mu) / d parameter, choices free (score function)")
    names = ["parameter", "value", "gradient", "finite differences", "difference"]
    names.append("in s.e.")
    # From a few batches neither of these would be better than a guess.
    precise = all(row.pairs >= _MANY_PAIRS for row in rows)
    if precise:
        names += ["s.e. / derivative", "events for 10 %"]
    for name in names:
        table.add_column(name, justify="left" if name == "parameter" else "right")
    for row in rows:
        effort = (f"{100 * row.relative_error:.0f} %", f"{row.times_for_tenth:.3g} x")
        table.add_row(
            row.name,
            f"{row.value:.4g} {row.unit}",
            f"{row.gradient:+.4g} +- {row.gradient_error:.1g}",
            f"{row.difference:+.4g} +- {row.difference_error:.1g}",
            f"{row.deviation:+.2g} +- {row.deviation_error:.1g}",
            f"{row.pull:+.1f}",
            *(effort if precise else ()),
        )
    console.print(table)
