"""The commands of the command line."""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray
from rich.console import Console

from ..event import Event
from ..generator import thin_strata
from ..inference import Analysis
from ..pipeline import Pipeline
from ._batches import draw_batch
from ._check import FixedRow, FreeRow, check_fixed, check_free
from ._config import DemoConfig
from ._demo import (
    Setting,
    load,
    make_analysis,
    prepare,
    print_fixed,
    print_free,
    print_outcome,
    solve,
)
from ._everything import full_loss
from ._networks import train_networks
from ._pipeline import build_pipeline
from ._probes import PROBES
from ._runtime import replicate


def generate_command(config: DemoConfig, *, cache: Path | None) -> int:
    """Generate the events and print their expected yields.

    Args:
        config: The configuration.
        cache: The cache folder, or None for the default.

    Returns:
        The exit status.
    """
    load(config, cache=cache, console=_console())
    return 0


def demo_command(config: DemoConfig, *, cache: Path | None, output: Path) -> int:
    """Events to uncertainty, optimised as one; a report.

    Args:
        config: The configuration.
        cache: The cache folder, or None for the default.
        output: Folder of the report.

    Returns:
        The exit status.
    """
    # Before the work: an output that cannot be written must not cost ten minutes.
    output.mkdir(parents=True, exist_ok=True)
    from ._report import report  # noqa: PLC0415 - needs the extra `plot`

    console = _console()
    setting = prepare(config, cache=cache, console=console)
    outcome = solve(setting)
    print_outcome(console, outcome)
    with console.status("drawing the report"):
        page = report(setting, outcome, output)
    console.print(f"\nReport: {page.resolve()}", highlight=False, soft_wrap=True)
    return 0


def check_gradient_command(
    config: DemoConfig,
    *,
    cache: Path | None,
    num_events: int,
    names: Sequence[str] | None = None,
    output: Path | None,
) -> int:
    """The end-to-end gradient against finite differences.

    Args:
        config: The configuration.
        cache: The cache folder, or None for the default.
        num_events: Events of the part with the choices free.
        names: The parameters that take part in it; all unless given.
        output: JSON file to write the table to.

    Returns:
        The exit status: 1 if a row disagrees.
    """
    if num_events < 8:
        raise ValueError(f"`--events` is {num_events}; give at least 8.")
    for name in names or ():
        if name not in PROBES:
            raise ValueError(
                f"`--parameters` has {name!r}; there are: {', '.join(PROBES)}."
            )
    console = _console()
    setting = prepare(config, cache=cache, console=console)
    keys = list(jax.random.split(jax.random.key(config.seed), 4))
    analysis = make_analysis(setting.train, config)
    pipeline, _ = train_networks(
        replicate(
            build_pipeline(
                replicas=config.replicas, num_jets=config.num_jets, key=keys[0]
            ),
            setting.mesh,
        ),
        setting.train.events,
        config,
        mesh=setting.mesh,
        checkpoint=setting.folder / "check-networks.ckpt",
        fingerprint=setting.fingerprint,
        key=keys[1],
    )
    size = setting.mesh.size
    few = thin_strata(setting.train, num_events=16, multiple=size).events
    many = _preferred(setting, pipeline, analysis, num_events, key=keys[3])
    with console.status("outcomes held fixed"):
        fixed = check_fixed(pipeline, few, analysis=analysis, key=keys[2])
    with console.status("choices free"):
        free = check_free(
            pipeline,
            many,
            names=tuple(names or PROBES),
            analysis=analysis,
            mesh=setting.mesh,
            key=keys[3],
        )
    print_fixed(console, fixed)
    print_free(console, free)
    wrong = disagreements(fixed, free)
    if output is not None:
        _write_json(output, fixed, free)
    for sentence in wrong:
        console.print(f"FAILED: {sentence}", highlight=False)
    console.print("The gradient disagrees." if wrong else "The gradient agrees.")
    return 1 if wrong else 0


def _preferred(
    setting: Setting,
    pipeline: Pipeline,
    analysis: Analysis,
    num_events: int,
    *,
    key: PRNGKeyArray,
) -> Event:
    # Those that decide, as in the training. One drawn twice is simulated twice.
    sample = full_loss(
        pipeline,
        setting.train.events,
        analysis,
        setting.config,
        mesh=setting.mesh,
        key=key,
    )
    half = -(-num_events // (2 * setting.mesh.size)) * setting.mesh.size
    events = draw_batch(sample.events, sample.preference, num_each=half, key=key)
    return eqx.tree_at(
        lambda e: e.index, events, jnp.arange(2 * half, dtype=events.index.dtype)
    )


def disagreements(fixed: list[FixedRow], free: list[FreeRow]) -> list[str]:
    """What fails of the gradient check, one sentence each.

    Args:
        fixed: Rows with all outcomes held fixed, to agree to 1e-5.
        free: Rows with the choices free, to agree within four standard errors.

    Returns:
        Sentences; none if all agree.
    """
    sentences = [
        f"{row.name}, outcomes fixed: {row.gradient:.8g} by reverse mode, "
        f"{row.difference:.8g} by finite differences, relative difference "
        f"{row.deviation:.1e} above 1e-5."
        for row in fixed
        if not row.deviation < 1e-5
    ]
    sentences += [
        f"{row.name}, choices free: {row.gradient:.4g} by reverse mode, "
        f"{row.difference:.4g} by finite differences, {row.pull:+.1f} standard errors."
        for row in free
        if not abs(row.pull) < 4
    ]
    return sentences


def _write_json(path: Path, fixed: list[FixedRow], free: list[FreeRow]) -> None:
    table = {
        "fixed": [row._asdict() | {"deviation": row.deviation} for row in fixed],
        "free": [row._asdict() | {"pull": row.pull} for row in free],
    }
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def _console() -> Console:
    # In a file or a log a table is as wide as it needs to be.
    return Console(width=None if sys.stdout.isatty() else 160)
