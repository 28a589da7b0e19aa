"""Gradient descent on the jet radius: H to b bbar in ZH at 14 TeV.

What is maximised is the fraction of events whose two leading jets have a mass within 15
GeV of 125, by the score-function gradient through probabilistic clustering (anti-kt,
sharpness rising to 30), in the radius and in a scale of all energies: from R = 0.4 and
from R = 1.0, five seeds each; then in a radius that is a function of the transverse
momentum, with ten parameters, from a constant. What is reported was fixed before the
runs: the mean of the parameters over the last part of a fixed number of steps, and with
these the fraction in other events, clustered by fastjet (the function, which fastjet
does not know, by ours), in comparison with R = 0.4 on the same events, with the scale
that is best for that on the first events.

Each run is a file in `recorded/radius`; those that have one are not run again, and
`--seeds` lets processes share the work.
"""

import argparse
import json
import math
from typing import Any, NamedTuple

import awkward
import equinox as eqx
import fastjet
import jax
import jax.numpy as jnp
import numpy as np
import optax

from diffhep.estimators import leave_one_out, score_term, with_score
from diffhep.jets import (
    AbstractRadius,
    CompiledEngine,
    HistoryScore,
    JaxEngine,
    NearestOnly,
    RadiusInPt,
    cluster,
    sample_history,
)

from . import _radius_figures as figures
from ._harness import QUICK, RESULTS, Row, report
from ._higgs_jets import MASS, WINDOW, dijet_mass, load


RECORDED = RESULTS / "radius-quick" if QUICK else RESULTS.parent / "recorded" / "radius"


class Schedule(NamedTuple):
    """How one descent goes, and what of it is reported."""

    steps: int
    rate: float
    """Of Adam."""
    sharpness: tuple[float, float]
    """At the first step, and from the end of the rise on; geometric between."""
    rising: float
    """The share of the steps in which the sharpness rises."""
    averaged: float
    """The share of the steps, the last ones, whose mean is the result."""
    seeds: tuple[int, ...]


CONSTANT = Schedule(
    steps=6 if QUICK else 220,
    rate=0.03,
    sharpness=(10.0, 30.0),
    rising=0.3,
    averaged=0.7,
    seeds=(10,) if QUICK else (10, 11, 12, 13, 14),
)
IN_PT = Schedule(
    steps=4 if QUICK else 150,
    rate=0.02,
    sharpness=(3.0, 30.0),
    rising=1.0,
    averaged=0.25,
    seeds=(0,) if QUICK else (0, 1, 2, 3, 4),
)
SETTINGS = {
    "training events": 200 if QUICK else 2000,
    "test events": 200 if QUICK else 12_000,
    "starts": [0.4, 1.0],
    "constant": CONSTANT._asdict(),
    "in pt": IN_PT._asdict(),
    "events per step": 50 if QUICK else 128,
    "replicas": 8,
    "knots, GeV": [5.0, 8.0, 12.0, 20.0, 30.0, 45.0, 70.0, 100.0, 150.0, 250.0],
    "edge of the window, GeV": 3.0,
}
# Of the generator. The test events are not those of the first programme, whose results
# were known when this one was made.
_TRAINING, _TEST = 11, 13
# Where the descent has to end, and by how much it has to be better than R = 0.4.
RANGE, SIGMAS = (0.58, 0.75), 5.0
SCAN = (0.3, 0.4, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.9, 1.0, 1.2)
SCALES = np.linspace(0.8, 1.4, 121)
_POWER = -1.0
_BLOCK = 100


class Clustering(eqx.Module):
    """What is optimised."""

    radius: Any
    """The jet radius, a number or a function."""
    scale: Any
    """What energies are multiplied with."""


def _load(which: str, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    # All visible particles but the softest; one event in a hundred has more than 640.
    return load(SETTINGS[which], seed=seed, min_pt=0.1, max_eta=5.0, slots=640)


def _inside(mass: Any) -> Any:
    # A window with smooth edges, for the derivative to the scale.
    edge = SETTINGS["edge of the window, GeV"]
    return jax.nn.sigmoid((WINDOW - jnp.abs(mass - MASS)) / edge)


def _fraction(clustering: Clustering, sharpness, events, key) -> Any:
    """The smooth fraction of events in the window, with its gradient."""
    power = jnp.asarray(_POWER, sharpness.dtype)

    def event(momentum, mask, key):
        def replica(key):
            history, log_prob, score = sample_history(
                momentum,
                mask,
                radius=clustering.radius,
                power=power,
                sharpness=sharpness,
                candidates=NearestOnly(),
                engine=CompiledEngine(),
                key=key,
            )
            safe = jnp.zeros_like(score.momentum)
            inputs = HistoryScore(safe, clustering.radius, power, sharpness)
            term = score_term(with_score(log_prob, inputs, score))
            return term, dijet_mass(history, momentum, mask)

        terms, masses = jax.vmap(replica)(jax.random.split(key, SETTINGS["replicas"]))
        weight = jnp.exp(leave_one_out(terms))
        return jnp.mean(weight * _inside(clustering.scale * masses))

    keys = jax.random.split(key, len(events[1]))
    return jnp.mean(jax.vmap(event)(*events, keys))


@eqx.filter_jit
def _update(clustering, state, sharpness, events, *, key, rate):
    slope = eqx.filter_grad(lambda c: -_fraction(c, sharpness, events, key))
    change, state = optax.adam(rate).update(slope(clustering), state)
    moved = eqx.apply_updates(clustering, change)
    # A radius of nothing has no jets.
    return jax.tree.map(lambda x: jnp.clip(x, 0.1, 2.0), moved), state


def descend(start: Clustering, schedule: Schedule, seed: int) -> list[Clustering]:
    """The parameters after each step of the descent.

    Args:
        start: Where to begin.
        schedule: How to go.
        seed: Of events and histories.

    Returns:
        As many as there are steps.
    """
    momentum, mask = _load("training events", seed=_TRAINING)
    low, high = map(math.log, schedule.sharpness)
    rise = max(schedule.rising * (schedule.steps - 1), 1)
    state = optax.adam(schedule.rate).init(start)
    rng = np.random.default_rng(seed)
    path, current = [], start
    for step in range(schedule.steps):
        chosen = rng.choice(len(mask), SETTINGS["events per step"], replace=False)
        sharpness = math.exp(low + (high - low) * min(step / rise, 1.0))
        key = jax.random.fold_in(jax.random.key(seed), step)
        current, state = _update(
            current,
            state,
            jnp.asarray(sharpness),
            (jnp.asarray(momentum[chosen]), jnp.asarray(mask[chosen])),
            key=key,
            rate=schedule.rate,
        )
        path.append(current)
    return path


def _last(path: list[Clustering], averaged: float) -> Clustering:
    last = path[-max(int(len(path) * averaged), 1) :]
    return jax.tree.map(lambda *x: jnp.mean(jnp.stack(x), axis=0), *last)


@eqx.filter_jit
def _masses(radius, momentum, mask):
    engine = JaxEngine() if isinstance(radius, AbstractRadius) else CompiledEngine()

    def one(event):
        p, m = event
        history = cluster(p, m, radius=radius, power=jnp.asarray(_POWER), engine=engine)
        return dijet_mass(history, p, m)

    return jax.lax.map(one, (momentum, mask), batch_size=_BLOCK)


def masses(radius: Any, momentum: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Masses of the two leading jets of ordinary anti-kt."""
    return np.asarray(_masses(radius, jnp.asarray(momentum), jnp.asarray(mask)))


def fastjet_masses(radius: float, momentum: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The same by fastjet."""
    definition = fastjet.JetDefinition(
        fastjet.genkt_algorithm, radius, _POWER, fastjet.E_scheme, fastjet.N2Plain
    )
    names = ("px", "py", "pz", "E")
    particles = awkward.zip(
        {n: awkward.Array(momentum[..., k]) for k, n in enumerate(names)},
        with_name="Momentum4D",
    )
    particles = awkward.drop_none(awkward.mask(particles, awkward.Array(mask)))
    jets = fastjet.ClusterSequence(particles, definition).inclusive_jets(20.0)
    found = np.zeros(len(mask))
    for event, row in enumerate(jets):
        p = np.stack([awkward.to_numpy(row[n]) for n in names], axis=1)
        p = p[np.abs(np.arctanh(p[:, 2] / p[:, 3])) < 2.5]
        p = p[np.argsort(-np.hypot(p[:, 0], p[:, 1]))][:2].sum(axis=0)
        if len(row) > 1:
            found[event] = math.sqrt(max(p[3] ** 2 - (p[:3] ** 2).sum(), 0.0))
    return found


def _hits(mass: np.ndarray, scale: float) -> np.ndarray:
    return np.abs(scale * mass - MASS) < WINDOW


def _best_scale(mass: np.ndarray) -> float:
    return float(SCALES[np.argmax([_hits(mass, s).mean() for s in SCALES])])


def _runs(seeds: list[int] | None = None) -> dict[str, Any]:
    RECORDED.mkdir(parents=True, exist_ok=True)
    knots = SETTINGS["knots, GeV"]
    function = RadiusInPt(jnp.full(len(knots), 0.65), tuple(knots))
    jobs = [
        (f"constant-{start:g}", jnp.asarray(start), CONSTANT)
        for start in SETTINGS["starts"]
    ]
    found: dict[str, Any] = {}
    for name, radius, schedule in (*jobs, ("pt", function, IN_PT)):
        for seed in schedule.seeds:
            if seeds is not None and seed not in seeds:
                continue
            path = RECORDED / f"{name}-{seed}.json"
            if not path.exists():
                way = descend(Clustering(radius, jnp.asarray(1.0)), schedule, seed)
                text = json.dumps(_summary(way, schedule.averaged))
                path.write_text(text + "\n")
            found[f"{name}, seed {seed}"] = json.loads(path.read_text())
    return found


def _summary(path: list[Clustering], averaged: float) -> dict[str, Any]:
    def numbers(clustering: Clustering) -> dict[str, Any]:
        radius = clustering.radius
        values = radius.values if isinstance(radius, AbstractRadius) else radius
        return {
            "radius": np.round(np.asarray(values), 5).tolist(),
            "scale": round(float(clustering.scale), 5),
        }

    return {"end": numbers(_last(path, averaged)), "path": [numbers(c) for c in path]}


def _compared(one: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    # The difference of two fractions on the same events, and its standard error.
    apart = one.astype(float) - other.astype(float)
    return float(apart.mean()), float(apart.std() / math.sqrt(len(apart)))


def _scan() -> dict[float, np.ndarray]:
    """By radius the masses in the training events."""
    training = _load("training events", seed=_TRAINING)
    return {radius: masses(jnp.asarray(radius), *training) for radius in SCAN}


def _flatness(scan: dict[float, np.ndarray]) -> dict[float, tuple[float, float]]:
    """How far below its best what is maximised is, and the standard error of that.

    By ordinary clustering of the same events, each radius with its best scale.
    """
    smooth = {}
    for radius, mass in scan.items():
        windows = [np.asarray(_inside(scale * mass)) for scale in SCALES]
        smooth[radius] = max(windows, key=np.mean)
    best = max(smooth.values(), key=np.mean)
    return {radius: _compared(best, inside) for radius, inside in smooth.items()}


def _judge(runs: dict[str, Any]) -> list[Row]:
    test = _load("test events", seed=_TEST)
    scan, rows = _scan(), []
    scale = {radius: _best_scale(mass) for radius, mass in scan.items()}
    fraction = {r: float(_hits(mass, scale[r]).mean()) for r, mass in scan.items()}
    for radius, (below, error) in _flatness(scan).items():
        label = f"scan, R = {radius:g}"
        plain = float(_hits(scan[radius], 1.0).mean())
        rows += [
            Row(f"{label}: fraction", plain),
            Row(f"{label}: with the best scale", fraction[radius]),
            Row(f"{label}: that scale", scale[radius]),
            Row(f"{label}: what is maximised, below its best", below),
            Row(f"{label}: standard error of that", error),
        ]
    base = _hits(fastjet_masses(0.4, *test), scale[0.4])
    best = max(fraction, key=lambda radius: fraction[radius])
    constant = _hits(fastjet_masses(best, *test), scale[best])
    rows += [
        Row("R = 0.4 with its best scale: fraction in other events", base.mean()),
        Row(f"best of the scan, R = {best:g}: the same", constant.mean()),
    ]
    for name, run in runs.items():
        end = run["end"]
        if isinstance(end["radius"], list):
            knots = tuple(SETTINGS["knots, GeV"])
            radius = RadiusInPt(jnp.asarray(end["radius"]), knots)
            hits = _hits(masses(radius, *test), end["scale"])
            apart, error = _compared(hits, constant)
            rows += [
                Row(f"{name}: fraction in other events", hits.mean()),
                Row(f"{name}: better than the best constant by", apart),
                Row(f"{name}: standard error of that", error),
            ]
            continue
        hits = _hits(fastjet_masses(end["radius"], *test), end["scale"])
        apart, error = _compared(hits, base)
        centre, half = sum(RANGE) / 2, (RANGE[1] - RANGE[0]) / 2
        rows += [
            Row(f"{name}: R", end["radius"]),
            Row(f"{name}: scale", end["scale"]),
            Row(f"{name}: from {centre:g}", abs(end["radius"] - centre), None, half),
            Row(f"{name}: fraction in other events", hits.mean()),
            Row(f"{name}: better than R = 0.4 by, standard errors", apart / error),
            Row(f"{name}: short of {SIGMAS:g} of them", SIGMAS - apart / error, bar=0),
        ]
    return rows


def _draw(runs: dict[str, Any]) -> None:
    momentum, mask = _load("test events", seed=_TEST)
    end = runs[f"constant-0.4, seed {CONSTANT.seeds[0]}"]["end"]
    found = {
        "R = 0.4": masses(jnp.asarray(0.4), momentum, mask),
        f"R = {end['radius']:.2f}, after the descent": end["scale"]
        * masses(jnp.asarray(end["radius"]), momentum, mask),
    }
    # The first event with a mass in the window: two b jets that one can see.
    event = np.flatnonzero(_hits(found["R = 0.4"], 1.0))[0]
    figures.draw(
        RECORDED,
        runs,
        (momentum[event], mask[event]),
        found,
        scan=_flatness(_scan()),
        bar=RANGE,
    )


def main() -> int:
    """Run what has not been run, and report all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", help="run these, report none")
    parser.add_argument("--figures", action="store_true", help="draw, report nothing")
    arguments = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    if arguments.seeds:
        _runs(arguments.seeds)
        return 0
    if arguments.figures:
        _draw(_runs())
        return 0
    return report("radius", _judge(_runs()), **SETTINGS)


if __name__ == "__main__":
    raise SystemExit(main())
