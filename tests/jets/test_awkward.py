import awkward
import fastjet
import numpy as np
import pytest

from diffhep.jets import ClusterSequence, JetDefinition


EVENTS = 50
NAMES = ("px", "py", "pz", "E")


@pytest.fixture(scope="module")
def array(toys):
    rng = np.random.default_rng(21)
    counts = rng.integers(0, 40, EVENTS)
    counts[0] = 0
    momenta = toys.momenta(rng, (counts.sum(),))
    records = awkward.zip(
        {n: momenta[:, k] for k, n in enumerate(NAMES)}, with_name="Momentum4D"
    )
    return awkward.unflatten(records, counts)


def _numbers(jets):
    return awkward.to_numpy(awkward.flatten(awkward.concatenate(
        [jets[n][..., np.newaxis] for n in NAMES], axis=-1
    ), axis=1))  # fmt: skip


@pytest.mark.parametrize("power", [-1.0, 1.0, 0.5])
@pytest.mark.parametrize("min_pt", [0.0, 5.0])
def test_swapped_in_for_fastjet(array, power, min_pt):
    definition = fastjet.JetDefinition(
        fastjet.genkt_algorithm, 0.6, power, fastjet.E_scheme, fastjet.N2Plain
    )
    theirs = fastjet.ClusterSequence(array, definition)
    ours = ClusterSequence(array, definition)
    wanted, found = theirs.inclusive_jets(min_pt), ours.inclusive_jets(min_pt)
    assert awkward.num(found, axis=1).tolist() == awkward.num(wanted, axis=1).tolist()
    np.testing.assert_allclose(_numbers(found), _numbers(wanted), rtol=1e-10, atol=1e-9)
    index = theirs.constituent_index(min_pt)
    assert ours.constituent_index(min_pt).tolist() == awkward.sort(index).tolist()
    parts = ours.constituents(min_pt)
    assert parts.fields == list(NAMES)
    totals = awkward.sum(parts.px, axis=-1)
    np.testing.assert_allclose(
        awkward.flatten(totals), awkward.flatten(found.px), rtol=1e-12, atol=1e-9
    )


def test_algorithms_by_name(array):
    for algorithm, power in {
        fastjet.antikt_algorithm: -1.0,
        fastjet.kt_algorithm: 1.0,
        fastjet.cambridge_algorithm: 0.0,
    }.items():
        named = ClusterSequence(array, fastjet.JetDefinition(algorithm, 0.6))
        plain = ClusterSequence(array, JetDefinition(0.6, power))
        assert named.inclusive_jets().tolist() == plain.inclusive_jets().tolist()


def test_one_event(array):
    event = array[5]
    definition = JetDefinition(0.6)
    found = ClusterSequence(event, definition).inclusive_jets()
    assert (
        found.tolist()
        == ClusterSequence(array, definition).inclusive_jets()[5].tolist()
    )
    assert len(found) > 0


def test_what_it_cannot_do_is_said(array):
    durham = fastjet.JetDefinition0Param(fastjet.ee_kt_algorithm)
    pt_scheme = fastjet.JetDefinition(fastjet.kt_algorithm, 0.4, fastjet.pt_scheme)
    for definition in (durham, pt_scheme):
        with pytest.raises(ValueError, match="fastjet's own"):
            ClusterSequence(array, definition)
    with pytest.raises(ValueError, match="pass a `JetDefinition`"):
        ClusterSequence(array, "antikt")
    with pytest.raises(ValueError, match="'E' is missing"):
        ClusterSequence(array[["px", "py", "pz"]], JetDefinition())
    with pytest.raises(ValueError, match="must be positive"):
        JetDefinition(0.0)
