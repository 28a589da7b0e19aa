"""A signal that interferes: |sqrt(mu) A_S + A_B|^2 with learnt density ratios.

A resonance over an exchange in mass and angle, with an exact density
(`_interference_model`), about 840 events an experiment. Networks learn density ratios
from positive samples at three strengths, and how these change with the scale of the
mass, the nuisance parameter; `Interference` and `UnbinnedLikelihood` make of them the
likelihood at any strength. On the same toys the 68 % interval (deviance of one) of the
exact and of the learnt unbinned likelihood, and of binned ones: in the mass, in the
cosine, in the learnt score at mu = 1, and in mass and cosine together, each tuned in
twelve choices of up to 64 bins; beyond that budget 256 bins of both. Reported: median
width, coverage and bias. Null test: the mass only, without interference, where all must
tie.

Each seed is a simulation, training, tuning and toys of its own, and a file in
`recorded/interference`. Settings and bars were committed before the first run of the
seeds; seeds 50 and above were tried before.
"""

import argparse
from functools import partial
from typing import Any

import jax
import numpy as np

from ._harness import QUICK, Row, record_folder, report, stored
from ._interference_far import far
from ._interference_figures import draw
from ._interference_parts import parts
from ._interference_run import POINTS, run


SEEDS = 1 if QUICK else 5
SETTINGS = {
    "events": 100_000 if QUICK else 1_000_000,
    "trial events": 50_000 if QUICK else 250_000,
    "template events": 50_000 if QUICK else 250_000,
    "test events": 20_000 if QUICK else 100_000,
    "members": 1 if QUICK else 3,
    "width": 32,
    "steps": 1000 if QUICK else 6000,
    "variation steps": 500 if QUICK else 4000,
    "batch": 1000,
    "rate": 1e-2,
    "toys": 50 if QUICK else 500,
}
METHODS = (
    "exact",
    "learnt, unbinned",
    "1-D, m",
    "1-D, cos",
    "1-D, learnt score",
    "2-D",
    "2-D, 256 bins",
)
NOMINAL = 0.6827
# Bars, of the worst seed: means over the reference, less one; root mean square of the
# learnt less the exact logarithm at mu = 2; chi-squared for each bin of features and of
# the calibration; the share of the interference that has the wrong sign.
CLOSURE = {"mean": 0.01, "deviation": 0.05, "chi2": 2.0, "wrong sign": 0.02}
if QUICK:
    CLOSURE = {"mean": 0.02, "deviation": 0.15, "chi2": 3.0, "wrong sign": 0.1}
# Of all seeds together: how far coverage may be from nominal (its binomial error is
# 0.009); how much wider than exact the learnt likelihood's interval may be, and how far
# its estimates from the exact one's, in standard deviations; how far from one ratios of
# widths may be in the null test.
COVERAGE, WIDER, APART, TIE = 0.035, 1.03, 0.15, 0.015
if QUICK:
    COVERAGE, WIDER, APART, TIE = 0.26, 1.15, 0.5, 0.05
JUDGED = ("exact", "learnt, unbinned")


def _closure_rows(runs: list[dict[str, Any]]) -> list[Row]:
    found = [run["closure"] for run in runs]
    means = [abs(x - 1) for one in found for x, _ in one["normalisation"]]
    rows = [
        Row("mean ratio of samples, less one", max(means), bar=CLOSURE["mean"]),
        Row(
            "mean ratio at mu = 2, less one",
            max(abs(one["normalisation at 2"][0] - 1) for one in found),
            bar=CLOSURE["mean"],
        ),
        Row("its error", max(one["normalisation at 2"][1] for one in found)),
        Row("ratio not positive", max(1 - one["positive"] for one in found)),
    ]
    for name, bar in (
        ("deviation", CLOSURE["deviation"]),
        ("deviation of alpha", CLOSURE["deviation"]),
    ):
        rows.append(Row(f"rms {name}", max(one[name] for one in found), bar=bar))
    for name in ("closure", "closure of alpha"):
        for feature in found[0][name]:
            worst = max(one[name][feature] for one in found)
            rows.append(
                Row(f"{name}, {feature}, chi2 a bin", worst, bar=CLOSURE["chi2"])
            )
    calibration = [one["calibration"] for one in found]
    return [
        *rows,
        Row(
            "calibration, chi2 a bin",
            max(x["chi2"] for x in calibration),
            bar=CLOSURE["chi2"],
        ),
        Row("calibration, largest difference", max(x["largest"] for x in calibration)),
        Row(
            "interference with the wrong sign",
            max(1 - one["signs"]["right"] for one in found),
            bar=CLOSURE["wrong sign"],
        ),
        Row("effective size", float(np.mean([x["effective size"] for x in found]))),
    ]


def _pooled(runs: list[dict[str, Any]], point: str, method: str) -> dict[str, float]:
    """Means of seeds, which have as many toys each, with errors."""
    parts = [run["points"][point][method] for run in runs]
    number = len(parts)
    found = {k: float(np.mean([x[k] for x in parts])) for k in parts[0]}
    found["failed"] *= number
    toys = number * runs[0]["settings"]["toys"]
    for name in ("ratio", "difference"):
        between = np.std([x[name] for x in parts], ddof=1) if number > 1 else 0.0
        inside = np.sqrt(np.mean([x[f"{name} error"] ** 2 for x in parts]))
        found[f"{name} error"] = float(max(between, inside) / np.sqrt(number))
    share = found["coverage"]
    found["coverage error"] = float(np.sqrt(share * (1 - share) / toys))
    found["mean error"] = found["spread"] / np.sqrt(toys)
    return found


def _point_rows(
    point: str, truth: float, pooled: dict[str, dict[str, float]]
) -> list[Row]:
    rows = []
    exact = pooled["exact"]["width"]
    for method, x in pooled.items():
        label = f"{point}: {method}"
        judged = method in JUDGED or point == "null"
        learnt = method == "learnt, unbinned" and point != "null"
        off = abs(x["coverage"] - NOMINAL)
        rows += [
            Row(f"{label}: width", x["width"], exact, WIDER if learnt else None),
            Row("  error of the ratio", x["ratio error"]),
            Row("  coverage", x["coverage"]),
            Row("  its error", x["coverage error"]),
            Row(
                f"{label}: coverage off nominal", off, bar=COVERAGE if judged else None
            ),
            Row("  bias", x["mean"] - truth),
            Row("  its error", x["mean error"]),
            Row("  fits that failed", x["failed"]),
        ]
        apart = abs(x["difference"]) / x["spread"]
        if method == "learnt, unbinned":
            rows.append(Row(f"{label}: apart from exact, sigma", apart, bar=APART))
        if point == "null" and method != "exact":
            rows.append(Row(f"{label}: width off exact", abs(x["ratio"] - 1), bar=TIE))
    return rows


def main() -> int:
    """Run the seeds that have not been run, and report all."""
    parser = argparse.ArgumentParser(description=__doc__)
    message = "only print what TOYS toys give at other true alpha, without networks"
    parser.add_argument("--far", metavar="TOYS", type=int, help=message)
    message = "only train one seed and print which part moves estimates of TOYS toys"
    parser.add_argument("--parts", metavar="TOYS", type=int, help=message)
    parser.add_argument("--seed", type=int, default=0, help="of --parts")
    arguments = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    if arguments.far:
        far(arguments.far)
        return 0
    if arguments.parts:
        parts(arguments.seed, SETTINGS, arguments.parts)
        return 0
    runs = [
        stored("interference", seed, SETTINGS, partial(run, seed, SETTINGS))
        for seed in range(SEEDS)
    ]
    rows = _closure_rows(runs)
    worst = max(run["shown"]["inaccuracy"] for run in runs)
    rows.append(Row("ends of intervals, from profile_interval", worst, bar=1e-6))
    found = {}
    for point in runs[0]["points"]:
        methods = [m for m in METHODS if m in runs[0]["points"][point]]
        found[point] = {m: _pooled(runs, point, m) for m in methods}
        truth = POINTS[point][0] if point in POINTS else 1.0
        rows += _point_rows(point, truth, found[point])
    draw(record_folder("interference"), runs[0]["shown"])
    return report("interference", rows, seeds=SEEDS, settings=SETTINGS, found=found)


if __name__ == "__main__":
    raise SystemExit(main())
