import fastjet
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffhep.jets import jets_from_history


EVENTS, SLOTS = 200, 48


@pytest.fixture(scope="module")
def events(toys):
    rng = np.random.default_rng(7)
    mask = np.arange(SLOTS)[None] < rng.integers(2, SLOTS + 1, EVENTS)[:, None]
    momentum = np.where(mask[..., None], toys.momenta(rng, mask.shape), np.nan)
    return jnp.asarray(momentum), jnp.asarray(mask)


@jax.jit
@jax.vmap
def _all_jets(history, momentum, mask):
    return jets_from_history(
        history, momentum, mask, num_jets=SLOTS, threshold=0.0, width=1.0
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
