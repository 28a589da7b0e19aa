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

from diffhep.generator import (
    GeneratorConfig,
    Process,
    default_cache,
    generate_events,
    load_events,
)
from diffhep.jets import (
    AbstractEngine,
    CompiledEngine,
    JaxEngine,
    NearestNeighbours,
    cluster,
    jets_from_history,
    sample_history,
)

from ._harness import QUICK, Row, report


SIZES = (64, 128) if QUICK else (64, 128, 256, 512)
BATCHES = (64,) if QUICK else (1, 64, 512)
REPEATS = 3 if QUICK else 5
# The first call of a turn finds the caches, and the other core, taken by others.
CALLS = 3
EXACT_EVENTS = 100 if QUICK else 2000
RADII = (0.4, 1.0) if QUICK else (0.2, 0.4, 0.7, 1.0)
POWERS = {"anti-kt": -1.0, "kt": 1.0, "C/A": 0.0, "genkt 0.5": 0.5}
NUM_JETS = 16
# Ours over fastjet's wall time.
COMPILED_BARS = {64: 0.7, 128: 0.7, 256: 0.7, 512: 1.2}
JAX_BARS = {64: 1.6, 128: 1.6, 256: 4.0, 512: 9.0}
# A sampled tree with its score, among nearest neighbours, over the deterministic one.
SAMPLED_BAR = 3.0
# The batch for which pure JAX samples, too.
SAMPLED_IN_JAX = 64


def _dijets(number: int, slots: int) -> tuple[np.ndarray, np.ndarray]:
    process = Process(
        name="dijets",
        label=0,
        commands=("HardQCD:all=on", "PhaseSpace:pTHatMin=100."),
        num_tried=number,
        chunk_size=max(number // 2, 1),
    )
    config = GeneratorConfig(
        name="jets-benchmark", processes=(process,), min_pt=0.05, max_eta=5.0
    )
    folder = generate_events(config, cache=default_cache())
    particles = load_events(folder, capacity=slots).events.particles
    # The hardest come first where some are left out; put them there in any case.
    momentum, mask = map(np.asarray, (particles.momentum, particles.mask))
    pt = np.where(mask, np.hypot(momentum[..., 0], momentum[..., 1]), -1.0)
    order = np.argsort(-pt, axis=1)
    return (
        np.take_along_axis(momentum, order[..., None], axis=1),
        np.take_along_axis(mask, order, axis=1),
    )


def _definition(radius: float, power: float) -> Any:
    # An explicit strategy and scheme: other constructors take the arguments for
    # something else without a word.
    made = fastjet.JetDefinition(
        fastjet.genkt_algorithm, radius, power, fastjet.E_scheme, fastjet.N2Plain
    )
    if "E scheme" not in made.description():
        raise RuntimeError(f"fastjet understood {made.description()!r}.")
    return made


def _by_fastjet(momentum: np.ndarray, mask: np.ndarray, definition: Any) -> list:
    """For each event, jets by their constituents."""
    found = []
    for p, alive in zip(momentum, mask, strict=True):
        particles = []
        for slot in np.flatnonzero(alive):
            particle = fastjet.PseudoJet(*map(float, p[slot]))
            particle.set_user_index(int(slot))
            particles.append(particle)
        sequence = fastjet._swig.ClusterSequence(particles, definition)
        found.append(
            {
                frozenset(c.user_index() for c in jet.constituents()): np.array(
                    [jet.px(), jet.py(), jet.pz(), jet.e()]
                )
                for jet in sequence.inclusive_jets(0.0)
            }
        )
    return found


def _exactness(engines: dict[str, AbstractEngine]) -> list[Row]:
    slots = 256
    momentum, mask = _dijets(EXACT_EVENTS, slots)

    def all_jets(p: Any, m: Any, settings: Any, engine: AbstractEngine) -> Any:
        history = cluster(p, m, radius=settings[0], power=settings[1], engine=engine)
        jets, _ = jets_from_history(
            history, p, m, num_jets=slots, threshold=0.0, width=1.0
        )
        return jets.momentum, jets.membership, jets.mask

    runs = {
        name: jax.jit(
            lambda settings, engine=engine: jax.lax.map(
                lambda event: all_jets(*event, settings, engine),
                (jnp.asarray(momentum), jnp.asarray(mask)),
                batch_size=100,
            )
        )
        for name, engine in engines.items()
    }
    differ = dict.fromkeys(engines, 0)
    worst = dict.fromkeys(engines, 0.0)
    number = 0
    for power in POWERS.values():
        for radius in RADII:
            expected = _by_fastjet(momentum, mask, _definition(radius, power))
            number += sum(map(len, expected))
            for name, run in runs.items():
                arrays = map(np.asarray, run(jnp.asarray([radius, power])))
                for p, member, alive, wanted in zip(*arrays, expected, strict=True):
                    sets = map(frozenset, map(np.flatnonzero, member[alive]))
                    found = dict(zip(sets, p[alive], strict=True))
                    differ[name] += len(found.keys() ^ wanted.keys())
                    for both in found.keys() & wanted.keys():
                        apart = np.abs(found[both] - wanted[both]).max()
                        worst[name] = max(worst[name], apart / wanted[both][3])
    rows = [Row(f"jets compared, {len(POWERS)} algorithms, {len(RADII)} radii", number)]
    for name in engines:
        rows += [
            Row(f"{name}: jets with other constituents", differ[name], bar=0.0),
            Row(f"{name}: momenta, largest error", worst[name], bar=1e-12),
        ]
    return rows


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
    definition = _definition(0.4, -1.0)

    def run() -> None:
        fastjet.ClusterSequence(array, definition).inclusive_jets()

    return run


def _speed(size: int, batch: int) -> list[Row]:
    momentum, mask = _dijets(2 * max(BATCHES), size)
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
    rows = _exactness({"compiled": CompiledEngine(), "pure JAX": JaxEngine()})
    for size in SIZES:
        for batch in BATCHES:
            rows += _speed(size, batch)
    return report("jets", rows, events=EXACT_EVENTS, sizes=SIZES, batches=BATCHES)


if __name__ == "__main__":
    raise SystemExit(main())
