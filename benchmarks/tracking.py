"""Track fits: time, compilation, accuracy, beside NumPy and the Kalman filter of ACTS.

Every process runs on ONE core, ours and the peers' alike. The peer from ACTS needs
`pip install pyacts==48.1.0`, in this environment or in that of the interpreter that
`ACTS_PYTHON` names; without it its rows are left out, and said so.
"""

import argparse
import functools
import json
import statistics
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffhep.detector import DetectHits, PlaceDetector, SimulateHits
from diffhep.generator import toy_events
from diffhep.geometry import (
    AbstractDetector,
    build_barrel,
    build_telescope,
    default_tracker,
)
from diffhep.pipeline import Pipeline
from diffhep.tracking import (
    FitTracks,
    TrackFit,
    fit_track,
    hit_covariance,
    predict,
    seed_track,
    smooth_track,
)

from . import _acts_telescope as acts
from ._acts_peer import find as find_acts
from ._harness import QUICK, Row, alone, report, seconds
from ._numpy_fit import fit as numpy_fit


NUM_TRACKS = 4096 if QUICK else 20_480
BLOCK = 256
REPEATS = 5 if QUICK else 15
MODES = ("float32", "float64")
LAYERS = 10
STEPS = 5
TELESCOPE_STEPS = 2
EVENT = 500


def _barrel() -> AbstractDetector:
    return build_barrel(
        radii=list(np.linspace(30.0, 1020.0, LAYERS)),
        pitch_azimuth=[0.05] * LAYERS,
        pitch_z=[0.25] * LAYERS,
        thickness=[0.015] * LAYERS,
        efficiency=[0.98] * LAYERS,
        field=2.0,
    )


def _telescope() -> AbstractDetector:
    number, root = acts.PLANES, 12**0.5
    return build_telescope(
        distance=[acts.SPACING * (i + 1) for i in range(number)],
        pitch_across=[acts.SIGMA_ACROSS * root] * number,
        pitch_z=[acts.SIGMA_ALONG * root] * number,
        thickness=[acts.THICKNESS] * number,
        efficiency=[0.99] * number,
        field=acts.FIELD,
    )


def _tracks(
    detector: AbstractDetector, width: float, slope: float
) -> Float[Array, "tracks layers 2"]:
    """Hits with their scattering, of 1 to 10 GeV, within angles about the axis."""
    keys = jax.random.split(jax.random.key(1), 5)
    shape = (NUM_TRACKS,)
    transverse = jax.random.uniform(keys[0], shape, minval=1.0, maxval=10.0)
    phi = jax.random.uniform(keys[1], shape, minval=-width, maxval=width)
    theta = jnp.pi / 2 + jax.random.uniform(keys[2], shape, minval=-slope, maxval=slope)
    sign = jnp.where(jnp.arange(NUM_TRACKS) % 2 == 0, 1.0, -1.0)
    zero = jnp.zeros_like(phi)
    truth = [zero, zero, phi, theta, sign * jnp.sin(theta) / transverse]
    truth = jnp.stack(truth, axis=1)

    def one(parameters, noise):
        crossings = predict(parameters, detector)
        mask = jnp.ones(crossings.arc.shape, bool)
        covariance = hit_covariance(parameters, crossings, mask, detector)
        # In units of the errors: azimuths are in rad.
        scale = jnp.sqrt(jnp.diagonal(covariance))
        root = jnp.linalg.cholesky(covariance / scale[:, None] / scale[None, :])
        moved = jnp.reshape(scale * (root @ noise), (2, -1)).T
        return crossings.position + moved

    noise = jax.random.normal(keys[3], (NUM_TRACKS, 2 * detector.pitch.shape[0]))
    return jax.jit(jax.vmap(one))(truth, noise)


def _in_blocks(function, position):
    # What a core has in its cache at once.
    blocks = jnp.reshape(position, (-1, BLOCK, *position.shape[1:]))
    return jax.lax.map(jax.vmap(function), blocks)


def _fit(position, detector, *, num_steps=STEPS) -> TrackFit:
    mask = jnp.ones(position.shape[0], bool)
    return fit_track(position, mask, detector, num_steps=num_steps)


def _smooth(position, detector, *, num_steps=STEPS):
    mask = jnp.ones(position.shape[0], bool)
    return smooth_track(position, mask, detector, num_steps=num_steps)


@jax.checkpoint
def _number(position, detector):
    # Each parameter, its variance and chi-squared take part in the gradient.
    fit = _fit(position, detector)
    variance = jnp.diagonal(fit.covariance)
    width = jax.lax.stop_gradient(jnp.sqrt(variance))
    return jnp.sum(fit.parameters / width) + jnp.sum(jnp.log(variance)) + fit.chi2


def _timed(jobs: dict[str, tuple]) -> tuple[dict[str, dict[str, float]], float | None]:
    # In turns, so that a machine that slows down does so for all of them; and for ACTS.
    python = find_acts()
    calls, compilation = {}, {}
    for name, (function, *arguments) in jobs.items():
        start = time.perf_counter()
        compiled = jax.jit(function).lower(*arguments).compile()
        compilation[name] = time.perf_counter() - start
        calls[name] = functools.partial(compiled, *arguments)
        jax.block_until_ready(calls[name]())
    times, peer = {name: [] for name in jobs}, []
    for turn in range(REPEATS):
        for name, call in calls.items():
            times[name].append(seconds(call, repeats=1))
        if python is not None and turn % 3 == 0:
            peer.append(_acts_us(python))
    found = {
        name: {
            "compile": compilation[name],
            "us": 1e6 * statistics.median(times[name]) / NUM_TRACKS,
        }
        for name in jobs
    }
    return found, statistics.median(peer) if peer else None


def _acts_us(python: str) -> float:
    # On our core: a process inherits it.
    command = [python, "-m", acts.__name__, "2" if QUICK else "4", "1000"]
    output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return 1e6 * json.loads(output.stdout.splitlines()[-1])["seconds"]


def _numpy_us(position, barrel) -> float:
    # Seeds and the covariance of the hits are given to it: only the steps are timed.
    mask = jnp.ones(LAYERS, bool)

    def prepare(position):
        seed = seed_track(position, mask, barrel)
        covariance = hit_covariance(seed, predict(seed, barrel), mask, barrel)
        scale = jnp.sqrt(jnp.diagonal(covariance))
        scale = scale[:, None] * scale[None, :]
        return seed, jnp.linalg.inv(covariance / scale) / scale

    seeds, weights = map(np.asarray, jax.jit(jax.vmap(prepare))(position))
    measured = np.concatenate([position[:, :, 0], position[:, :, 1]], axis=1)
    radii, field = np.asarray(barrel.radii), float(barrel.field)
    call = lambda: numpy_fit(  # noqa: E731
        measured, weights, seeds, radii=radii, field=field, steps=STEPS
    )
    return 1e6 * seconds(call, repeats=3) / NUM_TRACKS


def _measure(mode: str) -> dict[str, float]:
    jax.config.update("jax_enable_x64", mode == "float64")
    barrel, telescope = _barrel(), _telescope()
    barrel_hits = _tracks(barrel, 3.1, 1.0)
    plane_hits = _tracks(telescope, 0.087, 0.1)
    jobs = {}
    for detector, hits, name, steps in (
        (barrel, barrel_hits, "barrel", STEPS),
        (telescope, plane_hits, "telescope", TELESCOPE_STEPS),
    ):
        for job, kind in (("fit", _fit), ("smoother", _smooth)):
            one = functools.partial(kind, detector=detector, num_steps=steps)
            jobs[f"{name} {job}"] = functools.partial(_in_blocks, one), hits
    sums = lambda p, d: jnp.sum(_in_blocks(lambda x: _number(x, d), p))  # noqa: E731
    jobs["barrel gradient"] = jax.grad(lambda p: sums(p, barrel)), barrel_hits
    both = jax.grad(sums, argnums=(0, 1))
    jobs["barrel gradient, detector too"] = both, barrel_hits, barrel
    found, peer = _timed(jobs)
    flat = {f"{a}: {b}": value for a, r in found.items() for b, value in r.items()}
    if peer is not None:
        flat["ACTS: us"] = peer
    if mode == "float64":
        flat["numpy: us"] = _numpy_us(barrel_hits, barrel)
        flat["steps"] = _left(plane_hits, telescope)
        flat["memory"] = _memory()
    return flat


def _left(hits, telescope) -> float:
    # How far the steps taken on the telescope end from the minimum.
    def end(num_steps):
        fit = lambda x: _fit(x, telescope, num_steps=num_steps)  # noqa: E731
        return jax.jit(lambda hits: _in_blocks(fit, hits))(hits)

    fits = [end(TELESCOPE_STEPS), end(8)]
    width = jnp.sqrt(jnp.diagonal(fits[1].covariance, axis1=2, axis2=3))
    return float(jnp.max(jnp.abs(fits[0].parameters - fits[1].parameters) / width))


def _memory() -> float:
    # Of simulation and fits of an event, with the gradient to the detector, in MB.
    events = toy_events(1, capacity=EVENT, key=jax.random.key(0))
    event = jax.tree.map(lambda x: x[0], events)

    def total(detector, event, key):
        stages = [PlaceDetector(detector), SimulateHits(), DetectHits(), FitTracks()]
        end = Pipeline(stages)(event, key=key)
        alive = end.tracks.mask[:, None]
        return jnp.sum(jnp.where(alive, end.tracks.parameters, 0.0)) + end.log_weight

    arguments = default_tracker(), event, jax.random.key(1)
    compiled = jax.jit(jax.grad(total)).lower(*arguments).compile()
    return compiled.memory_analysis().temp_size_in_bytes / 1e6


def _rows(mode: str, found: dict[str, float]) -> list[Row]:
    fit, acts_us = found["barrel fit: us"], found.get("ACTS: us")
    rows = [
        Row(f"{mode}: fit, barrel of {LAYERS} layers, us a track", fit),
        Row(f"{mode}: with its gradient", found["barrel gradient: us"], fit, 3),
        Row(
            f"{mode}: with that to the detector too",
            found["barrel gradient, detector too: us"],
            fit,
        ),
        Row(f"{mode}: Kalman smoother, barrel", found["barrel smoother: us"]),
        Row(f"{mode}: compilation of the fit, s", found["barrel fit: compile"], bar=10),
        Row(
            f"{mode}: compilation of its gradient, s", found["barrel gradient: compile"]
        ),
        Row(
            f"{mode}: fit, telescope, us, peer ACTS",
            found["telescope fit: us"],
            acts_us,
            None if acts_us is None else 0.1,
        ),
        Row(
            f"{mode}: Kalman smoother, telescope, us, peer ACTS",
            found["telescope smoother: us"],
            acts_us,
            None if acts_us is None else 1 / 3,
        ),
    ]
    if "numpy: us" in found:
        rows += [
            Row(f"{mode}: fit, barrel, us, peer NumPy", fit, found["numpy: us"]),
            Row(
                f"telescope: {TELESCOPE_STEPS} steps end so many s.d. from the minimum",
                found["steps"],
                bar=1e-5,
            ),
            Row(
                f"event of {EVENT} tracks, barrel and endcaps, gradient: memory, MB",
                found["memory"],
                bar=256,
            ),
        ]
    return rows


def main() -> int:
    """Measure both precisions and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mode", choices=MODES, help="measure one mode, print JSON")
    options = parser.parse_args()
    if options.mode:
        print(json.dumps(_measure(options.mode)))
        return 0
    rows = []
    for mode in MODES:
        command = [sys.executable, "-m", "benchmarks.tracking", "--mode", mode]
        *said, found = alone(command).splitlines()
        print(*said, sep="\n", end="\n" if said else "")
        rows += _rows(mode, json.loads(found))
    return report("tracking", rows, tracks=NUM_TRACKS, block=BLOCK, cores=1)


if __name__ == "__main__":
    raise SystemExit(main())
