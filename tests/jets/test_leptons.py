"""e+e- algorithms and recombination schemes: every engine beside fastjet."""

import fastjet
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffhep.generator import GeneratorConfig, Process, generate_events, load_events
from diffhep.jets import (
    AbstractMetric,
    CompiledEngine,
    EnergyAngle,
    EScheme,
    FastjetEngine,
    JaxEngine,
    PtScheme,
    RapidityAzimuth,
    WinnerTakeAllMomentum,
    WinnerTakeAllPt,
    cluster,
    exclusive_momenta,
    exclusive_steps,
    jets_from_history,
    step_distances,
)
from diffhep.testing import check_gradient


EVENTS = 100
SLOTS = 64
SCHEMES = {
    "E": (EScheme(), fastjet.E_scheme),
    "pt": (PtScheme(), fastjet.pt_scheme),
    "winner pt": (WinnerTakeAllPt(), fastjet.WTA_pt_scheme),
    "winner momentum": (WinnerTakeAllMomentum(), fastjet.WTA_modp_scheme),
}


@pytest.fixture(scope="module")
def z_pole(tmp_path_factory):
    process = Process(
        name="z",
        label=1,
        commands=(
            "Beams:idA=11",
            "Beams:idB=-11",
            "PDF:lepton=off",
            "WeakSingleBoson:ffbar2gmZ=on",
            "23:onMode=off",
            "23:onIfAny=1 2 3 4 5",
        ),
        num_tried=EVENTS,
        chunk_size=EVENTS,
    )
    config = GeneratorConfig(
        name="z", processes=(process,), beam_energy=91.2, min_pt=1e-6, max_eta=20.0
    )
    cache = tmp_path_factory.mktemp("cache")
    source = generate_events(config, cache=cache, num_workers=1, progress=False)
    particles = load_events(source, capacity=SLOTS).events.particles
    assert float(np.mean(particles.mask.sum(axis=1))) > 25
    return particles.momentum, particles.mask


@pytest.fixture(scope="module")
def hadrons(toys):
    rng = np.random.default_rng(8)
    mask = np.arange(SLOTS)[None] < rng.integers(2, SLOTS + 1, EVENTS)[:, None]
    return jnp.asarray(toys.momenta(rng, mask.shape)), jnp.asarray(mask)


def _theirs(momentum, mask, definition):
    sequences = []
    for p, alive in zip(np.asarray(momentum), np.asarray(mask), strict=True):
        particles = []
        for slot in np.flatnonzero(alive):
            particle = fastjet.PseudoJet(*(float(x) for x in p[slot]))
            particle.set_user_index(int(slot))
            particles.append(particle)
        sequences.append(fastjet._swig.ClusterSequence(particles, definition))
    return sequences


def _numbers(jet):
    return np.array([jet.px(), jet.py(), jet.pz(), jet.e()])


def _members(jet):
    return frozenset(part.user_index() for part in jet.constituents())


def _histories(events, engine, kind, settings):
    def one(momentum, mask, settings):
        return cluster(momentum, mask, **settings, **kind, engine=engine)

    return jax.jit(jax.vmap(one, (0, 0, None)))(*events, settings)


def _jets(history, events, kind):
    def one(history, momentum, mask):
        return jets_from_history(
            history, momentum, mask, num_jets=SLOTS, threshold=0.0, width=1.0, **kind
        )[0]

    return jax.tree.map(np.asarray, jax.jit(jax.vmap(one))(history, *events))


def _compare(events, kind, definition, settings):
    sequences = _theirs(*events, definition)
    reference = None
    for engine in (JaxEngine(), CompiledEngine(), FastjetEngine()):
        history = _histories(events, engine, kind, settings)
        reference = history if reference is None else reference
        # With a power of zero all beams are equally near, and come in any order.
        checked = (reference.take != -1) | (settings["power"] != 0)
        np.testing.assert_array_equal(history.take, reference.take)
        np.testing.assert_array_equal(history.keep[checked], reference.keep[checked])
    jets = _jets(reference, events, kind)
    for event, sequence in enumerate(sequences):
        wanted = {_members(j): _numbers(j) for j in sequence.inclusive_jets(0.0)}
        alive = jets.mask[event]
        sets = map(frozenset, map(np.flatnonzero, jets.membership[event][alive]))
        found = dict(zip(sets, jets.momentum[event][alive], strict=True))
        assert found.keys() == wanted.keys()
        for slots, p in found.items():
            size = max(wanted[slots][3], np.abs(wanted[slots]).max())
            np.testing.assert_allclose(p, wanted[slots], rtol=0, atol=1e-12 * size)
    return reference, sequences


@pytest.mark.parametrize("power", [-1.0, 0.0, 1.0])
@pytest.mark.parametrize("radius", [0.4, 1.0, 2.0])
def test_generalised_algorithm_of_lepton_colliders(toys, z_pole, radius, power):
    definition = fastjet.JetDefinition(
        fastjet.ee_genkt_algorithm, radius, power, fastjet.E_scheme, fastjet.N2Plain
    )
    assert f"R = {radius:g}, p = {power:g} and E scheme" in definition.description()
    settings = toys.settings(radius, power)
    _compare(z_pole, {"metric": EnergyAngle()}, definition, settings)


@pytest.mark.parametrize("scheme", ["E", "winner momentum"])
def test_durham(toys, z_pole, scheme):
    ours, theirs = SCHEMES[scheme]
    definition = fastjet.JetDefinition0Param(
        fastjet.ee_kt_algorithm, theirs, fastjet.N2Plain
    )
    assert "Durham" in definition.description()
    kind = {"metric": EnergyAngle(), "scheme": ours}
    settings = toys.settings(np.inf, 1.0)
    history, sequences = _compare(z_pole, kind, definition, settings)

    def distances(history, momentum, mask):
        return step_distances(history, momentum, mask, **settings, **kind)

    def exclusive(history, momentum, mask):
        return exclusive_momenta(history, momentum, mask, num_jets=3, scheme=ours)

    found = np.asarray(jax.jit(jax.vmap(distances))(history, *z_pole))
    three = np.asarray(jax.jit(jax.vmap(exclusive))(history, *z_pole))
    counts = np.asarray(z_pole[1]).sum(axis=1)
    for event, sequence in enumerate(sequences):
        # The merging of three jets to two, whose distance over s is y_23.
        merge = found[event, counts[event] - 3]
        np.testing.assert_allclose(merge, sequence.exclusive_dmerge(2), rtol=1e-11)
        jets = np.stack([_numbers(j) for j in sequence.exclusive_jets(3)])
        order = np.argsort(jets[:, 3]), np.argsort(three[event, :, 3])
        np.testing.assert_allclose(three[event][order[1]], jets[order[0]], atol=1e-9)
        cut = 0.01 * 91.2**2
        steps = int(exclusive_steps(jnp.asarray(found[event]), jnp.asarray(cut)))
        assert counts[event] - steps == sequence.n_exclusive_jets(cut)


@pytest.mark.parametrize("power", [-1.0, 1.0])
@pytest.mark.parametrize("scheme", ["pt", "winner pt"])
def test_schemes_of_hadron_colliders(toys, hadrons, scheme, power):
    ours, theirs = SCHEMES[scheme]
    definition = fastjet.JetDefinition(
        fastjet.genkt_algorithm, 0.7, power, theirs, fastjet.N2Plain
    )
    kind = {"metric": RapidityAzimuth(), "scheme": ours}
    _compare(hadrons, kind, definition, toys.settings(0.7, power))


@pytest.mark.parametrize("name", SCHEMES)
def test_gradients_through_a_scheme(toys, name):
    # Heavy, so that finite differences find no negative square of a mass.
    momentum = jnp.asarray(toys.momenta(np.random.default_rng(4), (12,), mass=5.0))
    mask = jnp.ones(12, bool)
    scheme, _ = SCHEMES[name]
    history = cluster(momentum, mask, **toys.settings(1.0, 1.0), scheme=scheme)

    def hardest(momentum):
        jets, _ = jets_from_history(
            history, momentum, mask, num_jets=2, threshold=0.0, width=1.0, scheme=scheme
        )
        return jnp.sum(jets.momentum * jnp.asarray([[1.0, -2.0, 0.5, 3.0]]))

    check_gradient(hardest, (momentum,))


def test_at_rest_and_without_energy(toys):
    # What has no direction has that of the beam, as in fastjet; values stay finite.
    rng = np.random.default_rng(2)
    momentum = toys.momenta(rng, (8,))
    momentum[0] = 0.0, 0.0, 0.0, 0.14
    momentum[1] = 0.0, 0.0, 0.0, 0.0
    mask = jnp.ones(8, bool)
    for power in (-1.0, 1.0):
        settings = toys.settings(0.8, power)
        histories = [
            cluster(
                jnp.asarray(momentum),
                mask,
                **settings,
                metric=EnergyAngle(),
                engine=engine,
            )
            for engine in (JaxEngine(), CompiledEngine(), FastjetEngine())
        ]
        members = [toys.members(x.keep, x.take) for x in histories]
        assert members[0] == members[1] == members[2]


def test_an_unknown_metric_needs_jax(toys, hadrons):
    class Mine(AbstractMetric):
        def coordinates(self, momentum, power):
            return RapidityAzimuth().coordinates(momentum, power)

        def apart2(self, first, second):
            return RapidityAzimuth().apart2(first, second)

        def reach2(self, radius):
            return radius**2

        def size(self, momentum):
            return RapidityAzimuth().size(momentum)

    momentum, mask = (x[0] for x in hadrons)
    settings = toys.settings(0.6, -1.0)
    found = cluster(momentum, mask, **settings, metric=Mine())
    expected = cluster(momentum, mask, **settings)
    np.testing.assert_array_equal(found.take, expected.take)
    with pytest.raises(ValueError, match="knows `RapidityAzimuth`, `EnergyAngle`"):
        cluster(momentum, mask, **settings, metric=Mine(), engine=CompiledEngine())
