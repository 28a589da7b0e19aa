import dataclasses
import json
import os
import pickle
import signal
import subprocess
import sys
import time

import pytest

from diffhep.generator import (
    GeneratorConfig,
    _worker as worker,
    dataset_folder,
    default_cache,
    generate_events,
    override_config,
)


def _contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_same_bytes_again_and_with_one_worker(generated, tiny_config, tmp_path):
    again = generate_events(tiny_config, cache=tmp_path, num_workers=1, progress=False)
    assert again != generated
    assert again.name == generated.name
    assert _contents(again) == _contents(generated)
    assert len(_contents(again)) == 4


def test_a_second_call_only_reads(generated, tiny_config, monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", None)
    before = {path: path.stat().st_mtime_ns for path in generated.iterdir()}
    folder = generate_events(tiny_config, cache=generated.parent, progress=False)
    assert folder == generated
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_only_missing_and_unreadable_chunks_are_made_again(
    generated, copy, tiny_config
):
    (copy / "zh_nunubb-00000.parquet").unlink()
    damaged = copy / "z_jets-00001.parquet"
    damaged.write_bytes(damaged.read_bytes()[:-100])
    untouched = (copy / "z_jets-00000.parquet").stat().st_mtime_ns
    generate_events(tiny_config, cache=copy.parent, num_workers=2, progress=False)
    assert _contents(copy) == _contents(generated)
    assert (copy / "z_jets-00000.parquet").stat().st_mtime_ns == untouched


_SCRIPT = """
import pickle, signal, sys
# Where the tests run in the background, Ctrl-C is ignored from the start.
signal.signal(signal.SIGINT, signal.default_int_handler)
from diffhep.generator import generate_events
config = pickle.loads(bytes.fromhex(sys.argv[1]))
try:
    generate_events(config, cache=sys.argv[2], num_workers=1)
except KeyboardInterrupt:
    sys.exit(7)
"""


def test_interrupt_leaves_a_resumable_state(generated, tiny_config, tmp_path):
    folder = tmp_path / generated.name
    process = subprocess.Popen(
        [sys.executable, "-c", _SCRIPT, pickle.dumps(tiny_config).hex(), tmp_path],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.time() + 120
    while not list(folder.glob("*.parquet")) and time.time() < deadline:
        time.sleep(0.02)
    # As a terminal does: to all processes of the group.
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 7, said
    left = sorted(path.name for path in folder.iterdir())
    assert left
    assert all(name.endswith(".parquet") for name in left)
    assert "manifest.json" not in left
    generate_events(tiny_config, cache=tmp_path, num_workers=2, progress=False)
    assert _contents(folder) == _contents(generated)


def test_manifest_states_cross_sections_and_counts(generated, tiny_config):
    manifest = json.loads((generated / "manifest.json").read_text())
    assert override_config(GeneratorConfig(), manifest["config"]) == tiny_config
    signal_part, background = manifest["processes"]
    # Pythia's cross-sections at 14 TeV, from 20,000 events of the hard process alone,
    # branching fractions included; a dozen events know them to 10 to 20 %.
    for part, expected in ((signal_part, 0.00912), (background, 37.03)):
        assert part["sigma_error_pb"] < 0.25 * part["sigma_pb"]
        assert abs(part["sigma_pb"] - expected) < 4 * part["sigma_error_pb"]
        assert sum(s["num_found"] for s in part["strata"]) == part["num_tried"]
    assert [s["name"] for s in signal_part["strata"]] == ["all"]
    assert [s["name"] for s in background["strata"]] == ["b", "c", "light"]
    light = background["strata"][2]
    assert light["num_kept"] == 6
    expected = background["sigma_pb"] * light["num_found"] / 30 / 6
    assert light["weight_pb"] == pytest.approx(expected, rel=1e-12)


def test_the_folder_depends_on_everything(tiny_config, tmp_path):
    changes = [
        {"seed": 7},
        {"beam_energy": 13_000.0},
        {"multiparton_interactions": False},
        {"processes": {"z_jets": {"k_factor": 1.2}}},
    ]
    configs = [tiny_config, *(override_config(tiny_config, c) for c in changes)]
    folders = {dataset_folder(config, cache=tmp_path) for config in configs}
    assert len(folders) == len(configs)


def test_default_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("DIFFHEP_CACHE", str(tmp_path / "a"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "b"))
    assert default_cache() == tmp_path / "a"
    monkeypatch.delenv("DIFFHEP_CACHE")
    assert default_cache() == tmp_path / "b" / "diffhep"


def test_unwritable_cache(tiny_config, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("DIFFHEP_CACHE", str(tmp_path / "file"))
    with pytest.raises(OSError, match=r"Cannot write to the cache .*DIFFHEP_CACHE"):
        generate_events(tiny_config, progress=False)


@pytest.mark.parametrize("package", ["pythia8mc", "pyarrow"])
def test_missing_package(tiny_config, tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"{package}.*pip install 'diffhep\[gen"):
        generate_events(tiny_config, cache=tmp_path, progress=False)
    assert not list(tmp_path.iterdir())


def test_pythia_refuses_a_command(tiny_config, tmp_path):
    process = dataclasses.replace(
        tiny_config.processes[0], commands=("Higgs:maybe=on",)
    )
    config = dataclasses.replace(tiny_config, processes=(process,))
    with pytest.raises(ValueError, match=r"does not understand .*'Higgs:maybe"):
        generate_events(config, cache=tmp_path, num_workers=1, progress=False)
    (folder,) = tmp_path.iterdir()
    assert all(path.suffix == ".parquet" for path in folder.iterdir())


def test_pythia_without_its_data(tiny_config, tmp_path, monkeypatch):
    # As after `pip install --target`, which puts them elsewhere.
    monkeypatch.setenv("PYTHIA8DATA", str(tmp_path))
    with pytest.raises(ValueError, match=r"does not find its data; .*PYTHIA8DATA"):
        generate_events(
            tiny_config, cache=tmp_path / "c", num_workers=1, progress=False
        )


def test_a_worker_that_dies(tiny_config, tmp_path, monkeypatch):
    script = tmp_path / "script.py"
    script.write_text("import sys\nsys.exit('no memory')\n")
    monkeypatch.setattr(worker, "__file__", str(script))
    with pytest.raises(OSError, match=r"ended with code 1 .*no memory.*run again"):
        generate_events(tiny_config, cache=tmp_path / "c", progress=False)


def test_a_chunk_that_cannot_be_written(tiny_config, tmp_path):
    job = tiny_config.jobs()[0] | {"num_tried": 1}
    job["path"] = str(tmp_path / "nowhere" / "chunk.parquet")
    with pytest.raises(OSError, match=r"Cannot write .*chunk.parquet .*make room"):
        worker.make_chunk(job, lambda number: None)


def test_number_of_workers(tiny_config, tmp_path):
    with pytest.raises(ValueError, match=r"`num_workers` must be positive, but is 0"):
        generate_events(tiny_config, cache=tmp_path, num_workers=0)


def test_stale_temporary_files_go(generated, copy, tiny_config):
    (copy / "manifest.json").unlink()
    old, new = copy / ".old.1.tmp", copy / ".new.2.tmp"
    old.touch()
    new.touch()
    os.utime(old, (0, 0))
    generate_events(tiny_config, cache=copy.parent, progress=False)
    assert not old.exists()
    assert new.exists()
    assert (copy / "manifest.json").read_bytes() == (
        generated / "manifest.json"
    ).read_bytes()


def test_workers_import_no_jax():
    code = (
        "import runpy, sys; runpy.run_path(sys.argv[1], run_name='worker'); "
        "sys.exit('jax' in sys.modules or 'diffhep' in sys.modules)"
    )
    command = [sys.executable, "-P", "-c", code, worker.__file__]
    assert subprocess.run(command, check=False).returncode == 0
