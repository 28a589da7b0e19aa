import dataclasses
import shutil

import pytest

from diffhep.generator import GeneratorConfig, generate_events, z_jets, zh_nunubb


@pytest.fixture(scope="session")
def tiny_config():
    signal = dataclasses.replace(zh_nunubb(num_tried=12), chunk_size=12)
    background = dataclasses.replace(
        z_jets(num_tried=30), chunk_size=15, keep_per_chunk=(15, 3, 3)
    )
    return GeneratorConfig(name="tiny", processes=(signal, background), seed=6)


@pytest.fixture(scope="session")
def generated(tiny_config, tmp_path_factory):
    """The tiny data set. Shared by all tests: read it, but use `copy` to change it."""
    cache = tmp_path_factory.mktemp("cache")
    return generate_events(tiny_config, cache=cache, num_workers=2, progress=False)


@pytest.fixture
def copy(generated, tmp_path):
    """A copy of the tiny data set, in the cache `tmp_path`."""
    return shutil.copytree(generated, tmp_path / generated.name)
