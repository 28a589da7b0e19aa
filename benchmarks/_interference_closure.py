"""Whether the learnt ratios of the benchmark `interference` are right: see there."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from diffhep.inference import (
    HardBins,
    Interference,
    calibration_curve,
    closure,
    effective_sample_size,
    normalisation,
    reweight,
)

from ._interference_model import (
    STRENGTHS,
    WINDOW,
    Table,
    exact_table,
    integral,
    intensity,
    rates,
    sample,
    terms,
)
from ._interference_ratios import Ratios, learnt_table, simulate


NEW = 2.0
"""A strength of which nothing was simulated for the training."""
FEATURES = {
    "m": (0, np.linspace(*WINDOW, 29)),
    "cos": (1, np.linspace(-1.0, 1.0, 21)),
}


def mixture() -> Interference:
    """The morphing from the simulated strengths."""
    return Interference(STRENGTHS, jnp.asarray(rates()))


def log_ratio(table: Table, strength: float) -> np.ndarray:
    """Of another strength to the reference; not a number if it is not positive."""
    found = mixture().ratio(jnp.asarray(strength), jnp.asarray(table.log_ratios))
    return np.asarray(jnp.log(found))


def judge(ratios: Ratios, number: int, rng: np.random.Generator) -> dict[str, Any]:
    """Closure on events that no network has seen, number of each strength.

    Args:
        ratios: The learnt ones.
        number: Events of each strength.
        rng: Random numbers.

    Returns:
        What the benchmark records.
    """
    simulation = simulate(number, rng)
    events, share = simulation.reference
    learnt, exact = learnt_table(ratios, events), exact_table(events)
    weight = jnp.log(jnp.asarray(share))
    found: dict[str, Any] = {}
    means = [normalisation(weight, jnp.asarray(x)) for x in learnt.log_ratios]
    found["normalisation"] = [[float(x) for x in one] for one in means]
    ours, theirs = (log_ratio(x, NEW) for x in (learnt, exact))
    found["positive"] = float(np.isfinite(ours).mean())
    ours = np.where(np.isfinite(ours), ours, -20.0)
    one = normalisation(weight, jnp.asarray(ours))
    found["normalisation at 2"] = [float(x) for x in one]
    likely = share * np.exp(theirs)
    found["deviation"] = _deviation(ours - theirs, likely)
    found["deviation of alpha"] = _deviation(
        (learnt.up - exact.up)[1], share * np.exp(exact.log_ratios[1])
    )
    found["effective size"] = float(
        effective_sample_size(weight + ours) / effective_sample_size(weight)
    )
    target = sample(number, NEW, rng)
    found["closure"] = _closure(events, reweight(weight, jnp.asarray(ours)), target)
    nominal = simulation.shifted[1][0]
    log_up = jnp.asarray(learnt_table(ratios, nominal).up[1])
    fresh = simulate(number, rng).shifted[1][1]
    found["closure of alpha"] = _closure(nominal, log_up, fresh)
    found["calibration"] = _calibration(events, share, ours, target, ratios)
    found["signs"] = signs(ratios)
    return found


def _deviation(difference: np.ndarray, weight: np.ndarray) -> float:
    # Root mean square, with the weight of events.
    return float(np.sqrt(np.sum(weight * difference**2) / np.sum(weight)))


def _closure(x: np.ndarray, log_weight: Any, target: np.ndarray) -> dict[str, float]:
    """Chi-squared for each bin, by feature."""
    found = {}
    for name, (axis, edges) in FEATURES.items():
        one = closure(
            jnp.asarray(x[:, axis]),
            log_weight,
            jnp.asarray(target[:, axis]),
            jnp.zeros(len(target)),
            bins=HardBins(jnp.asarray(edges)),
        )
        found[name] = float(one.chi2) / (len(edges) - 1)
    return found


def _calibration(
    events: np.ndarray,
    share: np.ndarray,
    log_ratios: np.ndarray,
    target: np.ndarray,
    ratios: Ratios,
) -> dict[str, float]:
    """Of the new strength against the reference: chi-squared, largest difference."""
    there = log_ratio(learnt_table(ratios, target), NEW)
    score = 1 / (1 + np.exp(-np.concatenate([log_ratios, there])))
    label = np.repeat([0.0, 1.0], [len(events), len(target)])
    weight = np.concatenate([share, np.full(len(target), 1 / len(target))])
    edges = np.quantile(score, np.linspace(0.0, 1.0, 21))
    curve = calibration_curve(
        *(jnp.asarray(x) for x in (score, label, np.log(weight))),
        bins=HardBins(jnp.asarray(edges)),
    )
    off = np.asarray(curve.observed - curve.predicted)
    pulls = off / np.asarray(curve.error)
    return {"chi2": float(np.mean(pulls**2)), "largest": float(np.abs(off).max())}


def signs(ratios: Ratios) -> dict[str, float]:
    """The share of the interference whose sign is right, and its positive part.

    By integration over the window. The reference's density is divided out.
    """
    model = mixture()

    def both(x: np.ndarray) -> np.ndarray:
        density = np.stack([intensity(x, k) for k in STRENGTHS])
        whole = rates()[:, None, None]
        reference = np.mean(density / whole, axis=0)
        logs = jnp.asarray(learnt_table(ratios, x).log_ratios)
        ours = np.asarray(model.interference(logs)) * reference
        theirs = terms(x)[1]
        size = np.abs(theirs)
        same = size * (np.sign(ours) == np.sign(theirs))
        positive, negative = np.maximum(theirs, 0.0), np.minimum(theirs, 0.0)
        found = (same, size, positive, negative, np.maximum(ours, 0.0))
        return np.stack([*found, np.minimum(ours, 0.0)])

    same, size, *rest = integral(both)
    names = ("positive", "negative", "learnt positive", "learnt negative")
    parts = dict(zip(names, map(float, rest), strict=True))
    return {"right": float(same / size), **parts}
