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


def _definitions():
    def pp(power, scheme=fastjet.E_scheme):
        return fastjet.JetDefinition(
            fastjet.genkt_algorithm, 0.8, power, scheme, fastjet.N2Plain
        )

    return {
        "kt": pp(1.0),
        "kt, pt scheme": pp(1.0, fastjet.pt_scheme),
        "kt, winner": pp(1.0, fastjet.WTA_pt_scheme),
        "durham": fastjet.JetDefinition0Param(fastjet.ee_kt_algorithm),
        "durham, winner": fastjet.JetDefinition0Param(
            fastjet.ee_kt_algorithm, fastjet.WTA_modp_scheme, fastjet.N2Plain
        ),
        "e+e- genkt": fastjet.JetDefinition(
            fastjet.ee_genkt_algorithm, 0.9, 1.0, fastjet.E_scheme, fastjet.N2Plain
        ),
    }


# fastjet takes each definition for one that has no exclusive jets.
@pytest.mark.filterwarnings("ignore:dcut and exclusive jets")
@pytest.mark.parametrize("name", _definitions())
def test_exclusive_jets(array, name):
    many = array[awkward.num(array) >= 4]
    definition = _definitions()[name]
    theirs = fastjet.ClusterSequence(many, definition)
    ours = ClusterSequence(many, definition)

    def close(found, wanted):
        assert awkward.num(found).tolist() == awkward.num(wanted).tolist()
        scale = {"rtol": 1e-10, "atol": 1e-9}
        np.testing.assert_allclose(_numbers(found), _numbers(wanted), **scale)

    close(ours.inclusive_jets(), theirs.inclusive_jets())
    close(ours.exclusive_jets(3), theirs.exclusive_jets(n_jets=3))
    close(ours.exclusive_jets(dcut=20.0), theirs.exclusive_jets(dcut=20.0))
    index = awkward.sort(theirs.exclusive_jets_constituent_index(3))
    assert ours.exclusive_jets_constituent_index(3).tolist() == index.tolist()
    parts = ours.exclusive_jets_constituents(3)
    assert awkward.num(parts, axis=2).tolist() == awkward.num(index, axis=2).tolist()
    for number in (0, 2):
        wanted = theirs.exclusive_dmerge_max(number)
        np.testing.assert_allclose(ours.exclusive_dmerge_max(number), wanted, 1e-10)
    if name.startswith("durham"):
        close(ours.exclusive_jets_ycut(0.01), theirs.exclusive_jets_ycut(0.01))
        wanted = theirs.exclusive_ymerge_max(2)
        np.testing.assert_allclose(ours.exclusive_ymerge_max(2), wanted, 1e-10)


def test_durham_by_name(array):
    named = fastjet.JetDefinition0Param(fastjet.ee_kt_algorithm)
    theirs = ClusterSequence(array[5], named).exclusive_jets(2)
    ours = ClusterSequence(array[5], JetDefinition.durham()).exclusive_jets(2)
    assert theirs.tolist() == ours.tolist()
    assert ours.ndim == 1


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
    other = fastjet.JetDefinition(fastjet.kt_algorithm, 0.4, fastjet.Et2_scheme)
    with pytest.raises(ValueError, match="fastjet's own"):
        ClusterSequence(array, other)
    with pytest.raises(ValueError, match="pass a `JetDefinition`"):
        ClusterSequence(array, "antikt")
    with pytest.raises(ValueError, match="'E' is missing"):
        ClusterSequence(array[["px", "py", "pz"]], JetDefinition())
    for radius in (0.0, np.inf):
        with pytest.raises(ValueError, match="must be positive, and finite"):
            JetDefinition(radius)
    sequence = ClusterSequence(array, JetDefinition())
    with pytest.raises(ValueError, match="smallest event has 0 particles"):
        sequence.exclusive_jets(2)
    with pytest.raises(ValueError, match="give one of the two"):
        sequence.exclusive_jets()
