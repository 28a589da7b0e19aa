import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffhep.event import Status, explain_status
from diffhep.generator import (
    _store as store,
    load_events,
    propose_capacity,
    sort_by_multiplicity,
    split_halves,
    thin_strata,
)


@pytest.fixture(scope="module")
def dataset(generated):
    # Room for all particles of all events.
    return load_events(generated, capacity=128, luminosity_fb=100.0)


def _yields(dataset):
    weight = np.exp(np.asarray(dataset.events.log_weight))
    return np.bincount(dataset.stratum, weight, minlength=len(dataset.strata))


def test_types_and_shapes(generated, precision):
    events = load_events(generated, capacity=64).events
    assert events.particles.momentum.dtype == precision
    assert events.log_weight.dtype == precision
    assert events.particles.momentum.shape == (len(events.index), 64, 4)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(events))
    chosen = load_events(generated, dtype=jnp.float32).events
    assert chosen.particles.vertex.dtype == jnp.float32


def test_particles_are_what_was_asked_for(dataset):
    particles, mask = (
        dataset.events.particles,
        np.asarray(dataset.events.particles.mask),
    )
    momentum = np.asarray(particles.momentum)
    pt = np.hypot(momentum[..., 0], momentum[..., 1])
    eta = np.arcsinh(momentum[..., 2][mask] / pt[mask])
    assert 25 < mask.sum(axis=1).mean() < 70
    assert pt[mask].min() > 1.0
    assert np.abs(eta).max() < 2.0
    assert np.all(np.diff(np.where(mask, pt, 0.0), axis=1) <= 0)
    ids, charge = np.asarray(particles.pdg_id)[mask], np.asarray(particles.charge)[mask]
    assert not np.isin(np.abs(ids), [12, 14, 16]).any()
    # With the usual limit on the decay length K0S and Lambda are stable, pi0 is not.
    assert np.isin([22, 130, 310], ids).all()
    assert 111 not in ids
    assert np.all(charge[ids == 211] == 1)
    assert np.all(charge[ids == -211] == -1)
    assert np.all(charge[np.isin(ids, [22, 130, 310])] == 0)
    mass2 = momentum[..., 3] ** 2 - np.sum(momentum[..., :3] ** 2, axis=-1)
    pions = np.abs(np.asarray(particles.pdg_id)) == 211
    np.testing.assert_allclose(mass2[mask & pions], 0.13957**2, rtol=1e-4)


def test_origin_and_vertices(dataset):
    events = dataset.events
    mask, origin = (
        np.asarray(events.particles.mask),
        np.asarray(events.particles.origin),
    )
    vertex = np.asarray(events.truth_vertex)
    assert np.abs(vertex[:, :2]).max() < 0.06
    assert 20 < np.abs(vertex[:, 2]).max() < 300
    flight = np.asarray(events.particles.vertex) - vertex[:, None]
    flight = np.sqrt(np.sum(flight**2, axis=-1))
    assert set(np.unique(origin[mask])) <= {0, 4, 5}
    # c tau 0.45 mm and a boost of about 10; photons of pi0 decays fly some 0.1 um.
    assert 0.5 < np.median(flight[mask & (origin == 5)]) < 20
    assert np.median(flight[mask & (origin == 0)]) < 1e-3
    bottom = (mask & (origin == 5)).sum(axis=1)
    label = np.asarray(events.label)
    assert bottom[label == 1].mean() > 5
    names = np.array([part.name for part in dataset.strata])[dataset.stratum]
    # All that the hadron decays to may miss the acceptance: in 4 % of the demo's events
    # of this stratum. There are only a few here.
    assert np.mean(bottom[names == "b"] > 0) > 0.5


def test_index_is_unique_and_rises(dataset):
    index = np.asarray(dataset.events.index)
    assert np.all(np.diff(index) > 0)
    assert np.asarray(dataset.events.label)[0] == 1
    assert index[0] == 0


def test_weights_add_up_to_cross_section_times_luminosity(generated, dataset):
    manifest = json.loads((generated / "manifest.json").read_text())
    yields = _yields(dataset)
    for process in manifest["processes"]:
        mine = [part.process == process["name"] for part in dataset.strata]
        expected = process["sigma_pb"] * 1000 * 100.0
        assert yields[mine].sum() == pytest.approx(expected, rel=1e-12)
    for part, expected in zip(dataset.strata, yields, strict=True):
        assert expected == pytest.approx(part.sigma_pb * 1e5, rel=1e-12)


def test_describe(dataset):
    text = dataset.describe()
    lines = text.splitlines()
    assert len(lines) == 2 + len(dataset.strata)
    assert "yield at 100/fb" in lines[0]
    assert lines[2].split()[:6] == ["zh_nunubb", "all", "12", "12", "12", "12"]


def test_overflow_is_flagged_and_keeps_the_hardest(generated, dataset):
    small = load_events(generated, capacity=40, luminosity_fb=100.0).events
    counts = np.asarray(dataset.events.particles.mask).sum(axis=1)
    flagged = (np.asarray(small.status) & Status.PARTICLE_OVERFLOW) != 0
    np.testing.assert_array_equal(flagged, counts > 40)
    assert 0 < flagged.sum() < len(flagged)
    np.testing.assert_array_equal(
        small.particles.momentum, dataset.events.particles.momentum[:, :40]
    )
    ((sentence, number),) = explain_status(small.status).items()
    assert number == flagged.sum()
    assert "raise" in sentence


def test_propose_capacity(generated, dataset):
    counts = np.asarray(dataset.events.particles.mask).sum(axis=1)
    assert propose_capacity(generated, multiple=1) == counts.max()
    assert propose_capacity(generated, multiple=16) == -(-counts.max() // 16) * 16
    half = propose_capacity(generated, fraction=0.5, multiple=1)
    assert np.mean(counts <= half) >= 0.5
    with pytest.raises(ValueError, match=r"`fraction` is 2"):
        propose_capacity(generated, fraction=2.0)


def test_halves_are_disjoint_and_predict_the_full_yields(dataset):
    halves = split_halves(dataset)
    index = [np.asarray(half.events.index) for half in halves]
    assert not np.intersect1d(*index).size
    assert len(index[0]) + len(index[1]) == dataset.num_events
    for half in halves:
        np.testing.assert_allclose(_yields(half), _yields(dataset), rtol=1e-12)
    shuffled = sort_by_multiplicity(dataset)
    for half, other in zip(halves, split_halves(shuffled), strict=True):
        chosen = np.sort(np.asarray(other.events.index))
        np.testing.assert_array_equal(chosen, half.events.index)


def test_a_multiple_keeps_the_yields(dataset):
    for half in split_halves(dataset, multiple=4):
        assert half.num_events % 4 == 0
        np.testing.assert_allclose(_yields(half), _yields(dataset), rtol=1e-12)
    thin = thin_strata(dataset, num_events=3, multiple=2)
    assert thin.num_events % 2 == 0
    assert np.bincount(thin.stratum).max() <= 3
    np.testing.assert_allclose(_yields(thin), _yields(dataset), rtol=1e-12)


def test_too_few_events_to_share_out(dataset):
    single = thin_strata(dataset, num_events=1)
    with pytest.raises(ValueError, match=r"has only 1 events, too few to share out"):
        split_halves(single)
    with pytest.raises(ValueError, match=r"too few to share out"):
        thin_strata(dataset, num_events=1, multiple=100)
    with pytest.raises(ValueError, match=r"`num_events` must be positive"):
        thin_strata(dataset, num_events=0)


def test_sort_by_multiplicity(dataset):
    ordered = sort_by_multiplicity(dataset)
    counts = np.asarray(ordered.events.particles.mask).sum(axis=1)
    assert np.all(np.diff(counts) >= 0)
    np.testing.assert_allclose(_yields(ordered), _yields(dataset), rtol=1e-12)
    signal = np.array([part.label for part in ordered.strata])[ordered.stratum]
    np.testing.assert_array_equal(signal, ordered.events.label)


def test_truncated_file(copy):
    path = copy / "z_jets-00000.parquet"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(OSError, match=r"z_jets-00000.parquet is damaged .*delete it"):
        load_events(copy)


def test_corrupt_file(copy):
    path = copy / "z_jets-00000.parquet"
    content = bytearray(path.read_bytes())
    content[3000:3008] = bytes(byte ^ 255 for byte in content[3000:3008])
    path.write_bytes(content)
    with pytest.raises(OSError, match=r"z_jets-00000.parquet is damaged .*delete it"):
        load_events(copy)


def test_file_from_elsewhere(copy):
    (copy / "z_jets-00000.parquet").write_bytes(
        (copy / "zh_nunubb-00000.parquet").read_bytes()
    )
    with pytest.raises(OSError, match=r"does not hold what the manifest says"):
        load_events(copy)


def test_missing_chunk(copy):
    (copy / "z_jets-00000.parquet").unlink()
    with pytest.raises(OSError, match=r"z_jets-00000.parquet .*is missing; generate"):
        load_events(copy)


def test_unfinished_data_set(copy):
    (copy / "manifest.json").unlink()
    with pytest.raises(OSError, match=r"There is no finished data set .*generate"):
        load_events(copy)


def test_damaged_manifest(copy):
    (copy / "manifest.json").write_text("{")
    with pytest.raises(OSError, match=r"manifest .*is damaged; delete it"):
        load_events(copy)


def test_other_schema_version(copy, monkeypatch):
    monkeypatch.setattr(store, "SCHEMA_VERSION", 2)
    with pytest.raises(ValueError, match=r"has version 1 .*reads version 2; generate"):
        load_events(copy)
    with pytest.raises(ValueError, match=r"parquet has version 1 .*reads version 2"):
        store.read_summary(copy / "z_jets-00000.parquet")


def test_missing_pyarrow(generated, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(ImportError, match=r"pyarrow.*pip install 'diffhep\[gen"):
        load_events(generated)


@pytest.mark.parametrize("capacity", [0, -1])
def test_capacity_must_be_positive(generated, capacity):
    with pytest.raises(ValueError, match=r"`capacity` must be positive"):
        load_events(generated, capacity=capacity)


def test_luminosity_must_be_positive(generated):
    with pytest.raises(ValueError, match=r"`luminosity_fb` must be positive"):
        load_events(generated, luminosity_fb=0.0)
