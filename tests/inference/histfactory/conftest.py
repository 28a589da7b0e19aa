"""Workspaces of this folder's tests."""

import functools
import json
import lzma
import tarfile
from pathlib import Path

import pytest

from diffhep.inference import histfactory


DATA = Path(__file__).parent / "data"


@functools.cache
def _member(name):
    # The ATLAS search for bottom squarks, JHEP 12 (2019) 060: likelihoods published on
    # HEPData (record ins1748602) under CC0.
    with lzma.open(DATA / "sbottom.tar.xz") as raw, tarfile.open(fileobj=raw) as tar:
        return json.load(tar.extractfile(name))


@pytest.fixture(scope="session")
def sbottom():
    """From region and signal point to the workspace."""

    @functools.cache
    def workspace(region, point):
        background = histfactory.read_workspace(_member(f"{region}/BkgOnly.json"))
        patch = _member(f"{region}/patch.sbottom_{point}.json")
        return histfactory.apply_patch(background, patch)

    return workspace


@pytest.fixture(scope="session")
def measure():
    """From the content of a workspace to its measurement."""

    def make(content):
        workspace = histfactory.read_workspace(content)
        model = histfactory.build_model(workspace)
        data = histfactory.observed_data(workspace, model)
        return histfactory.measure(model, data)

    return make


def _modifier(name, kind, data=None):
    return {"name": name, "type": kind, "data": data}


def _sample(name, data, *modifiers):
    return {"name": name, "data": data, "modifiers": list(modifiers)}


_MU = _modifier("mu", "normfactor")


def _workspace(channels, observed, parameters=()):
    return {
        "channels": [{"name": k, "samples": v} for k, v in channels.items()],
        "observations": [{"name": k, "data": v} for k, v in observed.items()],
        "measurements": [
            {"name": "test", "config": {"poi": "mu", "parameters": list(parameters)}}
        ],
        "version": "1.0.0",
    }


def _one_channel(signal, background, observed, *modifiers):
    samples = [
        _sample("signal", signal, _MU),
        _sample("background", background, *modifiers),
    ]
    return _workspace({"channel": samples}, {"channel": observed})


def _two_channels(signal, control, observed):
    samples = {"signal": signal, "control": control}
    return _workspace(samples, dict(zip(samples, observed, strict=True)))


def _histosys(name, down, up):
    return _modifier(name, "histosys", {"lo_data": down, "hi_data": up})


def _normsys(name, down, up):
    return _modifier(name, "normsys", {"lo": down, "hi": up})


def _validation():
    # The models of pyhf's tests/test_validation.py, with its validation/data.
    lumi = _modifier("lumi", "lumi")
    settings = {
        "name": "lumi",
        "auxdata": [1.0],
        "bounds": [[0.0, 10.0]],
        "inits": [1.0],
        "sigmas": [0.1],
    }
    coupled = _normsys("coupled", 0.9, 1.1)
    factor = _modifier("coupled", "shapefactor")
    return {
        "1bin_shapesys": _one_channel(
            [10.0], [50.0], [55.0], _modifier("bin", "shapesys", [7.0])
        ),
        "1bin_shapesys_q0": _one_channel(
            [25.0], [50.0], [80.0], _modifier("bin", "shapesys", [7.0])
        ),
        "1bin_lumi": _workspace(
            {
                "channel": [
                    _sample("signal", [20.0], _MU),
                    _sample("background1", [100.0], lumi),
                    _sample("background2", [0.0], lumi),
                ]
            },
            {"channel": [55.0]},
            [settings],
        ),
        "1bin_normsys": _one_channel(
            [30.0, 95.0], [100.0, 150.0], [120.0, 180.0], _normsys("norm", 0.9, 1.1)
        ),
        "2bin_histosys": _one_channel(
            [30.0, 95.0],
            [100.0, 150.0],
            [120.0, 180.0],
            _histosys("shape", [98, 100], [102, 190]),
        ),
        "2bin_2channel": _two_channels(
            [
                _sample("signal", [10.0, 35.0], _MU),
                _sample(
                    "background",
                    [100.0, 150.0],
                    _modifier("bin_signal", "shapesys", [10.0, 10.0]),
                ),
            ],
            [
                _sample(
                    "background",
                    [200.0, 350.0],
                    _modifier("bin_control", "shapesys", [5.0, 10.0]),
                )
            ],
            ([110.0, 155.0], [205.0, 345.0]),
        ),
        "couplednorm": _two_channels(
            [
                _sample("signal", [10.0, 35.0], _MU),
                _sample("bkg1", [100.0, 100.0], coupled),
                _sample("bkg2", [50.0, 100.0], _normsys("coupled", 0.5, 1.5)),
            ],
            [_sample("background", [100.0, 100.0], coupled)],
            ([105.0, 220.0], [110.0, 105.0]),
        ),
        "coupledhistosys": _two_channels(
            [
                _sample("signal", [30.0, 35.0], _MU),
                _sample(
                    "bkg1",
                    [100.0, 100.0],
                    _histosys("coupled", [90.0, 90.0], [110.0, 110.0]),
                ),
                _sample(
                    "bkg2",
                    [50.0, 120.0],
                    _histosys("coupled", [45.0, 45.0], [55.0, 55.0]),
                ),
            ],
            [
                _sample(
                    "background",
                    [105.0, 100.0],
                    _histosys("coupled", [95.0, 90.0], [110.0, 115.0]),
                )
            ],
            ([170.0, 220.0], [110.0, 105.0]),
        ),
        "coupledshapefactor": _two_channels(
            [
                _sample("signal", [20.0, 20.0], _MU),
                _sample("bkg1", [100.0, 70.0], factor),
            ],
            [_sample("background", [100.0, 100.0], factor)],
            ([220.0, 230.0], [200.0, 300.0]),
        ),
    }


@pytest.fixture(scope="session")
def validation():
    """From name to workspace content."""
    return _validation()


@pytest.fixture
def rich():
    """A small workspace with every type of modifier, shared names and an empty bin."""
    lumi = {
        "name": "lumi",
        "auxdata": [1.0],
        "bounds": [[0.5, 1.5]],
        "inits": [1.0],
        "sigmas": [0.02],
    }
    stat_signal = [1.5, 1.0, 0.8]
    channels = {
        "search": [
            _sample(
                "signal",
                [6.0, 9.0, 4.0],
                _MU,
                _modifier("lumi", "lumi"),
                _normsys("jes", 0.95, 1.08),
            ),
            _sample(
                "top",
                [40.0, 25.0, 0.0],
                _modifier("lumi", "lumi"),
                _histosys("jes", [37.0, 22.0, 0.0], [44.5, 29.0, 0.0]),
                _normsys("jes", 0.9, 1.2),
                _modifier("stat_search", "staterror", stat_signal),
                _modifier("k_top", "normfactor"),
            ),
            _sample(
                "other",
                [10.0, 12.0, 5.0],
                _histosys("jer", [10.5, 11.0, 4.0], [9.0, 13.5, 5.5]),
                _modifier("stat_search", "staterror", [0.7, 0.9, 0.4]),
            ),
            _sample(
                "fakes", [3.0, 0.0, 2.0], _modifier("fake", "shapesys", [1.0, 0.5, 0.6])
            ),
        ],
        "control": [
            _sample(
                "top",
                [200.0, 150.0],
                _modifier("lumi", "lumi"),
                _histosys("jes", [190.0, 145.0], [212.0, 158.0]),
                _modifier("k_top", "normfactor"),
            ),
            _sample("other", [30.0, 45.0], _modifier("shape", "shapefactor")),
        ],
    }
    observed = {"search": [63.0, 45.0, 9.0], "control": [235.0, 190.0]}
    return _workspace(channels, observed, [lumi])
