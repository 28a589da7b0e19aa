"""Vertex fits: time, compilation and agreement, beside SciPy, ACTS and NDIVE.

Every process runs on ONE core, ours and the peers' alike. The peer from ACTS needs
`pip install pyacts==48.1.0`, in this environment or in that of the interpreter that
`ACTS_PYTHON` names; without it its rows are left out, and said so.
"""

import argparse
import functools
import json
import os
import statistics
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffhep.demo import QUICK_COMPILATION
from diffhep.helix import move_perigee
from diffhep.vertexing import VertexFit, fit_vertex

from . import _acts_peer as acts, _scipy_vertex as scipy
from ._harness import QUICK, Row, alone, report
from ._vertex_jets import FIELD, TRACKS, VertexJets, draw_jets


JETS = 100
REPEATS = 6 if QUICK else 30
SCIPY_JETS = 5 if QUICK else 20
MODES = {
    "float32": "float32",
    "float64": "float64",
    "quick": "float64, XLA flags of diffhep's commands",
}
"""What is measured, each in a process of its own."""
STEPS = 6
# A metre: the tracks alone decide.
WIDTH = 1e3
# NDIVE's public code, 100 jets of 15 tracks, in CPU seconds (measured once, on a
# machine like ours): fit and gradient to the weights, and their compilation.
NDIVE_RUN, NDIVE_COMPILE = 0.39, 58.0


def _fit(parameters, covariance, weight, *, num_steps=STEPS) -> VertexFit:
    dtype = parameters.dtype
    return fit_vertex(
        parameters,
        covariance,
        weight,
        jnp.ones(weight.shape, bool),
        jnp.asarray(FIELD, dtype),
        prior_mean=jnp.zeros(3, dtype),
        prior_precision=jnp.eye(3, dtype=dtype) / WIDTH**2,
        start=jnp.zeros(3, dtype),
        num_steps=num_steps,
    )


def _number(parameters, covariance, weight):
    # Position, covariance, chi-squared and ndf take part in the gradient.
    fit = _fit(parameters, covariance, weight)
    variance = jnp.diagonal(fit.covariance)
    width = jax.lax.stop_gradient(jnp.sqrt(variance))
    return (
        jnp.sum(fit.position / width)
        + jnp.sum(jnp.log(variance))
        + fit.chi2
        + jnp.sqrt(fit.ndf)
    )


def _total(weight, parameters, covariance):
    return jnp.sum(jax.vmap(_number)(parameters, covariance, weight))


def _compiled(function, *arguments) -> tuple[Any, float]:
    # In CPU seconds, tracing included, as the peer's.
    start = time.process_time()
    compiled = jax.jit(function).lower(*arguments).compile()
    spent = time.process_time() - start
    call = functools.partial(compiled, *arguments)
    jax.block_until_ready(call())
    return call, spent


def _timed(
    jets: VertexJets, dtype: str, python: str | None, *, peers: bool
) -> dict[str, float]:
    # In turns, so that a machine that slows down does so for all of them.
    given = [jnp.asarray(x, dtype) for x in jets[:3]]
    weighted = [given[2], *given[:2]]
    jobs = {
        "fit": (jax.vmap(_fit), *given),
        "weights": (jax.value_and_grad(_total), *weighted),
        "all": (jax.value_and_grad(_total, (0, 1, 2)), *weighted),
    }
    found, calls = {}, {}
    for name, (function, *arguments) in jobs.items():
        calls[name], found[f"{name}: compile"] = _compiled(function, *arguments)
    others = {"scipy": lambda: _scipy_seconds(jets)} if peers else {}
    if python is not None:
        others["acts"] = lambda: _ask(python, jets, "billoir")["seconds"]
    wall = {name: [] for name in (*calls, *others)}
    spent = {name: [] for name in calls}
    for turn in range(REPEATS):
        for name, call in calls.items():
            before = time.perf_counter(), time.process_time()
            jax.block_until_ready(call())
            wall[name].append((time.perf_counter() - before[0]) / JETS)
            spent[name].append(time.process_time() - before[1])
        if turn % 6 == 0:
            for name, peer in others.items():
                wall[name].append(peer())
    found |= {f"{name}: wall": statistics.median(x) for name, x in wall.items()}
    return found | {f"{name}: cpu": statistics.median(x) for name, x in spent.items()}


def _scipy_seconds(jets: VertexJets) -> float:
    # For one jet.
    start = time.perf_counter()
    for jet in range(SCIPY_JETS):
        _scipy(jets, jet)
    return (time.perf_counter() - start) / SCIPY_JETS


def _scipy(jets: VertexJets, jet: int) -> np.ndarray:
    prior = scipy.Prior(np.zeros(3), np.eye(3) / WIDTH)
    return scipy.fit_vertex(jets.parameters[jet], jets.covariance[jet], FIELD, prior)


def _ask(python: str, jets: VertexJets, fitter: str) -> dict[str, Any]:
    job = {
        "parameters": jets.parameters.tolist(),
        "covariance": jets.covariance.tolist(),
        "field": FIELD,
        "fitter": fitter,
    }
    return acts.ask(python, "_acts_vertex", job)


def _spread(name: str, distance: np.ndarray) -> dict[str, float]:
    # Of positions, in standard deviations.
    size = np.abs(distance)
    return {
        f"{name}: rms": float(np.sqrt(np.mean(size**2))),
        f"{name}: median": float(np.median(size)),
        f"{name}: largest": float(np.max(size)),
    }


def _agreement(python: str | None) -> dict[str, float]:
    jets, found = draw_jets(JETS), {}
    one = np.ones_like(jets.weight)
    run = jax.jit(jax.vmap(functools.partial(_fit, num_steps=20)))
    fit = run(*map(jnp.asarray, (jets.parameters, jets.covariance, one)))
    width = np.sqrt(np.diagonal(fit.covariance, axis1=1, axis2=2))
    position = np.asarray(fit.position)
    short = jax.jit(jax.vmap(_fit))(*map(jnp.asarray, (*jets[:2], one)))
    found["steps"] = float(np.max(np.abs(short.position - position) / width))
    many = slice(SCIPY_JETS)
    theirs = np.stack([_scipy(jets, jet) for jet in range(SCIPY_JETS)])
    found |= _spread("scipy", (theirs - position[many]) / width[many])
    exact = np.stack(
        [
            scipy.fit_vertex_and_momenta(*tracks, FIELD, start)
            for *tracks, start in zip(*jets[:2], position[many], strict=False)
        ]
    )
    found |= _spread("exact", (exact - position[many]) / width[many])
    if python is None:
        return found
    theirs = _acts(python, jets)
    found |= _spread("acts, as given", (theirs - position) / width)
    found |= _spread("acts, exact", (theirs[many] - exact) / width[many])
    # ACTS keeps the iteration with the least linearised chi-squared, which need not be
    # the last: for some jets it is the first, linearised about the beam line.
    first = jax.jit(jax.vmap(functools.partial(_fit, num_steps=1)))
    first = first(*map(jnp.asarray, (*jets[:2], one))).position
    apart = np.stack([(theirs - at) / width for at in (first, position)])
    nearest = np.abs(apart).max(axis=2).argmin(axis=0)
    found |= _spread("acts, step", apart[nearest, np.arange(JETS)])
    found["acts: first step"] = float(np.mean(nearest == 0))
    moved = _about(jets, position)
    again = np.asarray(run(*map(jnp.asarray, (*moved[:2], one))).position)
    found |= _spread("acts", (_acts(python, moved) - again) / width)
    prompt = draw_jets(JETS, displaced=False)
    fit = run(*map(jnp.asarray, (prompt.parameters, prompt.covariance, one)))
    width = np.sqrt(np.diagonal(fit.covariance, axis1=1, axis2=2))
    theirs = _acts(python, prompt)
    found |= _spread("acts, prompt", (theirs - fit.position) / width)
    answer = _ask(python, prompt, "adaptive")
    found["adaptive: wall"] = answer["seconds"]
    found["adaptive: single"] = float(
        np.mean([len(p) == 1 for p in answer["positions"]])
    )
    return found


def _acts(python: str, jets: VertexJets) -> np.ndarray:
    return np.array([p[0] for p in _ask(python, jets, "billoir")["positions"]])


def _about(jets: VertexJets, points: np.ndarray) -> VertexJets:
    """The same tracks about a point of each jet, which becomes the origin."""
    field = jnp.asarray(FIELD)
    move = jax.vmap(
        jax.vmap(lambda p, c, x: move_perigee(p, c, x, field), (0, 0, None))
    )
    moved = jax.jit(move)(*map(jnp.asarray, (*jets[:2], points)))
    return VertexJets(*map(np.asarray, moved), jets.weight, jets.vertex - points)


def _measure(mode: str) -> dict[str, float]:
    if mode == "quick":
        # XLA reads them at the first computation.
        os.environ["XLA_FLAGS"] += f" {QUICK_COMPILATION}"
    # The jets are drawn in double precision.
    with jax.enable_x64(True):
        jets = draw_jets(JETS)
    dtype = "float32" if mode == "float32" else "float64"
    jax.config.update("jax_enable_x64", dtype == "float64")
    python = acts.find() if mode == "float64" else None
    found = _timed(jets, dtype, python, peers=mode == "float64")
    return found | (_agreement(python) if mode == "float64" else {})


def _rows(mode: str, found: dict[str, float]) -> list[Row]:
    label = MODES[mode]
    rows = [
        Row(f"{label}: fit, us a jet", 1e6 * found["fit: wall"]),
        Row(
            f"{label}: with gradient to weights, CPU s, peer NDIVE",
            found["weights: cpu"],
            NDIVE_RUN,
            1 / 50,
        ),
        Row(
            f"{label}: to weights, tracks, covariances, CPU s, peer NDIVE",
            found["all: cpu"],
            NDIVE_RUN,
            1 / 50,
        ),
        Row(f"{label}: compilation of the fit, CPU s", found["fit: compile"]),
        Row(
            f"{label}: of that with gradient to weights, peer NDIVE",
            found["weights: compile"],
            NDIVE_COMPILE,
            1 / 10,
        ),
        Row(
            f"{label}: of that to weights, tracks, covariances, peer NDIVE",
            found["all: compile"],
            NDIVE_COMPILE,
            1 / 10,
        ),
    ]
    if mode != "float64":
        return rows
    ours = 1e6 * found["fit: wall"]
    rows += [
        Row("fit, us a jet, peer SciPy", ours, 1e6 * found["scipy: wall"]),
        Row(f"{STEPS} steps end so many s.d. from 20", found["steps"], bar=1e-3),
        Row("from SciPy, s.d., rms", found["scipy: rms"], bar=1e-3),
        Row("from SciPy, s.d., largest", found["scipy: largest"], bar=1e-3),
        Row("from the minimum in all unknowns, s.d., rms", found["exact: rms"]),
        Row("from the minimum in all unknowns, largest", found["exact: largest"]),
    ]
    return rows + (_acts_rows(found, ours) if "acts: wall" in found else [])


def _acts_rows(found: dict[str, float], ours: float) -> list[Row]:
    return [
        Row("fit, us a jet, peer ACTS (Billoir)", ours, 1e6 * found["acts: wall"]),
        Row("fit, us a jet, peer ACTS (adaptive)", ours, 1e6 * found["adaptive: wall"]),
        Row("prompt jets with one adaptive vertex of ACTS", found["adaptive: single"]),
        *_distances("from ACTS, tracks about the vertex", found, "acts", 0.05),
        *_distances("from ACTS, tracks about the beam line", found, "acts, as given"),
        *_distances("the same, from our first or last step", found, "acts, step"),
        Row("the same, share where the first is nearer", found["acts: first step"]),
        Row("ACTS from the minimum in all unknowns, rms", found["acts, exact: rms"]),
        *_distances("from ACTS, prompt jets", found, "acts, prompt", 0.05),
    ]


def _distances(
    label: str, found: dict[str, float], name: str, bar: float | None = None
) -> list[Row]:
    return [
        Row(f"{label}, s.d., {kind}", found[f"{name}: {kind}"], bar=bar)
        for kind in ("rms", "median", "largest")
    ]


def main() -> int:
    """Measure each mode and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mode", choices=MODES, help="measure one mode, print JSON")
    options = parser.parse_args()
    if options.mode:
        print(json.dumps(_measure(options.mode)))
        return 0
    rows = []
    # Without a cache of compiled code: each mode is a process of its own.
    for mode in ["float64"] if QUICK else MODES:
        command = [sys.executable, "-m", "benchmarks.vertexing", "--mode", mode]
        *said, found = alone(command).splitlines()
        print(*said, sep="\n", end="\n" if said else "")
        rows += _rows(mode, json.loads(found))
    return report("vertexing", rows, jets=JETS, tracks=TRACKS, cores=1)


if __name__ == "__main__":
    raise SystemExit(main())
