import ast
import importlib
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

import diffhep


HERE = Path(__file__).parent


def _snapshot_module():
    # By path: tests are not a package.
    path = HERE / "api_snapshot.py"
    spec = importlib.util.spec_from_file_location("api_snapshot", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


API = _snapshot_module()
NOW = API.snapshot()
FROZEN = json.loads(API.SNAPSHOT.read_text())


def test_packages_are_those_of_the_snapshot():
    assert sorted(NOW) == sorted(FROZEN), "run `make api` if this is deliberate"


@pytest.mark.parametrize("package", sorted(FROZEN))
def test_public_names_are_those_of_the_snapshot(package):
    now, frozen = NOW[package], FROZEN[package]
    changed = {n for n in {*now, *frozen} if now.get(n) != frozen.get(n)}
    assert not changed, (
        f"{package} changed {sorted(changed)}; if this is deliberate, run `make api` "
        "and write a line in CHANGELOG.md"
    )


@pytest.mark.parametrize("package", sorted(NOW))
def test_public_names_exist(package):
    module = importlib.import_module(f"diffhep.{package}")
    for name in NOW[package]:
        assert getattr(module, name) is not None


def test_short_list_resolves():
    assert len(diffhep.__all__) > 20
    for name in diffhep.__all__:
        value = getattr(diffhep, name)
        assert getattr(value, "__name__", name) == name
        assert name in dir(diffhep)
    with pytest.raises(AttributeError, match="no attribute 'Evnet'"):
        _ = diffhep.Evnet


def test_short_list_is_the_same_for_type_checkers():
    tree = ast.parse(Path(diffhep.__file__).read_text())
    (block,) = (n for n in tree.body if isinstance(n, ast.If))
    typed = {
        alias.name: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert typed == diffhep._HOMES


_HEAVY = {"pythia8mc", "pyarrow", "matplotlib", "fastjet", "awkward", "iminuit"}


@pytest.mark.parametrize(
    "statement",
    [
        "import diffhep; [getattr(diffhep, name) for name in diffhep.__all__]",
        "import diffhep.plotting",
        "import diffhep.cli",
    ],
)
def test_imports_are_light(statement):
    code = (
        f"import sys\n{statement}\n"
        "loaded = {name.split('.')[0] for name in sys.modules}\n"
        f"assert not loaded & {_HEAVY!r}, loaded & {_HEAVY!r}"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr


def test_command_line_starts_without_jax():
    code = "import sys, diffhep.cli; assert 'jax' not in sys.modules"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr


def test_version():
    assert diffhep.__version__.count(".") == 2
