import dataclasses

import fastjet
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffhep.generator import (
    GeneratorConfig,
    generate_events,
    load_events,
    z_jets,
    zh_nunubb,
)
from diffhep.jets import (
    CompiledEngine,
    FastjetEngine,
    JaxEngine,
    cluster,
    jets_from_history,
)


EVENTS = 200


def _by(engine):
    def one(momentum, mask, settings):
        return cluster(momentum, mask, **settings, engine=engine)

    return jax.jit(jax.vmap(one, in_axes=(0, 0, None)))


BY_ENGINE = {
    "jax": _by(JaxEngine()),
    "compiled": _by(CompiledEngine()),
    "fastjet": _by(FastjetEngine()),
}


@pytest.fixture(scope="module", params=["toys", "pythia"])
def events(request, toys, tmp_path_factory):
    if request.param == "pythia":
        return _pythia(tmp_path_factory.mktemp("cache"))
    rng = np.random.default_rng(7)
    mask = np.arange(48)[None] < rng.integers(2, 49, EVENTS)[:, None]
    momentum = np.where(mask[..., None], toys.momenta(rng, mask.shape), np.nan)
    return jnp.asarray(momentum), jnp.asarray(mask)


def _pythia(cache):
    half = EVENTS // 2
    signal = dataclasses.replace(zh_nunubb(num_tried=half), chunk_size=half // 2)
    background = dataclasses.replace(
        z_jets(num_tried=half), chunk_size=half // 2, keep_per_chunk=None
    )
    config = GeneratorConfig(name="jets", processes=(signal, background), seed=3)
    source = generate_events(config, cache=cache, num_workers=2, progress=False)
    events = load_events(source, capacity=96).events
    assert events.log_weight.shape == (EVENTS,)
    return events.particles.momentum, events.particles.mask


@jax.jit
@jax.vmap
def _all_jets(history, momentum, mask):
    return jets_from_history(
        history, momentum, mask, num_jets=len(mask), threshold=0.0, width=1.0
    )[0]


def _by_fastjet(momentum, mask, radius, power):
    # The generalised algorithm with an explicit strategy: other constructors take the
    # arguments for something else without a word.
    definition = fastjet.JetDefinition(
        fastjet.genkt_algorithm, radius, power, fastjet.E_scheme, fastjet.N2Plain
    )
    assert "E scheme" in definition.description()
    assert f"R = {radius:g}, p = {power:g}" in definition.description()
    particles = []
    for slot in np.flatnonzero(mask):
        particle = fastjet.PseudoJet(*(float(x) for x in momentum[slot]))
        particle.set_user_index(int(slot))
        particles.append(particle)
    sequence = fastjet._swig.ClusterSequence(particles, definition)
    return {
        frozenset(part.user_index() for part in jet.constituents()): np.array(
            [jet.px(), jet.py(), jet.pz(), jet.e()]
        )
        for jet in sequence.inclusive_jets(0.0)
    }


@pytest.mark.parametrize("radius", [0.2, 0.4, 0.7, 1.0])
@pytest.mark.parametrize("power", [-1.0, 0.0, 0.5, 1.0])
def test_jets_of_every_engine_are_those_of_fastjet(toys, events, power, radius):
    momentum, mask = events
    settings = toys.settings(radius, power)
    histories = {n: run(momentum, mask, settings) for n, run in BY_ENGINE.items()}
    expected = [
        _by_fastjet(*event, radius, power)
        for event in zip(np.asarray(momentum), np.asarray(mask), strict=True)
    ]
    assert sum(map(len, expected)) > 5 * EVENTS
    for history in histories.values():
        jets = jax.tree.map(np.asarray, _all_jets(history, momentum, mask))
        for event, wanted in enumerate(expected):
            alive = jets.mask[event]
            members = map(np.flatnonzero, jets.membership[event][alive])
            momenta = jets.momentum[event][alive]
            found = dict(zip(map(frozenset, members), momenta, strict=True))
            assert found.keys() == wanted.keys()
            for slots, p in found.items():
                np.testing.assert_allclose(p, wanted[slots], rtol=0, atol=1e-12 * p[3])
    # Not only the jets: the order of all steps. With a power of zero all beams are
    # equally near, and come last in any order.
    reference = histories["jax"]
    checked = (reference.take != -1) | (power != 0)
    for history in histories.values():
        np.testing.assert_array_equal(history.take, reference.take)
        np.testing.assert_array_equal(history.keep[checked], reference.keep[checked])
