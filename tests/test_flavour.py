"""The short version of the flagship: everything it does, on few jets and steps."""

import json
import os
import pathlib
import subprocess
import sys

import pytest


ROOT = pathlib.Path(__file__).parent.parent
ARMS = ("none", "full")


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """A function that runs it and returns its output, with a cache of its own."""
    pytest.importorskip("pythia8mc")
    environment = os.environ | {
        "QUICK": "1",
        "DIFFHEP_CACHE": str(tmp_path_factory.mktemp("cache")),
    }

    def run(*arguments):
        command = [sys.executable, "-m", "benchmarks.flavour", *arguments]
        result = subprocess.run(
            command,
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, result.stderr[-2000:]
        return result.stdout

    return run


def test_runs_are_recorded_resumed_and_compared(quick):
    folder = ROOT / "benchmarks" / "results" / "flavour-quick"
    for path in folder.glob("*"):
        path.unlink()
    options = ("--seeds", "0", "--arms", *ARMS)
    first = quick(*options, "--figures")
    files = {arm: folder / f"{arm}-0.json" for arm in ARMS}
    stored = {arm: json.loads(file.read_text()) for arm, file in files.items()}
    times = {arm: file.stat().st_mtime_ns for arm, file in files.items()}
    for arm, content in stored.items():
        assert f"{arm}, seed 0: loss" in first
        assert content["settings"]["steps"] == 10
        found = content["found"]
        assert 0.3 < found["validation loss"] < 1.2
        table = found["log rejection"]["both"]["light at 0.70"]
        assert len(table["draws"]) == 20
        assert table["value"] > 0
    # Tracks weigh more than nothing where there is a fit, and nothing where not.
    assert stored["none"]["found"]["selection"] == {"heavy": 0.0, "others": 0.0}
    assert stored["full"]["found"]["selection"]["heavy"] > 0.1
    assert (folder / "resolution.svg").stat().st_size > 5000
    assert (folder / "jet-full.svg").stat().st_size > 5000
    # The second time nothing is trained, and the answer is the same.
    second = quick(*options)
    assert {arm: file.stat().st_mtime_ns for arm, file in files.items()} == times
    ratio = [line for line in first.splitlines() if "full / none" in line]
    assert len(ratio) == 24
    assert all(line in second for line in ratio)
