"""Time and memory of the whole chain, forward and with its gradient.

Each mode runs in a process of its own, so that peak memory is its own, and compilation
starts from nothing. With QUICK=1 the chain ends at the tracks, because the compilation
of what follows takes more than a minute, and both modes share a process.

An accelerator needs larger blocks than the default: for example
`--events 4096 --block-size 4096`.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffhep.demo import build_pipeline, configure_jax, device_mesh
from diffhep.detector import DetectHits
from diffhep.event import Event
from diffhep.generator import toy_events
from diffhep.numerics import sanitise
from diffhep.pipeline import Pipeline, Replicate, Sample, run, weighted_mean
from diffhep.tracking import FitTracks

from ._harness import QUICK, Row, report, seconds


NUM_EVENTS = 64 if QUICK else 512
REPEATS = 2 if QUICK else 5
REPLICAS = 2
BLOCK_SIZE = 32
MODES = ("forward", "gradient")


def _peak_memory() -> float:
    # Linux counts in KiB, macOS in bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def _measure(mode: str, num_events: int, block_size: int) -> dict[str, float]:
    pipeline = _pipeline()
    events = toy_events(num_events, key=jax.random.key(1))
    mesh = device_mesh()

    def loss(pipeline, events, key):
        kept = run(
            pipeline,
            events,
            keep=("tracks",) if QUICK else ("log_ratio", "pass_weight"),
            block_size=block_size,
            mesh=mesh,
            key=key,
        )
        sample = Sample.from_events(kept)
        return weighted_mean(_result(sample.events), sample.log_weight)

    function = loss if mode == "forward" else eqx.filter_value_and_grad(loss)
    before = _peak_memory()
    start = time.perf_counter()
    compiled = eqx.filter_jit(function).lower(pipeline, events, jax.random.key(2))
    compiled = compiled.compile()
    compile_time = time.perf_counter() - start
    call = lambda: compiled(pipeline, events, jax.random.key(2))  # noqa: E731
    leaves = jax.tree.leaves(eqx.filter(call(), eqx.is_inexact_array))
    finite = all(bool(jnp.isfinite(leaf).all()) for leaf in leaves)
    return {
        "compile": compile_time,
        "per event": seconds(call, repeats=REPEATS) / num_events,
        "before": before,
        "memory": _peak_memory(),
        "not finite": float(not finite),
    }


def _configure() -> None:
    configure_jax(None)
    jax.config.update("jax_compilation_cache_dir", None)


def _pipeline() -> Pipeline:
    full = build_pipeline(replicas=REPLICAS, key=jax.random.key(0))
    if not QUICK:
        return full
    place, simulate, *_ = full.stages
    repeated = Replicate.around([DetectHits(), FitTracks()], num=REPLICAS)
    return Pipeline([place, simulate, repeated])


def _result(events: Event) -> Float[Array, " events"]:
    if QUICK:
        tracks = sanitise(events.tracks, events.tracks.mask)
        return jnp.mean(tracks.covariance[:, :, 0, 0], axis=1)
    return events.pass_weight[:, 0] * jnp.tanh(events.log_ratio[:, 0])


def _in_process(mode: str, num_events: int, block_size: int) -> dict[str, float]:
    environment = {k: v for k, v in os.environ.items() if "COMPILATION_CACHE" not in k}
    command = [sys.executable, "-m", "benchmarks.pipeline", "--mode", mode]
    command += ["--events", str(num_events), "--block-size", str(block_size)]
    result = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(result.stdout.splitlines()[-1])


def main() -> int:
    """Measure both modes and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mode", choices=MODES, help="measure one mode, print JSON")
    parser.add_argument("--events", type=int, default=NUM_EVENTS)
    parser.add_argument("--block-size", type=int, default=BLOCK_SIZE)
    options = parser.parse_args()
    size = (options.events, options.block_size)
    if options.mode or QUICK:
        _configure()
    if options.mode:
        print(json.dumps(_measure(options.mode, *size)))
        return 0
    measure = _measure if QUICK else _in_process
    forward, gradient = (measure(mode, *size) for mode in MODES)
    per_event = [1e3 * result["per event"] for result in (forward, gradient)]
    broken = forward["not finite"] + gradient["not finite"]
    rows = [
        Row("forward, ms per event", per_event[0]),
        Row("forward + gradient, against forward, ms per event", *per_event[::-1], 4.0),
        Row("compilation of forward, s", forward["compile"]),
        Row("compilation of forward + gradient, s", gradient["compile"]),
        Row("peak memory before compilation, MiB", forward["before"]),
        Row("peak memory of forward, MiB", forward["memory"]),
        Row("peak memory of forward + gradient, MiB", gradient["memory"]),
        Row("runs with a result that is not finite", broken, bar=0.0),
    ]
    return report(
        "pipeline", rows, events=size[0], replicas=REPLICAS, block_size=size[1]
    )


if __name__ == "__main__":
    sys.exit(main())
