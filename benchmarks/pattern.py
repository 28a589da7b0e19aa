"""Noise hits: a network trained through the fit, on labels, or in place of the fit.

Each arm and seed is a run of its own, whose result is a file in `recorded/pattern`;
a run that was interrupted goes on from its last checkpoint, and those with a file are
not run again. `--seeds` lets several processes share the work.
"""

import argparse
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from diffhep.optimise import TrainResult, train

from . import _pattern_events as events, _pattern_networks as networks
from ._harness import QUICK, RESULTS, Row, report


RECORDED = Path(__file__).parent / "recorded" / "pattern"
# Momenta in GeV: that of the training, and one on either side of it.
RANGES = {"1 to 10 GeV": (1.0, 10.0), "0.5 to 1": (0.5, 1.0), "10 to 50": (10.0, 50.0)}
SETTINGS = {
    "fit": "with the seed as a prior",
    "steps": 20 if QUICK else 1500,
    "batch": 16 if QUICK else 128,
    # The best of `--rates`.
    "rate": {"joint": 3e-3, "labels": 1e-2, "regression": 1e-2},
    "test tracks": 500 if QUICK else 20_000,
    "seeds": 2 if QUICK else 5,
    "train": [1.0, 10.0],
    "layers": events.LAYERS,
    "noise": events.NOISE,
    "candidates": events.CANDIDATES,
    "seed errors": list(events.SEED_ERRORS),
    "road": events.ROAD,
    "network": [networks.WIDTH, networks.HEADS, networks.BLOCKS],
}
# The choice of the rates: a seed that no run has.
TRIAL = {
    "rates": [1e-3, 3e-3, 1e-2],
    "steps": 10 if QUICK else 300,
    "mean of the last": 5 if QUICK else 50,
    "seed": 100,
}
COMPARED = (
    ("joint", "labels"),
    ("joint", "regression"),
    ("labels then joint", "labels"),
    ("labels then joint", "joint"),
)
TAIL = 5.0
# Not trained; "the other" is a network trained on labels.
REFERENCES = ("true hits", "seed", "filter")
BLOCK = 500


def _fingerprint() -> str:
    return hashlib.sha256(json.dumps(SETTINGS).encode()).hexdigest()[:16]


def _train(
    network: networks.Network, arm: str, key: Any, *, steps: int, rate: float, name: str
) -> TrainResult:
    low, high = map(jnp.asarray, SETTINGS["train"])
    loss = networks.Loss(events.barrel(), arm, SETTINGS["batch"], low, high)
    schedule = optax.cosine_onecycle_schedule(steps, rate, 0.1)
    return train(
        loss,
        network,
        optimiser=optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule)),
        num_steps=steps,
        checkpoint=RESULTS / f"pattern-{name.replace(' ', '-')}.eqx",
        fingerprint=_fingerprint(),
        discard_other=True,
        key=key,
    )


def _fit_network(arm: str, seed: int) -> networks.Network:
    """The network of an arm; the labels' is trained first where it starts from that."""
    init_key, train_key = jax.random.split(jax.random.key(seed))
    network = networks.build(init_key)
    phases = {"labels then joint": ("labels", "joint")}.get(arm, (arm,))
    for begin, phase in enumerate(phases):
        result = _train(
            network,
            phase,
            jax.random.fold_in(train_key, begin),
            steps=SETTINGS["steps"] // len(phases),
            rate=SETTINGS["rate"][phase],
            name=f"{arm}-{seed}-{begin}",
        )
        network = result.params
    return network


def _try_rates() -> list[Row]:
    """Losses at the end of a short training of each arm, for each rate."""
    init_key, train_key = jax.random.split(jax.random.key(TRIAL["seed"]))
    rows = []
    for arm in SETTINGS["rate"]:
        for rate in TRIAL["rates"]:
            result = _train(
                networks.build(init_key),
                arm,
                train_key,
                steps=TRIAL["steps"],
                rate=rate,
                name=f"trial-{arm}-{rate}",
            )
            loss = float(np.mean(result.losses[-TRIAL["mean of the last"] :]))
            rows.append(Row(f"{arm}: loss at a rate of {rate}", loss))
    return rows


@eqx.filter_jit
def _residuals(
    arm: str, network: networks.Network | None, low: Any, high: Any
) -> Float[Array, " tracks"]:
    """Residuals of q/pT in units of the fit to the true hits, of the test tracks."""
    detector = events.barrel()

    def one(key: Any) -> Float[Array, ""]:
        tracks = events.draw(key, detector, low, high)
        zeros = jnp.zeros_like(tracks.road[:, :, 0])
        if arm == "true hits":
            value = tracks.best
        elif arm == "seed":
            value = events.inverse_momentum(tracks.seed.parameters)
        elif network is None:
            value = networks.filtered_fit(zeros, tracks, detector)
        elif arm == "labels, filter":
            value = networks.filtered_fit(network(tracks)[0], tracks, detector)
        else:
            value = networks.estimate(arm, network, tracks, detector)
        return (value - tracks.truth) / tracks.sigma

    # The test tracks: of a key of their own, the same for all.
    keys = jax.random.split(jax.random.key(2**31 - 1), SETTINGS["test tracks"])
    keys = jnp.reshape(keys, (-1, min(BLOCK, SETTINGS["test tracks"])))
    return jnp.ravel(jax.lax.map(jax.vmap(one), keys))


def _judge(arm: str, network: networks.Network | None) -> dict[str, Any]:
    found = {}
    for name, (low, high) in RANGES.items():
        residual = _residuals(arm, network, jnp.asarray(low), jnp.asarray(high))
        residual = np.asarray(residual, float)
        # What is not finite is as bad as can be.
        size = np.where(np.isfinite(residual), np.abs(residual), np.inf)
        found[name] = {
            "core": float(np.quantile(size, 0.6827)),
            "q95": float(np.quantile(size, 0.95)),
            "tail": float(np.mean(size > TAIL)),
            "tracks": len(size),
        }
    return found


def run(arm: str, seed: int) -> dict[str, Any]:
    """The result of one arm and seed, from its file if there is one.

    Args:
        arm: Which arm.
        seed: Its seed.

    Returns:
        For each range of momenta the half-width that holds 68.27 % of the residuals,
        that for 95 %, and the fraction beyond 5, all in units of the fit to true hits.

    Raises:
        ValueError: The file is of other settings.
    """
    folder = RESULTS / "pattern-quick" if QUICK else RECORDED
    path = folder / f"{arm.replace(' ', '-')}-{seed}.json"
    if path.exists():
        stored = json.loads(path.read_text())
        if stored["settings"] != SETTINGS:
            raise ValueError(
                f"{path.name} is of other settings than those of pattern.py; move the "
                "folder it is in, or restore them."
            )
        return stored["found"]
    if arm in REFERENCES:
        found = {arm: _judge(arm, None)}
    else:
        network = _fit_network(arm, seed)
        found = {arm: _judge(arm, network)}
        if arm == "labels":
            found["labels, filter"] = _judge("labels, filter", network)
    folder.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}.part")
    part.write_text(json.dumps({"settings": SETTINGS, "found": found}, indent=1) + "\n")
    part.replace(path)
    print(f"{arm}, seed {seed}: {found[arm]}", flush=True)
    return found


def _rows(results: dict[str, list[dict[str, Any]]]) -> list[Row]:
    # Means over the seeds, and over their differences, with their standard errors.
    rows = []
    for momentum in RANGES:
        for key in ("core", "q95", "tail"):
            values = {
                arm: np.array([found[momentum][key] for found in runs])
                for arm, runs in results.items()
            }
            for arm, value in values.items():
                rows.append(_mean(f"{momentum}, {key}: {arm}", value))
            for arm, other in COMPARED:
                # Network, order of the tracks and test tracks of a seed are the same.
                both = min(len(values[arm]), len(values[other]))
                difference = values[arm][:both] - values[other][:both]
                rows.append(_mean(f"{momentum}, {key}: {arm} - {other}", difference))
    return rows


def _mean(label: str, values: np.ndarray) -> Row:
    if len(values) > 1:
        label += f" (+- {values.std(ddof=1) / np.sqrt(len(values)):.2g})"
    return Row(label, float(values.mean()))


def main() -> int:
    """Run what is missing and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    everyone = range(SETTINGS["seeds"])
    parser.add_argument("--seeds", type=int, nargs="*", default=list(everyone))
    parser.add_argument(
        "--rates", action="store_true", help="try the rates of learning, nothing else"
    )
    options = parser.parse_args()
    RESULTS.mkdir(exist_ok=True)
    if options.rates:
        return report("pattern-rates", _try_rates(), settings=SETTINGS, trial=TRIAL)
    results: dict[str, list[dict[str, Any]]] = {}
    for arm in REFERENCES:
        results.update({name: [r] for name, r in run(arm, 0).items()})
    for seed in options.seeds:
        for arm in networks.ARMS:
            for name, found in run(arm, seed).items():
                results.setdefault(name, []).append(found)
    return report("pattern", _rows(results), settings=SETTINGS)


if __name__ == "__main__":
    raise SystemExit(main())
