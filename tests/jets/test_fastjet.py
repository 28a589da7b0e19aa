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
from diffhep.jets import jets_from_history


EVENTS = 200


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


@pytest.mark.parametrize("radius", [0.4, 0.7])
@pytest.mark.parametrize("power", [-1.0, 0.0, 1.0])
def test_deterministic_jets_are_those_of_fastjet(toys, events, power, radius):
    momentum, mask = events
    history = toys.cluster(momentum, mask, toys.settings(radius, power))
    jets = jax.tree.map(np.asarray, _all_jets(history, momentum, mask))
    number = 0
    for event in range(EVENTS):
        expected = _by_fastjet(momentum[event], mask[event], radius, power)
        alive = jets.mask[event]
        found = {
            frozenset(np.flatnonzero(row)): p
            for row, p in zip(
                jets.membership[event][alive], jets.momentum[event][alive], strict=True
            )
        }
        assert alive.sum() == len(expected)
        assert set(found) == set(expected)
        for members, p in found.items():
            np.testing.assert_allclose(p, expected[members], rtol=0, atol=1e-12 * p[3])
        number += len(found)
    assert number > 5 * EVENTS
