import awkward
import fastjet
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffhep.jets import (
    cluster,
    energy_correlations,
    exclusive_jets,
    exclusive_steps,
    kt_axes,
    lund_plane,
    n_subjettiness,
    prune,
    soft_drop,
    splittings_of,
    step_distances,
    trim,
)


JETS, SLOTS = 60, 20
RADIUS = 0.8


@pytest.fixture(scope="module")
def jets(toys):
    """Constituents of one jet each, three at least, NaN in dead slots."""
    rng = np.random.default_rng(11)
    mask = rng.random((JETS, SLOTS)) < 0.7
    mask[:, :3] = True
    mask[0] = True
    momentum = toys.momenta(rng, mask.shape, num_axes=2)
    return np.where(mask[..., None], momentum, np.nan), mask


def _array(jets):
    momentum, mask = jets
    names = ("px", "py", "pz", "E")
    events = [
        [dict(zip(names, map(float, p), strict=True)) for p in row[alive]]
        for row, alive in zip(momentum, mask, strict=True)
    ]
    return awkward.Array(events, with_name="Momentum4D")


def _sequence(jets, algorithm, radius):
    definition = fastjet.JetDefinition(algorithm, radius)
    return fastjet.ClusterSequence(_array(jets), definition)


def _over(jets, function):
    return jax.jit(jax.vmap(function))(*map(jnp.asarray, jets))


def _reclustered(power, momentum, mask):
    settings = {"radius": jnp.asarray(1000.0), "power": jnp.asarray(power)}
    return cluster(momentum, mask, **settings)


@pytest.mark.parametrize(("zcut", "beta"), [(0.1, 0.0), (0.05, 2.0), (0.45, 0.0)])
def test_soft_drop_is_that_of_fastjet(jets, zcut, beta):
    found = _over(
        jets, lambda p, m: soft_drop(p, m, zcut=zcut, beta=beta, radius=RADIUS)
    )
    wanted = _sequence(
        jets, fastjet.cambridge_algorithm, 1000.0
    ).exclusive_jets_softdrop_grooming(1, beta, zcut, "scalar_z", RADIUS)
    pt, phi, pz, energy = (
        np.ravel(awkward.to_numpy(wanted[f"{name}softdrop"]))
        for name in ("pt", "phi", "pz", "E")
    )
    expected = np.stack([pt * np.cos(phi), pt * np.sin(phi), pz, energy], axis=1)
    np.testing.assert_allclose(found.momentum, expected, rtol=1e-11, atol=1e-9)
    angle = np.ravel(awkward.to_numpy(wanted["deltaRsoftdrop"]))
    share = np.ravel(awkward.to_numpy(wanted["symmetrysoftdrop"]))
    passed = np.asarray(found.passed)
    assert passed.any()
    np.testing.assert_allclose(found.angle[passed], angle[passed], rtol=1e-10)
    np.testing.assert_allclose(found.fraction[passed], share[passed], rtol=1e-10)
    # Its sentinel for no splitting is negative, and ours is zero.
    assert (angle[~passed] <= 0).all()


def test_lund_plane_is_that_of_fastjet(jets):
    def one(momentum, mask):
        history = _reclustered(0.0, momentum, mask)
        return lund_plane(splittings_of(history, momentum, mask))

    found = _over(jets, one)
    wanted = _sequence(
        jets, fastjet.cambridge_algorithm, 1000.0
    ).exclusive_jets_lund_declusterings(1)
    for event, alive in enumerate(np.asarray(found.mask)):
        # Theirs go down from the jet, ours up to it.
        row = wanted[event][0]
        assert alive.sum() == len(row)
        np.testing.assert_allclose(
            found.angle[event][alive][::-1], awkward.to_numpy(row["Delta"]), rtol=1e-10
        )
        np.testing.assert_allclose(
            found.kt[event][alive][::-1], awkward.to_numpy(row["kt"]), rtol=1e-10
        )


@pytest.mark.parametrize("beta", [1.0, 2.0])
def test_energy_correlations_are_those_of_fastjet(jets, beta):
    found = _over(jets, lambda p, m: energy_correlations(p, m, beta=beta))
    sequence = _sequence(jets, fastjet.cambridge_algorithm, 1000.0)
    for value, options in {
        "two": {"npoint": 2, "func": "generalized", "angles": 1},
        "three": {"npoint": 3, "func": "generalized", "angles": 3},
    }.items():
        wanted = sequence.exclusive_jets_energy_correlator(1, beta=beta, **options)
        np.testing.assert_allclose(
            getattr(found, value), np.ravel(awkward.to_numpy(wanted)), rtol=1e-9
        )
    np.testing.assert_allclose(found.c2 / found.d2, found.two, rtol=1e-12)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_n_subjettiness_is_that_of_fastjet(jets, number):
    def one(momentum, mask):
        axes = kt_axes(momentum, mask, num_axes=number)
        return n_subjettiness(momentum, mask, axes, beta=1.0, radius=RADIUS)

    wanted = _sequence(jets, fastjet.cambridge_algorithm, 1000.0).njettiness(
        axes_definition="KT_Axes", njets=[number], beta=1.0, R0=RADIUS
    )
    expected = np.ravel(awkward.to_numpy(awkward.flatten(wanted, axis=None)))
    np.testing.assert_allclose(_over(jets, one), expected, rtol=1e-9, atol=1e-12)


def _pseudojets(momentum, mask):
    particles = []
    for slot in np.flatnonzero(mask):
        particle = fastjet.PseudoJet(*map(float, momentum[slot]))
        particle.set_user_index(int(slot))
        particles.append(particle)
    return particles


@pytest.mark.parametrize("power", [1.0, 0.0])
@pytest.mark.parametrize("number", [1, 3])
def test_exclusive_jets_are_those_of_fastjet(jets, power, number):
    # With Cambridge/Aachen all beams are equally near, and their order is nobody's.
    radius = 0.6 if power == 1 else 1000.0

    def one(momentum, mask):
        settings = {"radius": jnp.asarray(radius), "power": jnp.asarray(power)}
        history = cluster(momentum, mask, **settings)
        distances = step_distances(history, momentum, mask, **settings)
        steps = exclusive_steps(distances, jnp.asarray(30.0))
        return exclusive_jets(history, mask, num_jets=number), steps

    members, steps = _over(jets, one)
    algorithm = fastjet.kt_algorithm if power == 1 else fastjet.cambridge_algorithm
    definition = fastjet.JetDefinition(algorithm, radius)
    for momentum, mask, rows, done in zip(*jets, members, steps, strict=True):
        particles = _pseudojets(momentum, mask)
        sequence = fastjet._swig.ClusterSequence(particles, definition)
        wanted = {
            frozenset(c.user_index() for c in jet.constituents())
            for jet in sequence.exclusive_jets(number)
        }
        assert {frozenset(map(int, np.flatnonzero(row))) for row in rows} == wanted
        if power == 1:
            assert sequence.n_exclusive_jets(30.0) == mask.sum() - int(done)


def test_trimming_by_hand(jets):
    found = _over(jets, lambda p, m: trim(p, m, radius=0.3, fraction=0.1))
    definition = fastjet.JetDefinition(fastjet.kt_algorithm, 0.3)
    dropped = 0
    for momentum, mask, inside in zip(*jets, found.membership, strict=True):
        particles = _pseudojets(momentum, mask)
        sequence = fastjet._swig.ClusterSequence(particles, definition)
        whole = np.hypot(*momentum[mask][:, :2].sum(axis=0))
        kept = set()
        for jet in sequence.inclusive_jets(0.0):
            if jet.perp() >= 0.1 * whole:
                kept |= {c.user_index() for c in jet.constituents()}
        assert set(np.flatnonzero(inside)) == kept
        dropped += mask.sum() - len(kept)
    assert dropped > 10


def _apart(one, other):
    y = [np.arctanh(p[2] / p[3]) for p in (one, other)]
    phi = np.arctan2(one[1], one[0]) - np.arctan2(other[1], other[0])
    return np.hypot(y[0] - y[1], (phi + np.pi) % (2 * np.pi) - np.pi)


def test_pruning_by_hand(jets):
    # One pair after another, in plain Python.
    found = _over(jets, prune)
    for momentum, mask, inside in zip(*jets, found.membership, strict=True):
        left = [({int(s)}, momentum[s]) for s in np.flatnonzero(mask)]
        whole = momentum[mask].sum(axis=0)
        reach = np.sqrt(whole[3] ** 2 - (whole[:3] ** 2).sum()) / np.hypot(*whole[:2])
        while len(left) > 1:
            angle, a, b = min(
                (_apart(left[a][1], left[b][1]), a, b)
                for a in range(len(left))
                for b in range(a)
            )
            one, other = left.pop(a), left.pop(b)
            pts = [np.hypot(*x[1][:2]) for x in (one, other)]
            both = (one[0] | other[0], one[1] + other[1])
            cut = angle > reach and min(pts) / np.hypot(*both[1][:2]) < 0.1
            left.append(both if not cut else (one if pts[0] > pts[1] else other))
        assert set(np.flatnonzero(inside)) == left[0][0]
    assert (np.asarray(found.membership).sum(axis=1) < jets[1].sum(axis=1)).any()


@pytest.mark.parametrize("name", ["soft_drop", "trim", "prune", "e3", "tau", "lund"])
def test_pathwise_gradients(jets, name):
    # For a fixed outcome: central differences. Dead slots get nothing.
    momentum, mask = (jnp.asarray(x[1]) for x in jets)

    def value(momentum):
        if name == "e3":
            found = energy_correlations(momentum, mask, beta=1.5)
            return found.three + found.d2
        if name == "tau":
            axes = kt_axes(momentum, mask, num_axes=2)
            return n_subjettiness(momentum, mask, axes, beta=1.5)
        if name == "lund":
            history = _reclustered(0.0, momentum, mask)
            plane = lund_plane(splittings_of(history, momentum, mask))
            return jnp.sum(jnp.tanh(plane.kt) + plane.angle + plane.fraction)
        groomed = {"soft_drop": soft_drop, "trim": trim, "prune": prune}[name]
        p = groomed(momentum, mask).momentum
        return p[3] ** 2 - jnp.sum(p[:3] ** 2)

    slope = jax.jit(jax.grad(value))(momentum)
    assert (slope[~mask] == 0).all()
    way = jnp.asarray(np.random.default_rng(5).normal(size=momentum.shape))
    way = jnp.where(mask[:, None], way, 0.0)
    run = jax.jit(value)
    step = 1e-5
    ways = [run(momentum + k * step * way) for k in (1, -1, 2, -2)]
    expected = (8 * (ways[0] - ways[1]) - (ways[2] - ways[3])) / (12 * step)
    found = jnp.sum(jnp.where(mask[:, None], slope, 0.0) * way)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
