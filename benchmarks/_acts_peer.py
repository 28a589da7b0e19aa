"""Scripts that run in the interpreter that has ACTS."""

import importlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any


def find() -> str | None:
    """The interpreter that has ACTS: that of `ACTS_PYTHON`, or else ours.

    Returns:
        Its path; None without ACTS, and a sentence is printed.
    """
    python = os.environ.get("ACTS_PYTHON", sys.executable)
    missing = subprocess.run(
        [python, "-c", "import acts.examples"],
        stderr=subprocess.DEVNULL,
        check=False,
    ).returncode
    if missing:
        print("ACTS is not installed: `pip install pyacts==48.1.0`; without its rows.")
        return None
    return python


def version(python: str) -> str:
    """The version of an interpreter's `pyacts`.

    Args:
        python: The interpreter.

    Returns:
        The version.
    """
    code = "import importlib.metadata as m; print(m.version('pyacts'))"
    return subprocess.check_output([python, "-c", code], text=True).strip()


def load(name: str) -> Any:
    """A module of ACTS, in its interpreter.

    Args:
        name: Its name.

    Returns:
        The module, unknown to type checkers: it is optional, and they would take
        `benchmarks/acts.py` for it.
    """
    return importlib.import_module(name)


def ask(python: str, module: str, job: Any) -> Any:
    """What a script answers.

    Args:
        python: The interpreter that has ACTS.
        module: The script, a module of this package that takes two files: one with its
            job, one for its answer, both JSON.
        job: The job.

    Returns:
        The answer.
    """
    with tempfile.TemporaryDirectory() as name:
        question, answer = Path(name, "job.json"), Path(name, "answer.json")
        question.write_text(json.dumps(job))
        subprocess.run(
            [python, "-m", f"{__package__}.{module}", str(question), str(answer)],
            check=True,
        )
        return json.loads(answer.read_text())
