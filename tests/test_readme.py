"""What README.md shows is what happens."""

import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np

from diffhep.demo import build_pipeline


ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def _block(language):
    (block,) = re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)
    return block


def test_commands_come_first():
    commands = [line.split("#")[0].strip() for line in README.splitlines()[2:4]]
    assert commands == ["make demo", "make test"]
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"`make ([a-z-]+)", README)):
        if target.startswith("bench-"):
            assert (ROOT / "benchmarks" / f"{target[6:]}.py").exists(), target
        else:
            assert f"\n{target}:" in makefile, target


def test_example_is_short_and_prints_what_is_shown():
    code = _block("python")
    assert len([line for line in code.splitlines() if line]) <= 15
    environment = {
        **os.environ,
        "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir,
    }
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert result.returncode == 0, result.stderr
    found, shown = (
        np.array(re.findall(r"[-+.e\d]+", text), float)
        for text in (result.stdout, _block("text"))
    )
    # The last digits belong to the compiler.
    np.testing.assert_allclose(found, shown, rtol=1e-5)


def test_table_of_stages():
    rows = re.findall(r"^\| `(\w+)` \| (.+) \| (.+) \| (.+) \|$", README, re.MULTILINE)
    pipeline = build_pipeline(key=jax.random.key(0))
    stages = {name: s for name, s in pipeline.walk() if name != "Replicate"}
    assert [row[0] for row in rows] == list(stages)
    for name, reads, writes, gradient in rows:
        stage = stages[name]
        assert reads == (", ".join(sorted(stage.reads)) or "-")
        assert writes == ", ".join(sorted(stage.writes))
        assert gradient == stage.gradient.value
