"""neos' demonstration: a summary trained on the uncertainty of the signal strength.

Three blobs (Simpson, Heinrich, arXiv 2203.05570, section 5): signal N((-1, 1), 1),
background N((1, -1), 1), which one nuisance parameter moves to (2.5, 2) and to
(-2.5, -1.5); 10,000 points each, totals of 20 and 100 events, four bins. A network
takes the points to a number between 0 and 1; its bins are the templates of a
HistFactory model with the two variations as histosys; and what is minimised is the
expected uncertainty through the profile likelihood, by Adam on batches of 2000. Judged
in hard bins, of points that no network has seen, as well as in the kernel bins that it
was trained in.
"""

import argparse
import time
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from diffhep.inference import (
    AbstractBins,
    KernelBins,
    asimov_uncertainty,
    fill_histogram,
    histfactory,
)

from ._harness import QUICK, Row, report


SEEDS = 1 if QUICK else 5
STEPS = 100 if QUICK else 1500
RATE, BATCH, BANDWIDTH, BINS = 1e-3, 2000, 0.09, 4
POINTS, TEST = 10_000, 100_000
CENTRES = ((-1.0, 1.0), (1.0, -1.0), (2.5, 2.0), (-2.5, -1.5))
TOTALS = (20.0, 100.0)
# What neos recorded, in its own kernel bins: at the start, and at best.
PUBLISHED, START = 0.263, 0.456
# Seconds of one of its steps.
STEP_OF_NEOS = 2.5


def _workspace() -> histfactory.Workspace:
    flat = [total / BINS for total in TOTALS for _ in range(BINS)]
    signal, background = flat[:BINS], flat[BINS:]
    strength = {"name": "mu", "type": "normfactor", "data": None}
    both = {"lo_data": background, "hi_data": background}
    moved = {"name": "position", "type": "histosys", "data": both}
    return histfactory.read_workspace(
        {
            "version": "1.0.0",
            "channels": [
                {
                    "name": "blobs",
                    "samples": [
                        {"name": "signal", "data": signal, "modifiers": [strength]},
                        {
                            "name": "background",
                            "data": background,
                            "modifiers": [moved],
                        },
                    ],
                }
            ],
            "observations": [{"name": "blobs", "data": background}],
            "measurements": [
                {"name": "blobs", "config": {"poi": "mu", "parameters": []}}
            ],
        }
    )


def _points(number: int, seed: int) -> Any:
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.normal(np.array(CENTRES)[:, None], 1.0, (4, number, 2)))


def _uncertainty(network: Any, points: Any, model: Any, bins: AbstractBins) -> Any:
    def template(x: Any, total: float) -> Any:
        value = jax.vmap(network)(x.astype(jnp.float32)).astype(float)
        each = jnp.full(len(x), jnp.log(total / len(x)))
        return fill_histogram(value, each, bins=bins).counts + 1e-3

    totals = (*TOTALS, TOTALS[1], TOTALS[1])
    signal, background, up, down = (
        template(x, total) for x, total in zip(points, totals, strict=True)
    )
    moved = ("position", "background")
    model = histfactory.with_templates(
        model,
        "blobs",
        nominal={"signal": signal, "background": background},
        shape_up={moved: up},
        shape_down={moved: down},
    )
    truth = model.start
    measurement = histfactory.measure(model, histfactory.expected_data(model, truth))
    return asimov_uncertainty(measurement, truth)


def _train(model: Any, seed: int) -> tuple[Any, Any, float]:
    points = _points(POINTS, seed)
    network = eqx.nn.MLP(
        2, "scalar", 64, 2, jax.nn.silu, jax.nn.sigmoid, key=jax.random.key(seed)
    )
    bins = _kernel_bins()
    optimiser = optax.adam(RATE)
    state = optimiser.init(eqx.filter(network, eqx.is_inexact_array))

    @eqx.filter_jit
    def step(network: Any, state: Any, key: Any) -> Any:
        place = jax.random.randint(key, (4, BATCH), 0, POINTS)
        batch = jnp.take_along_axis(points, place[:, :, None], axis=1)
        value, slope = eqx.filter_value_and_grad(_uncertainty)(
            network, batch, model, bins
        )
        updates, state = optimiser.update(slope, state)
        return eqx.apply_updates(network, updates), state, value

    keys = jax.random.split(jax.random.key(100 + seed), STEPS)
    trained, state, value = step(network, state, keys[0])
    start = time.perf_counter()
    for key in keys[1:]:
        trained, state, value = step(trained, state, key)
    spent = (time.perf_counter() - start) / (STEPS - 1)
    if not np.isfinite(value):
        raise RuntimeError("The training diverged.")
    return network, trained, spent


def _kernel_bins() -> KernelBins:
    return KernelBins(jnp.linspace(0.0, 1.0, BINS + 1), jnp.asarray(BANDWIDTH))


def main() -> int:
    """Train, judge and report."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    jax.config.update("jax_enable_x64", True)
    model = histfactory.build_model(_workspace())
    judge = eqx.filter_jit(_uncertainty)
    soft, test = _kernel_bins(), _points(TEST, 999)
    found: dict[str, list[float]] = {"start": [], "soft": [], "hard": [], "step": []}
    for seed in range(SEEDS):
        before, after, spent = _train(model, seed)
        own = _points(POINTS, seed)
        found["start"].append(float(judge(before, own, model, soft)))
        found["soft"].append(float(judge(after, own, model, soft)))
        found["hard"].append(float(judge(after, test, model, soft.harden())))
        found["step"].append(spent)
    middle = {name: float(np.median(x)) for name, x in found.items()}
    worst = {name: float(np.max(x)) for name, x in found.items()}
    rows = [
        Row("before training, kernel bins, peer neos", middle["start"], START),
        Row("trained, kernel bins, peer neos", middle["soft"], PUBLISHED),
        Row("trained, hard bins, new points, peer neos", middle["hard"], PUBLISHED, 1),
        Row("the same, worst of the seeds", worst["hard"], PUBLISHED),
        Row("one step, s, peer neos (another machine)", middle["step"], STEP_OF_NEOS),
    ]
    return report("neos", rows, seeds=SEEDS, steps=STEPS, found=found)


if __name__ == "__main__":
    raise SystemExit(main())
