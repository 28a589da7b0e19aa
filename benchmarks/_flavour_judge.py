"""Rejections of one training on the test jets, with bootstrap draws that runs share."""

from typing import Any

import numpy as np

from diffhep.tagging import BOTTOM, CHARM, LIGHT

from ._harness import QUICK


EFFICIENCIES = (0.6, 0.7, 0.77, 0.85)
BACKGROUNDS = {"light": LIGHT, "charm": CHARM}
DRAWS = 20 if QUICK else 200
_SEED = 20231208


def log_rejections(
    scores: np.ndarray, flavours: np.ndarray, sample: np.ndarray, names: tuple[str, ...]
) -> dict[str, Any]:
    """Logarithms of the rejections of a discriminant.

    In each draw of the bootstrap every jet counts a number of times that is Poisson
    distributed and depends on the draw and the jet alone: differences between runs
    on the same jets, draw by draw, have the error of the paired comparison.

    Args:
        scores: The discriminant.
        flavours: True flavours.
        sample: Which sample each jet is of.
        names: Names of the samples.

    Returns:
        By sample ("both" for all), background and efficiency: the value, and a list of
        those of the draws.
    """
    chosen = {name: sample == k for k, name in enumerate(names)}
    chosen["both"] = np.ones(len(scores), bool)
    found: dict[str, Any] = {}
    for name, these in chosen.items():
        order = np.flatnonzero(these)
        order = order[np.argsort(-scores[order], kind="stable")]
        found[name] = _of_sample(flavours[order], order, len(scores))
    return found


def _of_sample(
    flavours: np.ndarray, order: np.ndarray, total: int
) -> dict[str, dict[str, Any]]:
    rows = [_values(flavours, np.ones(len(order)))]
    for draw in range(DRAWS):
        weights = np.random.default_rng((_SEED, draw)).poisson(1.0, total)
        rows.append(_values(flavours, weights[order]))
    table = np.round(np.array(rows), 5)
    found: dict[str, dict[str, Any]] = {}
    for k, background in enumerate(BACKGROUNDS):
        for j, efficiency in enumerate(EFFICIENCIES):
            column = table[:, k, j].tolist()
            key = f"{background} at {efficiency:.2f}"
            found[key] = {"value": column[0], "draws": column[1:]}
    return found


def _values(flavours: np.ndarray, weights: np.ndarray) -> np.ndarray:
    # Jets come by falling score: cumulative sums are what passes.
    signal = np.cumsum(np.where(flavours == BOTTOM, weights, 0))
    wanted = np.array(EFFICIENCIES) * signal[-1]
    # The jet at which the efficiency is reached passes.
    place = np.searchsorted(signal, wanted)
    rows = []
    for background in BACKGROUNDS.values():
        passed = np.cumsum(np.where(flavours == background, weights, 0))
        # Half a jet where none passes: large, and finite.
        rows.append(np.log(passed[-1] / np.maximum(passed[place], 0.5)))
    return np.array(rows)
