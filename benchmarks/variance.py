"""Gradients through clustering: the noise of rival estimators of d E[m_jj] / dR.

100 ZH events, R = 0.5, anti-kt, 16 random histories of each: the standard deviation per
history of the score-function estimator without baseline, with that of the batch, with
leave-one-out baselines within the event, and of finite differences with common random
numbers, which take two histories each and stand here at equal cost. Beside each, how
far its mean is from that of many histories (leave-one-out), in standard errors.
`--figures` draws the table.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from diffhep.estimators import (
    AbstractBaseline,
    BatchMean,
    LeaveOneOut,
    NoBaseline,
    finite_differences,
    score_gradient,
)
from diffhep.jets import (
    AbstractCandidates,
    AllPairs,
    CompiledEngine,
    NearestNeighbours,
    NearestOnly,
    sample_history,
)

from . import _variance_figures as figures
from ._harness import QUICK, RESULTS, Row, report
from ._higgs_jets import dijet_mass, load


RECORDED = RESULTS.parent / "recorded" / "variance"
EVENTS = 20 if QUICK else 100
# The first ones with no more particles: 96 each, on average.
SLOTS = 160
REPLICAS = 16
# Histories in all, for the mean that the others are compared with.
TRUTH = 2_000 if QUICK else 100_000
RADIUS, STEP = 0.5, 0.02
SHARPNESS = (1.0, 10.0) if QUICK else (0.3, 1.0, 3.0, 10.0, 30.0)
CANDIDATES = {
    "all": AllPairs(),
    "nearest": NearestNeighbours(),
    "nearest only": NearestOnly(),
}
BASELINES = {"raw": NoBaseline(), "batch": BatchMean(), "leave-one-out": LeaveOneOut()}
# How many times the raw estimator's standard deviation leave-one-out has to cut.
BARS = {1.0: 6.0, 10.0: 10.0}
# Candidates, sharpness and step of what `--steps` compares.
STEPS = (
    (("nearest only", 1.0, 0.02),)
    if QUICK
    else (
        ("nearest", 30.0, 0.02),
        ("nearest", 30.0, 0.005),
        ("nearest only", 1.0, 0.02),
        ("nearest only", 10.0, 0.01),
        ("nearest only", 30.0, 0.005),
    )
)
# Histories in one call: the memory of all scores to momenta.
_AT_ONCE = 2000


def _one(candidates, sharpness, radius, event, key):
    # Single precision: it is the fluctuations that are measured.
    numbers = {"radius": radius, "power": -1.0, "sharpness": sharpness}
    settings = {name: jnp.asarray(x, jnp.float32) for name, x in numbers.items()}
    history, _, score = sample_history(
        *event,
        **settings,
        candidates=candidates,
        engine=None if isinstance(candidates, AllPairs) else CompiledEngine(),
        key=key,
    )
    mass = dijet_mass(history, *event)
    return mass.astype(float), score.radius.astype(float)


@eqx.filter_jit
def _draw(candidates, sharpness, events, keys):
    def one(event, key):
        return _one(candidates, sharpness, RADIUS, event, key)

    return jax.vmap(jax.vmap(one, (None, 0)))(events, keys)


@eqx.filter_jit
def _difference(candidates, sharpness, events, keys, step):
    def masses(radius, draw):
        event, keys = draw
        return jax.vmap(lambda key: _one(candidates, sharpness, radius, event, key)[0])(
            keys
        )

    point = jnp.asarray(RADIUS)
    return finite_differences(masses, point, (events, keys), step=step)


def _events() -> tuple[jax.Array, jax.Array]:
    momentum, mask = load(2 * EVENTS, seed=7, min_pt=0.5, max_eta=3.0, slots=SLOTS + 1)
    fits = np.flatnonzero(mask.sum(axis=1) <= SLOTS)[:EVENTS]
    momentum, mask = momentum[fits, :SLOTS], mask[fits, :SLOTS]
    return jnp.asarray(momentum, jnp.float32), jnp.asarray(mask)


def _keys(num: int, seed: int) -> Iterator[jax.Array]:
    """Random keys of `num` histories of each event, in parts that memory allows."""
    size = max(_AT_ONCE // EVENTS, 1)
    for k in range(0, num, size):
        key = jax.random.fold_in(jax.random.key(seed), k)
        yield jax.random.split(key, (EVENTS, min(size, num - k)))


def _sample(
    candidates: AbstractCandidates, sharpness: float, num: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Masses and scores of histories, of shape (events, histories)."""
    events = _events()
    found = [_draw(candidates, sharpness, events, keys) for keys in _keys(num, seed)]
    mass, score = (np.concatenate(x, axis=1) for x in zip(*found, strict=True))
    return mass, score


def _differences(
    candidates: AbstractCandidates, sharpness: float, num: int, step: float, seed: int
) -> np.ndarray:
    """Finite differences with common random numbers, of shape (events, histories)."""
    events = _events()
    parts = [
        _difference(candidates, sharpness, events, keys, step).contributions
        for keys in _keys(num, seed)
    ]
    return np.concatenate(parts, axis=1)


def _score(mass: np.ndarray, score: np.ndarray, baseline: AbstractBaseline):
    found = score_gradient(jnp.asarray(mass), jnp.asarray(score), baseline=baseline)
    return np.asarray(found.contributions)


def measure(name: str, sharpness: float) -> dict[str, dict[str, float]]:
    """Standard deviation per history and mean of each estimator.

    Args:
        name: Which candidates.
        sharpness: Inverse temperature.

    Returns:
        By estimator, and the same of many histories as `truth`.
    """
    candidates = CANDIDATES[name]
    drawn = _sample(candidates, sharpness, REPLICAS, 1)
    estimates = {
        label: _score(*drawn, baseline) for label, baseline in BASELINES.items()
    }
    estimates["finite differences"] = _differences(
        candidates, sharpness, REPLICAS, STEP, 2
    )
    many = _sample(candidates, sharpness, TRUTH // EVENTS, 3)
    many = _score(*many, LeaveOneOut())
    found = {}
    for label, values in (*estimates.items(), ("truth", many)):
        # Events are the same for all: only the histories make the error.
        within = values.var(axis=1, ddof=1).mean()
        cost = 2 if label == "finite differences" else 1
        found[label] = {
            "deviation": float(np.sqrt(cost * values.var())),
            "mean": float(values.mean()),
            "error": float(np.sqrt(within / values.size)),
        }
    return found


def _step_rows() -> list[Row]:
    # What finite differences of many histories miss by their step, and the score of
    # `NearestOnly` by the jumps of its probabilities.
    found, rows = _results(), []
    for name, sharpness, step in STEPS:
        number = TRUTH // EVENTS // 5
        values = _differences(CANDIDATES[name], sharpness, number, step, 21)
        error = np.sqrt(values.var(axis=1, ddof=1).mean() / values.size)
        truth = found[name][str(sharpness)]["truth"]
        both = np.hypot(error, truth["error"])
        apart = values.mean() - truth["mean"]
        label = f"{name}, alpha {sharpness:g}, step {step:g}: finite differences"
        rows += [
            Row(f"{label}, GeV, peer the score", float(values.mean()), truth["mean"]),
            Row(f"{label}, standard error", float(error)),
            Row(f"{label}, apart, standard errors", apart / both),
        ]
    return rows


def _folder() -> Path:
    return RESULTS / "variance-quick" if QUICK else RECORDED


def _results() -> dict[str, dict[str, dict[str, dict[str, float]]]]:
    folder = _folder()
    folder.mkdir(parents=True, exist_ok=True)
    found: dict = {}
    for name in CANDIDATES:
        for sharpness in SHARPNESS:
            path = folder / f"{name.replace(' ', '-')}-{sharpness:g}.json"
            if not path.exists():
                text = json.dumps(measure(name, sharpness), indent=1)
                path.write_text(text + "\n")
            found.setdefault(name, {})[str(sharpness)] = json.loads(path.read_text())
    return found


def main() -> int:
    """Measure what has not been measured, and report all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--steps",
        action="store_true",
        help="compare finite differences of several steps with the score",
    )
    parser.add_argument("--figures", action="store_true", help="draw, report nothing")
    arguments = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    if arguments.figures:
        figures.draw(_folder(), _results())
        return 0
    if arguments.steps:
        return report("variance-steps", _step_rows(), events=EVENTS, histories=TRUTH)
    rows = []
    for name, by_sharpness in _results().items():
        for sharpness, found in by_sharpness.items():
            label = f"{name}, alpha {float(sharpness):g}"
            truth = found.pop("truth")
            raw = found["raw"]["deviation"]
            bar = BARS.get(float(sharpness)) if name == "all" else None
            for estimator, values in found.items():
                judged = bar is not None and estimator == "leave-one-out"
                error = np.hypot(values["error"], truth["error"])
                rows += [
                    Row(
                        f"{label}: {estimator}, s.d. per history, GeV",
                        values["deviation"],
                        raw,
                        1 / bar if judged else None,
                    ),
                    Row(
                        f"{label}: {estimator}, from the truth, standard errors",
                        (values["mean"] - truth["mean"]) / error,
                    ),
                ]
            rows.append(Row(f"{label}: truth, GeV", truth["mean"]))
    return report("variance", rows, events=EVENTS, replicas=REPLICAS, histories=TRUTH)


if __name__ == "__main__":
    raise SystemExit(main())
