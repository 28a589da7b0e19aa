import dataclasses
import re

import pytest

from diffhep.generator import (
    GeneratorConfig,
    Process,
    override_config,
    parse_overrides,
    read_config,
    z_jets,
    zh_nunubb,
)


def test_defaults():
    config = GeneratorConfig()
    assert [p.label for p in config.processes] == [1, 0]
    assert sum(job["num_tried"] for job in config.jobs()) == sum(
        p.num_tried for p in config.processes
    )
    seeds = {job["commands"][-1] for job in config.jobs()}
    assert len(seeds) == len(config.jobs())


def test_last_chunk_is_smaller_and_events_are_numbered_on():
    config = GeneratorConfig(
        processes=(
            dataclasses.replace(zh_nunubb(num_tried=7), chunk_size=5),
            dataclasses.replace(z_jets(num_tried=5), chunk_size=5),
        )
    )
    jobs = config.jobs()
    assert [job["num_tried"] for job in jobs] == [5, 2, 5]
    assert [job["first_event"] for job in jobs] == [0, 5, 100_000_000]


def test_overrides_from_texts():
    texts = [
        "seed=3",
        "name=other",
        "beam_energy=13000",
        "vertex_spread=[0, 0, 1]",
        "processes.z_jets.num_tried=100",
        "processes.z_jets.keep_per_chunk=none",
    ]
    config = override_config(GeneratorConfig(), parse_overrides(texts))
    assert (config.seed, config.name, config.beam_energy) == (3, "other", 13_000.0)
    assert config.vertex_spread == (0.0, 0.0, 1.0)
    assert config.processes[0] == GeneratorConfig().processes[0]
    assert config.processes[1].num_tried == 100
    assert config.processes[1].keep_per_chunk is None


def test_overrides_from_a_file(tmp_path):
    path = tmp_path / "config.toml"
    path.write_text(
        "seed = 5\n[processes.dijets]\nlabel = 0\nnum_tried = 9\n"
        'commands = ["HardQCD:all=on", "PhaseSpace:pTHatMin=100."]\n'
    )
    config = read_config(path, GeneratorConfig())
    assert config.seed == 5
    assert config.processes[2] == Process(
        name="dijets",
        label=0,
        commands=("HardQCD:all=on", "PhaseSpace:pTHatMin=100."),
        num_tried=9,
    )


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"sed": 1}, "no configuration key 'sed', did you mean 'seed'"),
        (
            {"processes": {"z_jets": {"number_tried": 1}}},
            "no configuration key 'processes.z_jets.number_tried', did you mean "
            "'num_tried'",
        ),
        (
            {"processes": {"zjets": {"num_tried": 1}}},
            "no process 'zjets', did you mean 'z_jets'; for a new one give 'commands'",
        ),
        ({"seed": "one"}, "`seed` must be int, but is 'one'"),
        ({"seed": True}, "`seed` must be int, but is True"),
        ({"vertex_spread": 1.0}, "`vertex_spread` must be a list, but is 1.0"),
        ({"processes": 3}, "`processes` must hold keys with values, but is 3"),
        ({"processes": [{"label": 1}]}, "has no name; give each process"),
        ({"vertex_spread": [1.0]}, "give three lengths"),
        ({"min_pt": -1.0}, "`min_pt` must be positive, but is -1.0"),
        ({"name": "../up"}, "will be a folder's name"),
        ({"processes": {"z_jets": {"label": 2}}}, "`label` of 'z_jets' is 2"),
        ({"processes": {"z_jets": {"num_tried": 0}}}, "`num_tried` of 'z_jets' must"),
        (
            {"processes": {"z_jets": {"keep_per_chunk": [1, 0, 1]}}},
            "give one positive number for each of",
        ),
    ],
)
def test_bad_changes(changes, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        override_config(GeneratorConfig(), changes)


@pytest.mark.parametrize("text", ["seed", "=3", "a..b=1"])
def test_bad_texts(text):
    with pytest.raises(ValueError, match=r"write key=value"):
        parse_overrides([text])


def test_conflicting_texts():
    with pytest.raises(ValueError, match=r"has a value already"):
        parse_overrides(["seed=1", "seed.x=2"])


def test_bad_files(tmp_path):
    (tmp_path / "bad.toml").write_text("seed = = 1")
    with pytest.raises(ValueError, match=r"no valid TOML file"):
        read_config(tmp_path / "bad.toml", GeneratorConfig())
    with pytest.raises(OSError, match=r"Cannot read the configuration"):
        read_config(tmp_path / "none.toml", GeneratorConfig())


def test_processes_need_different_names():
    with pytest.raises(ValueError, match=r"with different names"):
        GeneratorConfig(processes=(z_jets(), z_jets()))
