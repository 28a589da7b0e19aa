"""The report of the main job: figures and tables in one HTML file."""

import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..event import Event
from ..geometry import price_items
from ..inference import Analysis, Contributions, SoftBins, fill_templates
from ..pipeline import Pipeline
from ..plotting import (
    VERTEX_PULLS,
    GradientRow,
    RatioTemplates,
    event_display,
    gradient_table,
    loss_curve,
    parameter_trajectories,
    pull_plot,
    ratio_histogram,
    resolution_plot,
    sigma_comparison,
    write_report,
)
from ._batches import take
from ._check import FreeRow
from ._demo import Outcome, Setting, verdict
from ._forward import CHUNK, EVERYTHING, reconstruct
from ._probes import stage
from ._resolution import track_truth
from ._tunables import barrel_of


_HEADLINE = "held-out half, hard cuts"


def report(setting: Setting, outcome: Outcome, output: Path) -> Path:
    """Write the report.

    Args:
        setting: Events and configuration.
        outcome: What was found.
        output: Folder to write it to.

    Returns:
        The HTML file.
    """
    few = take(
        setting.held_out.events, jnp.arange(min(CHUNK, setting.held_out.num_events))
    )
    reconstructed = reconstruct(
        outcome.after,
        few,
        keep=EVERYTHING,
        mesh=setting.mesh,
        key=jax.random.key(setting.config.seed),
    )
    figures = [
        (
            "Event display. A signal event of the held-out half.",
            _display(few, reconstructed, outcome),
        ),
        *_resolutions(reconstructed, outcome.after),
        *_training(outcome),
        *_measurement(outcome),
    ]
    headline = outcome.comparisons[_HEADLINE]
    files = write_report(
        output / "report.html",
        title="One gradient, from collisions to the uncertainty on μ",
        highlights=[
            ("σ(μ) before", f"{float(headline.before):.3f}"),
            ("σ(μ) after", f"{float(headline.after):.3f}"),
            (
                "change, held out, hard cuts",
                f"{float(headline.difference):+.3f} ± "
                f"{float(headline.difference_error):.3f}",
            ),
        ],
        summary=[
            *((name, verdict(c)) for name, c in outcome.comparisons.items()),
            ("Expected events", setting.train.describe()),
            ("Stages", outcome.after.describe()),
        ],
        tables=[
            gradient_table(
                [_free(row) for row in outcome.rows],
                caption="Gradient of log σ(μ) before the optimisation: reverse mode "
                "through everything, beside finite differences under common random "
                "numbers. Errors are of the mean over batches.",
            ),
            _parameters(outcome),
            _price(outcome),
        ],
        figures=figures,
        provenance=_provenance(setting),
    )
    return files[0]


def _display(truth: Event, events: Event, outcome: Outcome) -> Any:
    assert truth.label is not None
    assert events.jets is not None
    # A signal event with two hard jets, so that there is something to see.
    hard = np.asarray(events.jets.momentum)[..., :2]
    second = np.sort(np.nan_to_num(np.hypot(hard[..., 0], hard[..., 1])), axis=1)[:, -2]
    which = int(np.argmax(np.where(np.asarray(truth.label) > 0.5, second, -1)))
    event = jax.tree.map(lambda x: x[which], events)
    radius = float(stage(outcome.after, "ClusterJets").radius)
    return event_display(event, barrel_of(outcome.after), jet_radius=radius)


def _resolutions(events: Event, pipeline: Pipeline) -> list[tuple[str, Any]]:
    truth = np.asarray(track_truth(events, barrel_of(pipeline).field))
    assert events.tracks is not None
    assert events.particles is not None
    assert events.primary_vertex is not None
    assert events.truth_vertex is not None
    mask = np.asarray(events.tracks.mask)
    fitted = np.where(mask[..., None], np.asarray(events.tracks.parameters), truth)
    residual = fitted - truth
    residual[..., 2] = (residual[..., 2] + np.pi) % (2 * np.pi) - np.pi
    variance = np.asarray(events.tracks.covariance)
    sigma = np.sqrt(np.where(mask[..., None], np.einsum("...ii->...i", variance), 1))
    momentum = np.sin(truth[..., 3]) / np.abs(truth[..., 4])
    again = np.sin(fitted[..., 3]) / np.abs(fitted[..., 4])
    vertex = np.asarray(events.primary_vertex.position)[:, 0]
    spread = np.asarray(events.primary_vertex.covariance)[:, 0]
    spread = np.sqrt(np.einsum("...ii->...i", spread))
    pulls = (vertex - np.asarray(events.truth_vertex)) / spread
    return [
        (
            "Track pulls. Fitted minus true parameter over its error.",
            pull_plot(residual / sigma, mask=mask),
        ),
        (
            "Track resolution. Against the true transverse momentum.",
            resolution_plot(
                np.where(mask, momentum, 1.0),
                residual[..., 0],
                np.where(mask, again / momentum - 1, 0.0),
                mask=mask,
            ),
        ),
        (
            "Primary-vertex pulls. Fitted minus true position over its error.",
            pull_plot(
                pulls,
                names=VERTEX_PULLS,
                mask=np.asarray(events.primary_vertex.mask)[:, 0],
            ),
        ),
    ]


def _training(outcome: Outcome) -> list[tuple[str, Any]]:
    rows = outcome.trajectory
    names = [name for name in rows[0]["values"]]
    steps = [row["step"] for row in rows]
    curves = {name: np.asarray([row["values"][name] for row in rows]) for name in names}
    return [
        (
            "Loss of the networks. Cross-entropy by step of the first training.",
            loss_curve(
                {
                    "step": np.arange(len(outcome.network_losses)),
                    "objective": outcome.network_losses,
                }
            ),
        ),
        (
            "Loss of everything. log σ(μ) plus the price, of a random batch each.",
            loss_curve(
                {"step": np.arange(len(outcome.losses)), "objective": outcome.losses}
            ),
        ),
        (
            "Parameters by step. What the second training moved.",
            parameter_trajectories(steps, curves),
        ),
    ]


def _measurement(outcome: Outcome) -> list[tuple[str, Any]]:
    soft = outcome.contributions["held-out half, soft"]
    hard = outcome.contributions["held-out half, hard cuts"]
    panels = {
        name: _templates(soft[i], hard[i], outcome.analysis)
        for i, name in enumerate(("Before", "After"))
    }
    # On one scale: what counts in the simulation's own error is of another size.
    shown = {name: outcome.comparisons[name] for name in outcome.contributions}
    rows = {
        name: (
            (float(c.before), float(c.before_error)),
            (float(c.after), float(c.after_error)),
        )
        for name, c in shown.items()
    }
    return [
        (
            "Expected uncertainty. Before and after the optimisation.",
            sigma_comparison(rows),
        ),
        (
            "Density ratio. Expected events of the held-out half in the bins of the "
            "likelihood.",
            ratio_histogram(panels, label="log density ratio"),
        ),
    ]


def _templates(
    soft: Contributions, hard: Contributions, analysis: Analysis
) -> RatioTemplates:
    bins = analysis.bins
    assert isinstance(bins, SoftBins)
    model = fill_templates(soft, analysis)
    cut = fill_templates(hard, analysis)
    return RatioTemplates(
        edges=np.asarray(bins.edges),
        signal=np.asarray(model.signal),
        backgrounds={"Z + jets": np.asarray(model.background)},
        up=np.asarray(model.background_up),
        down=np.asarray(model.background_down),
        hard_signal=np.asarray(cut.signal),
        hard_background=np.asarray(cut.background),
    )


def _free(row: FreeRow) -> GradientRow:
    return GradientRow(
        row.name,
        row.value,
        row.unit,
        row.gradient,
        row.difference,
        row.gradient_error,
        row.difference_error,
        row.pull,
    )


def _parameters(outcome: Outcome) -> Any:
    first, last = outcome.trajectory[0]["values"], outcome.trajectory[-1]["values"]
    rows = [(name, _numbers(first[name]), _numbers(last[name])) for name in first]
    return (
        "Parameters after the first and after the last step.",
        ("parameter", "first", "last"),
        rows,
    )


def _numbers(value: Any) -> str:
    return ", ".join(f"{x:.4g}" for x in np.atleast_1d(np.asarray(value)))


def _price(outcome: Outcome) -> Any:
    before, after = (price_items(barrel_of(p)) for p in (outcome.before, outcome.after))
    rows = [
        (name, f"{float(before[name]):.2f}", f"{float(after[name]):.2f}")
        for name in before
    ]
    return (
        "Price of the detector, in square metres of plain silicon.",
        ("item", "before", "after"),
        rows,
    )


def _provenance(setting: Setting) -> dict[str, object]:
    packages = ("diffhep", "jax", "equinox", "optax", "optimistix", "pythia8mc")
    return {
        "command": "diffhep demo",
        "configuration": str(setting.config),
        "python": sys.version.split()[0],
        **{name: metadata.version(name) for name in packages},
    }
