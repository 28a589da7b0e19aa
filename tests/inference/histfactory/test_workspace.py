import copy
import hashlib
import json

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffhep.inference import histfactory


def _sample(content, channel=0, sample=0):
    return content["channels"][channel]["samples"][sample]


def _modifier(content, name, kind):
    for channel in content["channels"]:
        for sample in channel["samples"]:
            for modifier in sample["modifiers"]:
                if (modifier["name"], modifier["type"]) == (name, kind):
                    return modifier
    raise KeyError(name)


def _config(content):
    return content["measurements"][0]["config"]


# What is done to the rich workspace, and what the message has to name.
BAD = {
    "no channel": (
        lambda w: w["observations"].pop(),
        "Channel 'control' has no observation; add one of 2 bins",
    ),
    "bins of a sample": (
        lambda w: _sample(w, 0, 1)["data"].append(1.0),
        "Sample 'top' of channel 'search' has 4 numbers in place of 3",
    ),
    "bins of an observation": (
        lambda w: w["observations"][0]["data"].pop(),
        "observation of channel 'search' has 2 numbers in place of 3",
    ),
    "bins of a modifier": (
        lambda w: _modifier(w, "jer", "histosys")["data"]["hi_data"].pop(),
        r"'jer' \(histosys\) of sample 'other' of channel 'search', 'hi_data', has 2",
    ),
    "unknown modifier": (
        lambda w: _modifier(w, "k_top", "normfactor").update(type="shapenorm"),
        r"'k_top' \(shapenorm\) of sample 'top' .* unknown type; use one of histosys",
    ),
    "negative yield": (
        lambda w: _sample(w, 1, 1)["data"].__setitem__(0, -0.5),
        "Sample 'other' of channel 'control' has the negative number -0.5 in place 0",
    ),
    "negative data": (
        lambda w: w["observations"][1]["data"].__setitem__(1, -3),
        "observation of channel 'control' has the negative number -3 in place 1",
    ),
    "negative normsys": (
        lambda w: _modifier(w, "jes", "normsys")["data"].update(lo=-0.1),
        r"'jes' \(normsys\) of sample 'signal' .* negative number -0.1",
    ),
    "NaN data": (
        lambda w: w["observations"][0]["data"].__setitem__(2, float("nan")),
        "observation of channel 'search' has nan in place 2; put a finite number",
    ),
    "no number": (
        lambda w: _sample(w)["data"].__setitem__(0, "many"),
        "Sample 'signal' of channel 'search' has 'many' in place 0",
    ),
    "two channels": (
        lambda w: w["channels"].append(copy.deepcopy(w["channels"][0])),
        "two channels 'search'; rename one",
    ),
    "two samples": (
        lambda w: w["channels"][0]["samples"].append(copy.deepcopy(_sample(w))),
        "Channel 'search' has two samples 'signal'",
    ),
    "two modifiers": (
        lambda w: _sample(w)["modifiers"].append(
            {"name": "mu", "type": "normfactor", "data": None}
        ),
        "Sample 'signal' of channel 'search' has the modifier 'mu' of type normfactor",
    ),
    "two uses of a name": (
        lambda w: _modifier(w, "k_top", "normfactor").update(name="jer"),
        "Modifier 'jer' is a normfactor of sample 'top' .* histosys of sample 'other'",
    ),
    "shared shapesys": (
        lambda w: _sample(w, 0, 2)["modifiers"].append(
            {"name": "fake", "type": "shapesys", "data": [1.0, 1.0, 1.0]}
        ),
        r"Modifier 'fake' \(shapesys\) is on more than one sample",
    ),
    "shapefactor of two binnings": (
        lambda w: _sample(w, 0, 2)["modifiers"].append(
            {"name": "shape", "type": "shapefactor", "data": None}
        ),
        r"'shape' \(shapefactor\) .* has 2 bins, and 3 elsewhere",
    ),
    "staterror across channels": (
        lambda w: _sample(w, 1, 1)["modifiers"].append(
            {"name": "stat_search", "type": "staterror", "data": [1.0, 1.0]}
        ),
        r"Modifier 'stat_search' \(staterror\) is on sample 'top'",
    ),
    "no measurement": (
        lambda w: w["measurements"].clear(),
        "needs a list of measurements; add at least 1",
    ),
    "unknown setting": (
        lambda w: _config(w)["parameters"][0].update(sigma=[0.1]),
        "Parameter 'lumi' of measurement 'test' has the unknown setting 'sigma'",
    ),
    "bounds": (
        lambda w: _config(w)["parameters"][0].update(bounds=[[2.0, 1.0]]),
        "Parameter 'lumi' .* bounds 2.0 and 1.0; exchange them",
    ),
    "no lumi": (
        lambda w: _config(w)["parameters"].clear(),
        r"Parameter 'lumi' \(lumi\) lacks 'inits'; add it",
    ),
    "no poi": (
        lambda w: _config(w).update(poi="mu_signal"),
        "parameter of interest 'mu_signal' belongs to no modifier; apply the patch",
    ),
    "poi of many bins": (
        lambda w: _config(w).update(poi="shape"),
        "parameter of interest 'shape' has 2 components; choose",
    ),
    "setting of another type": (
        lambda w: _config(w)["parameters"].append({"name": "mu", "sigmas": [0.1]}),
        r"Parameter 'mu' \(normfactor\) has the setting 'sigmas', which is not for",
    ),
    "too many settings": (
        lambda w: _config(w)["parameters"].append({"name": "mu", "inits": [1, 2]}),
        r"Parameter 'mu' \(normfactor\) has 2 numbers under 'inits' in place of 1",
    ),
}


@pytest.mark.parametrize("name", sorted(BAD))
def test_bad_workspaces_are_told_apart(rich, name):
    spoil, message = BAD[name]
    spoil(rich)
    with pytest.raises(ValueError, match=message):
        histfactory.build_model(histfactory.read_workspace(rich))


def _all(workspace):
    model = histfactory.build_model(workspace)
    return model, histfactory.observed_data(workspace, model)


def test_round_trip(rich, tmp_path):
    path = tmp_path / "workspace.json"
    path.write_text(json.dumps(rich))
    workspace = histfactory.read_workspace(path)
    again = tmp_path / "again.json"
    written = histfactory.write_workspace(workspace, *_all(workspace), path=again)
    assert written.content == rich
    assert histfactory.read_workspace(again).content == rich


def test_round_trip_of_a_published_workspace(sbottom):
    workspace = sbottom("RegionC", "1600_850_60")
    written = histfactory.write_workspace(workspace, *_all(workspace))
    assert written.content == workspace.content


def test_changed_numbers_are_written(rich):
    workspace = histfactory.read_workspace(rich)
    model, data = _all(workspace)
    arrays, rest = eqx.partition(model, eqx.is_inexact_array)
    changed = eqx.combine(jax.tree.map(lambda x: 1.25 * x, arrays), rest)
    counts = eqx.tree_at(lambda d: d.counts, data, data.counts + 1)
    written = histfactory.write_workspace(workspace, changed, counts)
    assert written.content != rich
    again = histfactory.build_model(written)
    observed = histfactory.observed_data(written, again)
    np.testing.assert_array_equal(observed.counts, data.counts + 1)
    point = model.start + 0.1
    values = [
        histfactory.negative_log_likelihood(m, point, observed)
        for m in (again, eqx.tree_at(lambda m: m.width, changed, again.width))
    ]
    # All but what the workspace does not state: the unit widths of interpolations.
    np.testing.assert_allclose(*values, rtol=1e-14)
    assert _config(written.content)["parameters"][0]["sigmas"] == [0.025]


def test_writing_into_another_workspace(rich, validation):
    other = histfactory.read_workspace(validation["2bin_2channel"])
    with pytest.raises(ValueError, match="give the workspace that the model was built"):
        histfactory.write_workspace(other, *_all(histfactory.read_workspace(rich)))


def test_unknown_measurement_and_broken_files(rich, tmp_path):
    workspace = histfactory.read_workspace(rich)
    with pytest.raises(ValueError, match="no measurement 'best'; there are 'test'"):
        histfactory.build_model(workspace, measurement="best")
    path = tmp_path / "broken.json"
    path.write_text("{")
    with pytest.raises(ValueError, match=r"broken.json' is not JSON"):
        histfactory.read_workspace(path)


def test_patches(rich):
    workspace = histfactory.read_workspace(rich)
    patch = [{"op": "replace", "path": "/observations/0/data/1", "value": 7.0}]
    patched = histfactory.apply_patch(workspace, patch)
    assert patched.content["observations"][0]["data"] == [63.0, 7.0, 9.0]
    assert workspace.content == rich
    for wrong in (
        [{"op": "remove", "path": "/channels/5"}],
        [{"op": "test", "path": "/version", "value": "2.0.0"}],
    ):
        with pytest.raises(ValueError, match="patch does not fit the workspace"):
            histfactory.apply_patch(workspace, wrong)
    spoils = [{"op": "replace", "path": "/observations/0/data/1", "value": -7.0}]
    with pytest.raises(ValueError, match=r"negative number -7.0 in place 1"):
        histfactory.apply_patch(workspace, spoils)


def _patch_set(content):
    text = json.dumps(content, sort_keys=True, ensure_ascii=False).encode()
    operation = {"op": "replace", "path": "/channels/0/samples/0/data/0"}
    return {
        "metadata": {
            "references": {"hepdata": "ins1234567"},
            "description": "two signal points",
            "digests": {"sha256": hashlib.sha256(text).hexdigest()},
            "labels": ["m_heavy", "m_light"],
        },
        "patches": [
            {
                "metadata": {"name": f"point_{mass}", "values": [mass, 100]},
                "patch": [{**operation, "value": mass / 100}],
            }
            for mass in (700, 900)
        ],
        "version": "1.0.0",
    }


def test_patch_sets(rich):
    workspace = histfactory.read_workspace(rich)
    patches = histfactory.read_patch_set(_patch_set(rich))
    assert patches.labels == ("m_heavy", "m_light")
    assert patches.names == ("point_700", "point_900")
    assert patches.values == ((700, 100), (900, 100))
    for key in ("point_900", (900, 100)):
        chosen = histfactory.choose_patch(patches, key, workspace)
        assert _sample(chosen.content)["data"][0] == 9.0
    with pytest.raises(ValueError, match="There is no patch 'point_800'; there are 2"):
        histfactory.choose_patch(patches, "point_800", workspace)
    _sample(rich)["data"][0] = 6.5
    other = histfactory.read_workspace(rich)
    with pytest.raises(ValueError, match="for a workspace with the sha256 digest"):
        histfactory.choose_patch(patches, "point_900", other)


def test_patch_set_digest_is_that_of_pyhf(rich):
    import pyhf  # noqa: PLC0415 - only here

    patches = _patch_set(rich)
    digest = patches["metadata"]["digests"]["sha256"]
    assert pyhf.utils.digest(rich) == digest


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda p: p.pop("metadata"), "needs 'metadata' and 'patches'"),
        (lambda p: p["metadata"].pop("labels"), "lack 'labels'; add it"),
        (lambda p: p["metadata"]["digests"].update(crc="1"), "unknown digest 'crc'"),
        (
            lambda p: p["patches"][0]["metadata"]["values"].pop(),
            "Patch 'point_700' has 1 values for 2 labels",
        ),
        (
            lambda p: p["patches"][1]["metadata"].update(name="point_700"),
            "two patches 'point_700'",
        ),
        (lambda p: p["patches"][0].pop("patch"), "lacks name, values or operations"),
    ],
)
def test_bad_patch_sets(rich, spoil, message):
    content = _patch_set(rich)
    spoil(content)
    with pytest.raises(ValueError, match=message):
        histfactory.read_patch_set(content)


def test_double_precision_is_enforced(rich):
    workspace = histfactory.read_workspace(rich)
    model, data = _all(workspace)
    with jax.enable_x64(False), pytest.raises(ValueError, match="jax_enable_x64"):
        histfactory.build_model(workspace)
    single = jnp.asarray(model.nominal, jnp.float32)
    with pytest.raises(ValueError, match="need 64-bit floating point, not float32"):
        histfactory.likelihood(eqx.tree_at(lambda m: m.nominal, model, single), data)
