"""Gradients through clustering: the noise of rival estimators of d E[m_jj] / dR.

100 ZH events, R = 0.5, anti-kt, 16 random histories of each: the standard deviation per
history of the score-function estimator without baseline, with that of the batch, with
leave-one-out baselines within the event, and of finite differences with common random
numbers, which take two histories each and stand here at equal cost. Beside each, how
far its mean is from that of many histories (leave-one-out), in standard errors.
"""

import argparse
import functools
import json

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from diffhep.jets import (
    AbstractCandidates,
    AllPairs,
    CompiledEngine,
    NearestNeighbours,
    NearestOnly,
    sample_history,
)

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


@eqx.filter_jit
def _draw(candidates, events, settings, keys):
    def one(momentum, mask, key):
        history, _, score = sample_history(
            momentum,
            mask,
            **settings,
            candidates=candidates,
            engine=None if isinstance(candidates, AllPairs) else CompiledEngine(),
            key=key,
        )
        return dijet_mass(history, momentum, mask), score.radius

    replicas = jax.vmap(one, (None, None, 0))
    return jax.vmap(replicas)(*events, keys)


def _sample(
    candidates: AbstractCandidates, sharpness: float, num: int, radius: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Masses and scores of histories, of shape (events, histories)."""
    momentum, mask = load(2 * EVENTS, seed=7, min_pt=0.5, max_eta=3.0, slots=SLOTS + 1)
    fits = np.flatnonzero(mask.sum(axis=1) <= SLOTS)[:EVENTS]
    momentum, mask = momentum[fits, :SLOTS], mask[fits, :SLOTS]
    # Single precision: it is the fluctuations that are measured.
    events = jnp.asarray(momentum, jnp.float32), jnp.asarray(mask)
    numbers = {"radius": radius, "power": -1.0, "sharpness": sharpness}
    settings = {name: jnp.asarray(x, jnp.float32) for name, x in numbers.items()}
    size = max(_AT_ONCE // EVENTS, 1)
    found = []
    for k in range(0, num, size):
        part = min(size, num - k)
        key = jax.random.fold_in(jax.random.key(seed), k)
        keys = jax.random.split(key, (EVENTS, part))
        found.append(_draw(candidates, events, settings, keys))
    mass, score = (
        np.concatenate(x, axis=1, dtype=float) for x in zip(*found, strict=True)
    )
    return mass, score


def _leave_one_out(mass: np.ndarray, score: np.ndarray) -> np.ndarray:
    number = mass.shape[1]
    others = (mass.sum(1, keepdims=True) - mass) / (number - 1)
    return (mass - others) * score


def measure(name: str, sharpness: float) -> dict[str, dict[str, float]]:
    """Standard deviation per history and mean of each estimator.

    Args:
        name: Which candidates.
        sharpness: Inverse temperature.

    Returns:
        By estimator, and the same of many histories as `truth`.
    """
    draw = functools.partial(_sample, CANDIDATES[name], sharpness)
    mass, score = draw(REPLICAS, RADIUS, 1)
    up, _ = draw(REPLICAS, RADIUS + STEP, 2)
    down, _ = draw(REPLICAS, RADIUS - STEP, 2)
    estimates = {
        "raw": mass * score,
        "batch": (mass - mass.mean()) * score,
        "leave-one-out": _leave_one_out(mass, score),
        "finite differences": (up - down) / (2 * STEP),
    }
    many = _leave_one_out(*draw(TRUTH // EVENTS, RADIUS, 3))
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
        draw = functools.partial(_sample, CANDIDATES[name], sharpness)
        (up, _), (down, _) = (
            draw(TRUTH // EVENTS // 5, RADIUS + way * step, 21) for way in (1, -1)
        )
        values = (up - down) / (2 * step)
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


def _results() -> dict[str, dict[str, dict[str, dict[str, float]]]]:
    folder = RESULTS / "variance-quick" if QUICK else RECORDED
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
    compare = parser.parse_args().steps
    jax.config.update("jax_enable_x64", True)
    if compare:
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
