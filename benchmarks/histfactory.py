"""Fits and tests of a published likelihood, beside pyhf.

The five signal points of the search for bottom squarks that the tests use. Each row is
measured after its equality gate: the same minimum, the same CLs. Ours and the peers run
one after the other in one process, in turns, and what is compared is processor time.
"""

import json
import lzma
import tarfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import everwillow
import jax
import jax.numpy as jnp
import numpy as np
import pyhf
from everwillow.statelib import State

from diffhep.inference import (
    FitStatus,
    Measurement,
    fit_measurement,
    fit_toys,
    histfactory,
    hypothesis_test,
)
from diffhep.inference._toys import search_toys

from ._harness import QUICK, Row, report


DATA = Path(__file__).parent.parent / "tests/inference/histfactory/data"
POINTS = [
    ("RegionA", "1300_205_60"),
    ("RegionA", "1400_950_60"),
    ("RegionA", "1500_850_60"),
    ("RegionB", "1400_550_60"),
    ("RegionC", "1600_850_60"),
]
BACKENDS = {"numpy": 100, "jax": 10}
"""From backend of pyhf to how many times faster we have to be."""
# Calls in a turn: two tenths of a second or more.
_CALLS = {"fit": 200, "everwillow": 100, "jax": 20, "numpy": 1, "test": 50}
_fit = jax.jit(fit_measurement)
_test = jax.jit(hypothesis_test)
_toys = jax.jit(fit_toys, static_argnames="batch_size")
_search = jax.jit(search_toys, static_argnums=2)


def _workspace(region: str, point: str) -> histfactory.Workspace:
    with (
        lzma.open(DATA / "sbottom.tar.xz") as raw,
        tarfile.open(fileobj=raw) as archive,
    ):
        background, patch = (
            json.load(archive.extractfile(f"{region}/{name}.json"))
            for name in ("BkgOnly", f"patch.sbottom_{point}")
        )
    return histfactory.apply_patch(histfactory.read_workspace(background), patch)


def _seconds(function: Callable[[], Any], *, repeats: int = 1) -> float:
    # Of all processor cores together, per call.
    start = time.process_time()
    for _ in range(repeats):
        jax.block_until_ready(function())
    return (time.process_time() - start) / repeats


def _compile(function: Callable[[], Any]) -> float:
    start = time.perf_counter()
    jax.block_until_ready(function())
    return time.perf_counter() - start


def _peers(content: dict[str, Any]) -> dict[str, Callable[[], float]]:
    # Free fits with each backend, once that is set; they return the minimum.
    def make(backend: str) -> Callable[[], float]:
        pyhf.set_backend(backend, precision="64b")
        workspace = pyhf.Workspace(content)
        model = workspace.model()
        data = pyhf.tensorlib.astensor(workspace.data(model))

        def fit() -> float:
            _, value = pyhf.infer.mle.fit(data, model, return_fitted_val=True)
            return float(np.asarray(value))

        return fit

    return {backend: make(backend) for backend in BACKENDS}


def _fit_without_bounds(measurement: Measurement) -> Callable[[], float]:
    # By everwillow's default, BFGS, of our likelihood; it returns the minimum. Its
    # bounds would be one transformation for each parameter.
    free = np.flatnonzero(~np.asarray(measurement.fixed))
    start = State.from_pytree({"free": measurement.start[free]})

    def value(parameters: Any, likelihood: Any) -> Any:
        return likelihood.value(measurement.start.at[free].set(parameters["free"]))

    @jax.jit
    def fit(likelihood: Any) -> Any:
        found = everwillow.fit(value, start, likelihood, throw=False, max_steps=2000)
        return jnp.where(found.success, found.nll, jnp.nan), found.params.to_pytree()

    return lambda: 2 * float(fit(measurement.likelihood)[0])


def _measure(region: str, point: str) -> list[Row]:
    name = f"{region[-1]} {point}"
    workspace = _workspace(region, point)
    model = histfactory.build_model(workspace)
    data = histfactory.observed_data(workspace, model)
    measurement = histfactory.measure(model, data)
    one = jnp.asarray(1.0)
    compile_fit = _compile(lambda: _fit(measurement))
    compile_test = _compile(lambda: _test(measurement, one))
    peers = _peers(workspace.content)
    best = 2 * float(measurement.likelihood.value(_fit(measurement).parameters))
    starts, minima = {}, {}
    for backend, peer in peers.items():
        pyhf.set_backend(backend, precision="64b")
        # Their first call compiles, too.
        starts[backend] = _compile(peer)
        # pyhf with JAX compiles again in the next few.
        minima[backend] = min(peer() for _ in range(5 if backend == "jax" else 1))
    for value in minima.values():
        if best > value + 1e-6:
            raise RuntimeError(f"{name}: our minimum {best} is above theirs, {value}.")
    other = _fit_without_bounds(measurement)
    starts["everwillow"] = _compile(other)
    # Where a bound is active the other fit is another one.
    if abs(other() - best) < 1e-6:
        peers["everwillow"] = other
    calls = {"fit": lambda: _fit(measurement), **peers}
    best_time = _take_turns(calls | {"test": lambda: _test(measurement, one)})
    rows = [
        Row(
            f"{name}: free fit, ms (peer: pyhf {backend})",
            best_time["fit"] * 1e3,
            best_time[backend] * 1e3,
            1 / factor,
        )
        for backend, factor in BACKENDS.items()
    ]
    if "everwillow" in peers:
        quantity = f"{name}: free fit, ms (peer: everwillow, no bounds)"
        rows.append(
            Row(quantity, best_time["fit"] * 1e3, best_time["everwillow"] * 1e3)
        )
    rows.append(
        Row(
            f"{name}: test with bands, ms (peer: free fit)",
            best_time["test"] * 1e3,
            best_time["fit"] * 1e3,
            10.0,
        )
    )
    rows += _time_toys(name, model, measurement, best_time["numpy"])
    rows.append(Row(f"{name}: compilation of the fit, s", compile_fit, starts["jax"]))
    rows.append(Row(f"{name}: compilation of the test, s", compile_test))
    quantity = f"{name}: compilation of the fit, s (peer: everwillow, no bounds)"
    rows.append(Row(quantity, compile_fit, starts["everwillow"]))
    excess = max(best - value for value in minima.values())
    rows.append(Row(f"{name}: -2 log L above pyhf's", excess, bar=1e-6))
    return rows


def _take_turns(calls: dict[str, Callable[[], Any]]) -> dict[str, float]:
    # Seconds of each: the fastest, for pyhf with JAX now and then compiles once more.
    times: dict[str, list[float]] = {key: [] for key in calls}
    for _ in range(3 if QUICK else 7):
        for key, call in calls.items():
            if key in BACKENDS:
                pyhf.set_backend(key, precision="64b")
            # The first after another's turn finds caches and threads cold.
            call()
            times[key].append(_seconds(call, repeats=_CALLS[key]))
    return {key: min(values) for key, values in times.items()}


def _time_toys(
    name: str,
    model: histfactory.HistFactoryModel,
    measurement: Measurement,
    peer: float,
) -> list[Row]:
    # Background and signal as predicted. The peer is one fit of the observed data.
    number = 100 if QUICK else 500
    keys = jax.random.split(jax.random.key(3), number)
    data = jax.vmap(lambda key: histfactory.sample_data(model, model.start, key=key))(
        keys
    )
    fits = _toys(measurement, data)
    good = jax.vmap(lambda status: status == FitStatus.converged)(fits.status)
    if not jnp.all(good):
        raise RuntimeError(f"{name}: {int(jnp.sum(~good))} of {number} toys failed.")

    def measure(size: int | None) -> float:
        fits = lambda: _toys(measurement, data, batch_size=size)  # noqa: E731
        _compile(fits)
        return min(_seconds(fits) for _ in range(3)) / number * 1e3

    def share(size: int) -> Row:
        # Of the steps of all lanes, those that a fit needed: as they are taken, and if
        # each batch waited for its slowest fit.
        ends = _search(measurement, data, size)
        steps = np.asarray(ends.states.index)
        waits = sum(max(steps[i : i + size]) for i in range(0, number, size))
        needed = float(np.sum(steps)) / size
        quantity = f"{name}: useful steps in batches of {size} (peer: if all waited)"
        return Row(quantity, needed / int(ends.num_iterations), needed / float(waits))

    own = measure(None)
    quantity = f"{name}: a toy, {number} all converged, ms (peer: a fit, pyhf numpy)"
    return [
        Row(quantity, own, peer * 1e3, 1 / 100),
        *(
            Row(f"{name}: a toy in batches of {size}, ms (peer: alone)", found, own)
            for size, found in ((size, measure(size)) for size in (8, 64))
        ),
        *(share(size) for size in (8, 64)),
    ]


def main() -> int:
    """Run the benchmark."""
    jax.config.update("jax_enable_x64", True)
    warnings.filterwarnings("ignore")
    points = POINTS[-2:] if QUICK else POINTS
    rows = [row for point in points for row in _measure(*point)]
    return report("histfactory", rows)


if __name__ == "__main__":
    raise SystemExit(main())
