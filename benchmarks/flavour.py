"""Flavour tagging: does a vertex fit inside the network help, and does its gradient?

Six arms of one tagger, trained alike, on jets of Pythia's Z -> q qbar at the Z pole and
of Z H at 14 TeV. Each arm and seed is a run of its own, whose result is a file in
`recorded/flavour`; a run that was interrupted goes on from its last checkpoint, and
those with a file are not run again. `--seeds` and `--arms` let processes share the
work; on two cores, two of them. `--figures` draws what the first seed has learnt, and
`--longer` says what twice as many steps would have brought.

What is measured, and when it ends, was fixed before the first run: rejections of light
and charm jets on the test jets of both samples at 70 % efficiency for b jets, D_b with
f_c = 0.05; five seeds of a fixed number of steps per arm, no choice among them by the
test jets; the ratio of an arm's to another's, with the error of a paired bootstrap over
jets and seeds. The rate of learning is chosen by `--rates` on the validation jets.
"""

import argparse
import hashlib
import itertools
import json
import os
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from diffhep.demo import configure_jax
from diffhep.optimise import train
from diffhep.plotting import flight_resolution, jet_display
from diffhep.tagging import BOTTOM, FROM_BOTTOM, FROM_CHARM, FlavourTagger, discriminant

from . import _flavour_arms as arms, _flavour_jets as data, _flavour_judge as judge
from ._harness import QUICK, RESULTS, Row, report


# Checkpoints and figures; a short run must not touch those of a long one.
SCRATCH = RESULTS / ("flavour-quick" if QUICK else "flavour")
RECORDED = SCRATCH if QUICK else RESULTS.parent / "recorded" / "flavour"
SETTINGS = {
    "jets": data.describe(),
    "network": arms.SIZE,
    "fit": "adaptive",
    "steps": 10 if QUICK else 1500,
    "batch": 64 if QUICK else 512,
    # The best of `--rates` for each of its arms; "stopped" was not tried at 1e-1.
    "rate": 3e-2,
    "weight decay": 1e-4,
    "seeds": 2 if QUICK else 5,
    "charm fraction": 0.05,
    "efficiencies": list(judge.EFFICIENCIES),
    "draws": judge.DRAWS,
}
# The choice of the rate: a seed that no run has, and a third of the steps.
TRIAL = {
    "rates": [1e-3, 3e-3, 1e-2, 3e-2, 1e-1],
    "arms": ["none", "stopped", "full"],
    "steps": 10 if QUICK else 500,
    "seed": 100,
}
COMPARED = (
    ("stopped", "none"),
    ("weights", "stopped"),
    ("full", "stopped"),
    ("full", "weights"),
    ("full", "none"),
    ("true selection", "none"),
    ("true vertex", "none"),
)
FLIGHTS = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
"""Bins of the true flight of b hadrons, in mm."""
_BLOCK = 200


def _joined(split: str) -> tuple[data.LabelledJets, np.ndarray]:
    """All jets of a split, and which sample each is of."""
    parts = data.load(split)
    sample = np.repeat(
        np.arange(len(parts)), [len(x.tracks.field) for x in parts.values()]
    )
    both = jax.tree.map(lambda *x: np.concatenate(x), *parts.values())
    # For the fit. The files are smaller in single precision.
    both = both._replace(
        tracks=jax.tree.map(
            lambda x: x.astype(float) if x.dtype == np.float32 else x, both.tracks
        )
    )
    return jax.tree.map(jnp.asarray, both), sample


def _train(arm: str, seed: int, *, steps: int, rate: float, name: str) -> FlavourTagger:
    init_key, train_key = jax.random.split(jax.random.key(seed))
    jets, _ = _joined("train")
    schedule = optax.cosine_onecycle_schedule(steps, rate, 0.1)
    optimiser = optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adamw(schedule, weight_decay=SETTINGS["weight decay"]),
    )
    mark = json.dumps([SETTINGS, steps, rate])
    result = train(
        arms.Loss(jets, arm, SETTINGS["batch"]),
        arms.build(init_key),
        optimiser=optimiser,
        num_steps=steps,
        checkpoint=SCRATCH / f"{name.replace(' ', '-')}.eqx",
        checkpoint_every=100,
        fingerprint=hashlib.sha256(mark.encode()).hexdigest()[:16],
        discard_other=True,
        description=f"{arm}, seed {seed}",
        key=train_key,
    )
    return result.params


@eqx.filter_jit
def _blockwise(arm: str, tagger: FlavourTagger, jets: data.LabelledJets) -> Any:
    """Logits, flights and weights, in blocks of bounded memory."""

    def one(jet: data.LabelledJets) -> Any:
        output = arms.apply(arm, tagger, jet.tracks, jet.truth)
        loss = arms.losses(output, jet)
        return output.flavour, output.vertex.flight, output.vertex.weight, loss

    blocks = jax.tree.map(lambda x: jnp.reshape(x, (-1, _BLOCK, *x.shape[1:])), jets)
    out = jax.lax.map(jax.vmap(one), blocks)
    return jax.tree.map(lambda x: jnp.reshape(x, (-1, *x.shape[2:])), out)


def _judge(arm: str, tagger: FlavourTagger) -> dict[str, Any]:
    jets, sample = _joined("test")
    logits, flight, weight, _ = _blockwise(arm, tagger, jets)
    scores = discriminant(logits, charm_fraction=SETTINGS["charm fraction"])
    truth = jax.tree.map(np.asarray, jets.truth)
    return {
        "log rejection": judge.log_rejections(
            np.asarray(scores, float), truth.flavour, sample, data.SAMPLES
        ),
        "selection": _selection(np.asarray(weight), jets),
        "resolution": _resolution(np.asarray(flight), jets),
    }


def _selection(weight: np.ndarray, jets: data.LabelledJets) -> dict[str, float]:
    """Mean weights of b jets' tracks, of heavy hadrons and of others."""
    mask = np.asarray(jets.tracks.mask)
    mask = mask & (np.asarray(jets.truth.flavour) == BOTTOM)[:, None]
    heavy = np.isin(np.asarray(jets.truth.origin), (FROM_BOTTOM, FROM_CHARM))
    return {
        "heavy": float(weight[mask & heavy].mean()),
        "others": float(weight[mask & ~heavy].mean()),
    }


def _resolution(flight: np.ndarray, jets: data.LabelledJets) -> list[dict[str, float]]:
    """Distances from the true decay of b hadrons, by their flight."""
    true = np.asarray(jets.truth.flight)
    length = np.linalg.norm(true, axis=1)
    error = np.linalg.norm(flight - true, axis=1)
    bottom = (np.asarray(jets.truth.flavour) == BOTTOM) & (length > 0)
    rows = []
    for low, high in itertools.pairwise(FLIGHTS):
        here = error[bottom & (length >= low) & (length < high)]
        if len(here):
            row = {"low": low, "high": high, "jets": len(here)}
            row |= {f"q{q:g}": float(np.quantile(here, q / 100)) for q in (50, 68, 95)}
            rows.append(row | {"mean": float(here.mean())})
    return rows


def _validation_loss(arm: str, tagger: FlavourTagger) -> float:
    jets, _ = _joined("validation")
    *_, loss = _blockwise(arm, tagger, jets)
    return float(jnp.mean(loss.flavour))


def run(arm: str, seed: int, *, longer: bool = False) -> dict[str, Any]:
    """The result of one arm and seed, from its file if there is one.

    Args:
        arm: Which arm.
        seed: Its seed.
        longer: Whether to train it twice as long.

    Returns:
        Logarithms of the rejections with those of the bootstrap's draws, mean weights
        of the tracks, and the resolution of the vertex.

    Raises:
        ValueError: The file is of other settings.
    """
    name = f"{arm.replace(' ', '-')}-{seed}" + "-longer" * longer
    path = RECORDED / f"{name}.json"
    if path.exists():
        stored = json.loads(path.read_text())
        if stored["settings"] != SETTINGS:
            raise ValueError(
                f"{path.name} is of other settings than those of flavour.py; move the "
                "folder it is in, or restore them."
            )
        return stored["found"]
    tagger = _tagger(arm, seed, longer=longer)
    found = {"validation loss": _validation_loss(arm, tagger), **_judge(arm, tagger)}
    RECORDED.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}.part")
    part.write_text(json.dumps({"settings": SETTINGS, "found": found}) + "\n")
    part.replace(path)
    how = ", longer" if longer else ""
    print(f"{arm}, seed {seed}{how}: loss {found['validation loss']:.4f}", flush=True)
    return found


def _tagger(arm: str, seed: int, *, longer: bool = False) -> FlavourTagger:
    """The trained tagger; from its checkpoint if that is finished."""
    return _train(
        arm,
        seed,
        steps=SETTINGS["steps"] * (2 if longer else 1),
        rate=SETTINGS["rate"],
        name=f"{arm}-{seed}" + "-longer" * longer,
    )


def _try_rates() -> list[Row]:
    """Losses on the validation jets after a short training, for each rate."""
    rows = []
    for arm in TRIAL["arms"]:
        for rate in TRIAL["rates"]:
            tagger = _train(
                arm,
                TRIAL["seed"],
                steps=TRIAL["steps"],
                rate=rate,
                name=f"trial-{arm}-{rate}",
            )
            loss = _validation_loss(arm, tagger)
            rows.append(Row(f"{arm}: loss at a rate of {rate}", loss))
    return rows


def _rows(results: dict[str, list[dict[str, Any]]]) -> list[Row]:
    rows = []
    for arm, runs in results.items():
        losses = np.array([found["validation loss"] for found in runs])
        rows.append(Row(f"validation loss: {arm}{_error(losses)}", losses.mean()))
    for name in (*data.SAMPLES, "both"):
        for background in judge.BACKGROUNDS:
            for efficiency in judge.EFFICIENCIES:
                key = f"{background} at {efficiency:.2f}"
                tables = {
                    arm: [found["log rejection"][name][key] for found in runs]
                    for arm, runs in results.items()
                }
                rows += _of_point(f"{name}, {key}", tables)
    return rows


def _reasons(results: dict[str, list[dict[str, Any]]]) -> list[Row]:
    """What the arms select, and how well their vertices are resolved."""
    rows = []
    for arm, runs in results.items():
        if arm == "none":
            continue
        for kind in ("heavy", "others"):
            values = np.array([found["selection"][kind] for found in runs])
            label = f"b jets, mean weight of tracks, {kind}: {arm}{_error(values)}"
            rows.append(Row(label, values.mean()))
        for bins in zip(*(found["resolution"] for found in runs), strict=True):
            low, high = bins[0]["low"], bins[0]["high"]
            for quantile in ("q50", "q68", "q95"):
                values = np.array([one[quantile] for one in bins])
                label = f"flight {low:g} to {high:g} mm, error, {quantile}, mm: {arm}"
                rows.append(Row(label + _error(values), values.mean()))
    return rows


def _of_point(label: str, tables: dict[str, list[dict[str, Any]]]) -> list[Row]:
    rows = []
    for arm, table in tables.items():
        value = np.array([run["value"] for run in table])
        error = _bootstrap(np.array([run["draws"] for run in table]), value)
        mean = float(np.exp(value.mean()))
        rows.append(Row(f"{label}: {arm} (+- {mean * error:.2g})", mean))
    for arm, other in COMPARED:
        if arm not in tables or other not in tables:
            continue
        both = min(len(tables[arm]), len(tables[other]))
        value, draws = (
            np.array([a[key] for a in tables[arm][:both]])
            - np.array([b[key] for b in tables[other][:both]])
            for key in ("value", "draws")
        )
        ratio, error = float(np.exp(value.mean())), _bootstrap(draws, value)
        rows.append(Row(f"{label}: {arm} / {other} (+- {ratio * error:.2g})", ratio))
    return rows


def _bootstrap(draws: np.ndarray, values: np.ndarray) -> float:
    """Standard error of the mean over seeds, from jets and from seeds.

    The draws of the jets are those of all seeds together. That of the seeds is what a
    bootstrap over them gives, but for its bias: it has n - 1 degrees of freedom, not n.
    """
    of_jets = draws.mean(axis=0).std(ddof=1)
    of_seeds = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else 0.0
    return float(np.hypot(of_jets, of_seeds))


def _draw(chosen: list[str]) -> None:
    """Figures of the first seed: resolution by decay length, and a bottom jet."""
    jets, _ = _joined("test")
    bottom = np.flatnonzero(np.asarray(jets.truth.flavour) == BOTTOM)
    length = np.linalg.norm(np.asarray(jets.truth.flight), axis=1)
    # Whatever comes first, of a flight that can be seen.
    shown = next(k for k in bottom if 3 < length[k] < 6)
    one = jax.tree.map(lambda x: x[shown], jets)
    fitted = {}
    for arm in [arm for arm in chosen if arm not in {"none", "true vertex"}]:
        tagger = _tagger(arm, 0)
        _, flight, _, _ = _blockwise(arm, tagger, jets)
        fitted[arm] = np.asarray(flight)[bottom]
        vertex = arms.apply(arm, tagger, one.tracks, one.truth).vertex
        figure = jet_display(one.tracks, vertex, truth=one.truth, title=arms.ARMS[arm])
        figure.savefig(SCRATCH / f"jet-{arm.replace(' ', '-')}.svg")
    if fitted:
        true = np.asarray(jets.truth.flight)[bottom]
        figure = flight_resolution(true, fitted, edges=np.geomspace(0.25, 64, 9))
        figure.savefig(SCRATCH / "resolution.svg")


def _error(values: np.ndarray) -> str:
    if len(values) < 2:
        return ""
    return f" (+- {values.std(ddof=1) / np.sqrt(len(values)):.2g})"


def main() -> int:
    """Run what is missing and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    everyone = list(range(SETTINGS["seeds"]))
    parser.add_argument("--seeds", type=int, nargs="*", default=everyone)
    parser.add_argument("--arms", nargs="*", default=list(arms.ARMS))
    parser.add_argument(
        "--rates", action="store_true", help="try the rates of learning, nothing else"
    )
    parser.add_argument(
        "--figures", action="store_true", help="draw figures of the first seed"
    )
    parser.add_argument(
        "--longer", action="store_true", help="train twice as long, beside the others"
    )
    options = parser.parse_args()
    configure_jax(None)
    SCRATCH.mkdir(parents=True, exist_ok=True)
    if options.rates:
        return report("flavour-rates", _try_rates(), settings=SETTINGS, trial=TRIAL)
    results: dict[str, list[dict[str, Any]]] = {}
    for seed in options.seeds:
        for arm in options.arms:
            results.setdefault(arm, []).append(run(arm, seed, longer=options.longer))
    if options.figures:
        _draw(options.arms)
    rows = _rows(results) + _reasons(results)
    area = "flavour-longer" if options.longer else "flavour"
    return report(area, rows, settings=SETTINGS)


if __name__ == "__main__":
    raise SystemExit(main())
