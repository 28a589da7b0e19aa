"""Jet clustering: engines beside fastjet, on the same events of Pythia 8.

First whether the jets are the same, then how long they take. The peer of the times is
the awkward-array interface of PyPI's fastjet, from the array to the inclusive jets;
ours go from the array to the jets too. Engines take turns, and all see the same events:
dijet events with their hardest particles, as many as the size says.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import awkward
import fastjet
import jax
import jax.numpy as jnp
import numpy as np

from diffhep.jets import (
    AbstractEngine,
    CompiledEngine,
    EScheme,
    JaxEngine,
    NearestNeighbours,
    RapidityAzimuth,
    cluster,
    jets_from_history,
    sample_history,
)

from ._harness import QUICK, Row, report
from ._jets_exact import EVENTS, compare, definition, dijets


SIZES = (64, 128) if QUICK else (64, 128, 256, 512)
BATCHES = (64,) if QUICK else (1, 64, 512)
REPEATS = 3 if QUICK else 5
# The first call of a turn finds the caches, and the other core, taken by others.
CALLS = 3
NUM_JETS = 16
# Ours over fastjet's wall time.
COMPILED_BARS = {64: 0.7, 128: 0.7, 256: 0.7, 512: 1.2}
JAX_BARS = {64: 1.6, 128: 1.6, 256: 4.0, 512: 9.0}
# A sampled tree with its score, among nearest neighbours, over the deterministic one.
SAMPLED_BAR = 3.0
# The batch for which pure JAX samples, too.
SAMPLED_IN_JAX = 64


def _timed(calls: dict[str, Callable[[], Any]]) -> dict[str, tuple[float, float]]:
    """Medians of wall and CPU seconds of each call, in turns of some calls each."""
    spent = {name: [] for name in calls}
    for _ in range(REPEATS):
        for name, call in calls.items():
            for _ in range(CALLS):
                before = time.perf_counter(), time.process_time()
                jax.block_until_ready(call())
                after = time.perf_counter(), time.process_time()
                spent[name].append((after[0] - before[0], after[1] - before[1]))
    return {
        name: (
            statistics.median(wall for wall, _ in times),
            statistics.median(cpu for _, cpu in times),
        )
        for name, times in spent.items()
    }


def _jets_of(engine: AbstractEngine) -> Callable[..., Any]:
    def one(p: Any, m: Any) -> Any:
        kind = p.dtype
        history = cluster(
            p, m, radius=jnp.asarray(0.4, kind), power=jnp.asarray(-1.0, kind),
            engine=engine,
        )  # fmt: skip
        jets, _ = jets_from_history(
            history, p, m, num_jets=NUM_JETS, threshold=0.0, width=1.0
        )
        return jets.momentum

    return jax.vmap(one)


def _sampled(engine: AbstractEngine) -> Callable[..., Any]:
    def one(p: Any, m: Any, key: Any) -> Any:
        settings = {"radius": 0.4, "power": -1.0, "sharpness": 10.0}
        values = {name: jnp.asarray(x, p.dtype) for name, x in settings.items()}
        return sample_history(
            p, m, **values, candidates=NearestNeighbours(), engine=engine, key=key
        )

    return jax.vmap(one)


def _greedy(engine: AbstractEngine) -> Callable[..., Any]:
    def one(p: Any, m: Any) -> Any:
        values = {"radius": 0.4, "power": -1.0}
        settings = {name: jnp.asarray(x, p.dtype) for name, x in values.items()}
        return cluster(p, m, **settings, engine=engine)

    return jax.vmap(one)


def _compiled(function: Callable, *arrays: Any) -> tuple[Callable[[], Any], float]:
    start = time.perf_counter()
    program = jax.jit(function).lower(*arrays).compile()
    spent = time.perf_counter() - start
    jax.block_until_ready(program(*arrays))
    return lambda: program(*arrays), spent


def _peer(events: np.ndarray) -> Callable[[], None]:
    names = ("px", "py", "pz", "E")
    array = awkward.zip(
        {name: events[..., k] for k, name in enumerate(names)}, with_name="Momentum4D"
    )
    array = awkward.from_regular(array, axis=1)
    wanted = definition(0.4, -1.0, RapidityAzimuth(), EScheme())

    def run() -> None:
        fastjet.ClusterSequence(array, wanted).inclusive_jets()

    return run


def _speed(size: int, batch: int) -> list[Row]:
    momentum, mask = dijets(2 * max(BATCHES), size)
    full = np.flatnonzero(mask.all(axis=1))
    if len(full) == 0:
        raise RuntimeError(f"No event has {size} particles.")
    events = momentum[np.resize(full, batch)]
    peer = _peer(events)
    single, alive = jnp.asarray(events, "float32"), jnp.ones(events.shape[:2], bool)
    double = jnp.asarray(events)
    keys = jax.random.split(jax.random.key(0), batch)
    calls: dict[str, Callable[[], Any]] = {"fastjet": peer}
    compilation = {}
    jobs = {
        "compiled": (_jets_of(CompiledEngine()), double, alive),
        "jax": (_jets_of(JaxEngine()), single, alive),
        "greedy compiled": (_greedy(CompiledEngine()), double, alive),
        "sampled compiled": (_sampled(CompiledEngine()), double, alive, keys),
    }
    if batch == SAMPLED_IN_JAX:
        jobs["greedy jax"] = (_greedy(JaxEngine()), single, alive)
        jobs["sampled jax"] = (_sampled(JaxEngine()), single, alive, keys)
    for name, (function, *arrays) in jobs.items():
        calls[name], compilation[name] = _compiled(function, *arrays)
    peer()
    found = _timed(calls)
    micro = {n: (1e6 * w / batch, 1e6 * c / batch) for n, (w, c) in found.items()}
    label = f"N = {size}, batch {batch}"
    judged = batch > 1
    rows = [
        Row(
            f"{label}: compiled engine, us an event",
            micro["compiled"][0],
            micro["fastjet"][0],
            COMPILED_BARS[size] if judged else None,
        ),
        Row(f"{label}: the same, CPU us", micro["compiled"][1], micro["fastjet"][1]),
        Row(
            f"{label}: pure JAX in float32, us an event",
            micro["jax"][0],
            micro["fastjet"][0],
            JAX_BARS[size] if judged else None,
        ),
        Row(f"{label}: the same, CPU us", micro["jax"][1], micro["fastjet"][1]),
        Row(f"{label}: its compilation, s", compilation["jax"]),
        Row(
            f"{label}: compiled, sampled with its score, peer deterministic",
            micro["sampled compiled"][0],
            micro["greedy compiled"][0],
            SAMPLED_BAR if judged else None,
        ),
    ]
    if "sampled jax" in micro:
        quantity = f"{label}: pure JAX, sampled with its score, peer deterministic"
        rows.append(Row(quantity, micro["sampled jax"][0], micro["greedy jax"][0]))
    return rows


def main() -> int:
    """Compare, measure and report."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    jax.config.update("jax_enable_x64", True)
    rows = compare({"compiled": CompiledEngine(), "pure JAX": JaxEngine()})
    for size in SIZES:
        for batch in BATCHES:
            rows += _speed(size, batch)
    return report("jets", rows, events=EVENTS, sizes=SIZES, batches=BATCHES)


if __name__ == "__main__":
    raise SystemExit(main())
