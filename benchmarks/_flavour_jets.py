"""Jets of known flavour: Pythia's events through detector, tracks, vertex and jets."""

import hashlib
import json
import os
from dataclasses import fields
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, PRNGKeyArray

from diffhep.demo import device_mesh
from diffhep.detector import DetectHits, MeasureTowers, PlaceDetector, SimulateHits
from diffhep.estimators import Detached
from diffhep.event import Event
from diffhep.generator import (
    GeneratorConfig,
    Process,
    dataset_folder,
    default_cache,
    generate_events,
    load_events,
)
from diffhep.geometry import default_barrel, detector_of
from diffhep.jets import ClusterJets, CollectConstituents
from diffhep.optimise import progress_bar
from diffhep.pipeline import Pipeline, map_events
from diffhep.tagging import JetTracks, JetTruth, jet_tracks, jet_truth
from diffhep.tracking import FitTracks
from diffhep.vertexing import FitPrimaryVertex

from ._harness import QUICK


FLAVOURS = ("light", "charm", "bottom")
SAMPLES = ("z_pole", "zh")
SPLITS = {"train": 25_000, "validation": 5_000, "test": 25_000}
"""Jets of each flavour from each sample."""
if QUICK:
    SPLITS = {"train": 400, "validation": 200, "test": 200}
NUM_TRACKS = 20
"""Slots for the tracks of a jet, its hardest."""
JETS = {
    "radius": 0.5,
    "sharpness": 1000.0,
    "least pt": 20.0,
    "largest eta": 1.8,
    "tracks": NUM_TRACKS,
}
"""Anti-kt jets, in GeV."""
# Events per jet that is wanted, with a margin.
_EVENTS = {"z_pole": 0.85, "zh": 0.8}
# One program for both saves a compilation, which a few events are not worth.
_CAPACITY = {"z_pole": 64, "zh": 64} if QUICK else {"z_pole": 48, "zh": 104}
_CHUNK = 256 if QUICK else 2048
_HADRONIC = {
    "light": ("23:onIfAny=1 2 3",),
    "charm": ("23:onIfAny=4",),
    "bottom": ("23:onIfAny=5",),
}
_HIGGS = {"light": "21 21", "charm": "4 -4", "bottom": "5 -5"}


class LabelledJets(NamedTuple):
    """Jets with the truth about them, along a leading axis."""

    tracks: JetTracks
    truth: JetTruth


def load(split: str) -> dict[str, LabelledJets]:
    """The jets of a split, made unless they are in the cache.

    Args:
        split: One of `SPLITS`.

    Returns:
        For each of `SAMPLES` as many jets of each flavour, light first.
    """
    return {
        sample: jax.tree.map(
            lambda *parts: np.concatenate(parts),
            *(_jets(sample, flavour)[split] for flavour in FLAVOURS),
        )
        for sample in SAMPLES
    }


def describe() -> dict[str, object]:
    """What the jets depend on, beside the code."""
    return {
        "splits": SPLITS,
        "jets": JETS,
        "capacity": _CAPACITY,
        "events": {
            sample: [
                dataset_folder(_config(sample, flavour)).name for flavour in FLAVOURS
            ]
            for sample in SAMPLES
        },
    }


def _config(sample: str, flavour: str) -> GeneratorConfig:
    number = int(sum(SPLITS.values()) * _EVENTS[sample])
    if sample == "z_pole":
        energy, commands = (
            91.1876,
            (
                "Beams:idA=11",
                "Beams:idB=-11",
                "PDF:lepton=off",
                "WeakSingleBoson:ffbar2gmZ=on",
                "23:onMode=off",
                *_HADRONIC[flavour],
            ),
        )
        spread, underlying = (0.01, 0.01, 0.4), True
    else:
        energy, commands = (
            14_000.0,
            (
                "HiggsSM:ffbar2HZ=on",
                "PhaseSpace:pTHatMin=150.",
                "23:onMode=off",
                "23:onIfAny=12 14 16",
                "25:onMode=off",
                f"25:onIfMatch={_HIGGS[flavour]}",
            ),
        )
        # Events with an underlying event would take ten times as long to make.
        spread, underlying = (0.01, 0.01, 45.0), False
    process = Process(
        name=flavour, label=1, commands=commands, num_tried=number, chunk_size=2500
    )
    return GeneratorConfig(
        name=f"flavour-{sample.replace('_', '-')}",
        processes=(process,),
        beam_energy=energy,
        min_pt=0.5,
        vertex_spread=spread,
        # K0S, Lambda and the hyperons decay.
        max_decay_length=100.0,
        multiparton_interactions=underlying,
    )


def _jets(sample: str, flavour: str) -> dict[str, LabelledJets]:
    config = _config(sample, flavour)
    text = json.dumps([dataset_folder(config).name, SPLITS, JETS, _CAPACITY[sample]])
    key = hashlib.sha256(text.encode()).hexdigest()[:12]
    path = default_cache() / "flavour" / f"{sample}-{flavour}-{key}.npz"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}.part.npz")
        # Good enough for the tracks, and twice as fast.
        with jax.enable_x64(False):
            made = _make(sample, flavour)
        np.savez(part, **vars(made.tracks), **vars(made.truth))
        part.replace(path)
    with np.load(path) as file:
        jets = LabelledJets(
            *(
                kind(**{field.name: file[field.name] for field in fields(kind)})
                for kind in (JetTracks, JetTruth)
            )
        )
    ends = np.cumsum([0, *SPLITS.values()])
    return {
        split: jax.tree.map(lambda x, a=a, b=b: x[a:b], jets)
        for split, a, b in zip(SPLITS, ends[:-1], ends[1:], strict=True)
    }


def _pipeline() -> Pipeline:
    return Pipeline(
        [
            PlaceDetector(default_barrel()),
            SimulateHits(),
            MeasureTowers(),
            DetectHits(estimator=Detached()),
            FitTracks(),
            FitPrimaryVertex(),
            CollectConstituents(),
            ClusterJets(
                radius=jnp.asarray(JETS["radius"]),
                power=jnp.asarray(-1.0),
                sharpness=jnp.asarray(JETS["sharpness"]),
                num_jets=4,
                estimator=Detached(),
            ),
        ]
    )


def _of_event(
    pipeline: Pipeline, event: Event, key: PRNGKeyArray
) -> tuple[LabelledJets, Bool[Array, " jets"]]:
    """The jets of an event, and which are usable."""
    event = pipeline(event, key=key)
    jets, primary = event.jets, event.primary_vertex
    tracks, place, _ = jet_tracks(
        event.tracks,
        jets,
        primary,
        detector_of(event.detector).field,
        num_tracks=NUM_TRACKS,
    )
    truth = jet_truth(event.particles, event.truth_vertex, jets, place)
    x, y, z, _ = jnp.moveaxis(tracks.momentum, 1, 0)
    pt = jnp.sqrt(x**2 + y**2)
    central = jnp.abs(z) < pt * np.sinh(JETS["largest eta"])
    usable = jets.mask & (pt > JETS["least pt"]) & central & primary.mask[0]
    return LabelledJets(tracks, truth), usable & jnp.any(tracks.mask, axis=1)


@eqx.filter_jit
def _of_events(events: Event) -> tuple[LabelledJets, Bool[Array, "events jets"]]:
    return map_events(
        _of_event, _pipeline(), events, mesh=device_mesh(), key=jax.random.key(7)
    )


def _make(sample: str, flavour: str) -> LabelledJets:
    folder = generate_events(_config(sample, flavour))
    events = load_events(folder, capacity=_CAPACITY[sample], dtype="float32").events
    number = events.log_weight.shape[0]
    wanted, found, parts = sum(SPLITS.values()), 0, []
    starts = range(0, number, _CHUNK)
    with progress_bar(f"{sample}, {flavour}: events", total=len(starts)) as bar:
        for start in starts:
            place = np.minimum(np.arange(start, start + _CHUNK), number - 1)
            jets, usable = _of_events(jax.tree.map(lambda x, p=place: x[p], events))
            new = np.arange(start, start + _CHUNK) < number
            good = np.asarray(usable) & new[:, None]
            good &= np.asarray(jets.truth.flavour) == FLAVOURS.index(flavour)
            parts.append(jax.tree.map(lambda x, g=good: np.asarray(x)[g], jets))
            found += int(good.sum())
            bar(f"{found} jets")
            if found >= wanted:
                break
    if found < wanted:
        raise ValueError(
            f"{number} events of {sample} gave {found} jets of {flavour} flavour, but "
            f"{wanted} are wanted; raise `_EVENTS`."
        )
    # Jets of one event lie on two sides of a split's end twice at most.
    return jax.tree.map(lambda *x: np.concatenate(x)[:wanted], *parts)
