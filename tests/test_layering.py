"""The layers of the architecture, read off the imports; and the size of files."""

import ast
import re
from pathlib import Path

import pytest


ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "diffhep"

# A package imports from lower layers only: never from its own layer or above.
LAYERS = [
    {"_version", "numerics"},
    {"estimators"},
    {"event"},
    {"pipeline"},
    {"geometry"},
    {"helix"},
    {"generator", "detector", "tracking", "vertexing", "jets", "calibration"},
    {"tagging"},
    {"inference"},
    {"optimise", "plotting", "testing"},
    {"demo"},
    {"cli"},
]
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}

# Physics kernels live in these. There, a file that imports `Event` defines a stage.
# Elsewhere above `pipeline` (generator, inference, ...) code handles whole events.
KERNEL_PACKAGES = {
    "geometry",
    "helix",
    "detector",
    "tracking",
    "vertexing",
    "jets",
    "calibration",
    "tagging",
}

FILES = sorted(PACKAGE.rglob("*.py"))
SIZED = FILES + sorted((ROOT / "benchmarks").rglob("*.py"))


def _home(path):
    """The package, or top-level module, that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def _imports(path):
    """Each imported (package of diffhep, name) of a file."""
    parts = ("diffhep", *path.relative_to(PACKAGE).parent.parts)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            targets = [(alias.name.split("."), alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = list(parts[: len(parts) + 1 - node.level]) if node.level else []
            base += node.module.split(".") if node.module else []
            targets = [([*base, alias.name], alias.name) for alias in node.names]
        else:
            continue
        for dotted, name in targets:
            if dotted[0] == "diffhep" and len(dotted) > 1:
                yield dotted[1], name


def _id(path):
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", FILES, ids=_id)
def test_no_batch_of_lapack_calls(path):
    # Two CPU devices that run such batches at once wait for each other for ever
    # (jaxlib 0.10.2); `numerics` has what small matrices need. What has its own rule
    # for `vmap` is no batch.
    tree = ast.parse(path.read_text())
    single = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef)
        and any("custom_vmap" in ast.unparse(x) for x in function.decorator_list)
        for node in ast.walk(function)
    }
    names = (
        ast.unparse(node)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and id(node) not in single
    )
    found = [
        x for x in names if re.match(r"(jnp|jax[a-z.]*)\.linalg\.(?!block_diag)", x)
    ]
    assert not found, f"{found}: use `diffhep.numerics`"


def test_every_package_has_a_layer():
    homes = {_home(path) for path in FILES} - {"__init__"}
    assert homes <= set(RANK), f"give a layer to {sorted(homes - set(RANK))}"


@pytest.mark.parametrize("path", FILES, ids=_id)
def test_imports_point_downwards(path):
    home = _home(path)
    if home == "__init__":  # the short list of names that a user composes
        return
    for package, name in _imports(path):
        # A name of the top-level `__init__` would drag in everything.
        assert package in RANK, f"imports {name} from diffhep itself"
        assert package == home or RANK[package] < RANK[home], (
            f"{home} may not import {name} from {package}: it is not in a lower layer"
        )


@pytest.mark.parametrize("path", FILES, ids=_id)
def test_packages_do_not_import_what_lies_inside_them(path):
    if path.parent == PACKAGE:
        return
    inside = {p.name for p in path.parent.iterdir() if (p / "__init__.py").exists()}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == 1:
            names = {alias.name for alias in node.names} if not node.module else set()
            first = (node.module or "").split(".")[0]
            assert not inside & {first, *names}, f"imports from {first} inside it"


@pytest.mark.parametrize("path", FILES, ids=_id)
def test_kernels_do_not_know_the_event(path):
    if _home(path) not in KERNEL_PACKAGES:
        return
    classes = [n for n in ast.walk(ast.parse(path.read_text())) if _is_class(n)]
    bases = {ast.unparse(base) for node in classes for base in node.bases}
    if "Event" in {name for package, name in _imports(path) if package == "event"}:
        assert "AbstractStage" in bases, "imports Event, but defines no stage"


def _is_class(node):
    return isinstance(node, ast.ClassDef)


@pytest.mark.parametrize("path", FILES, ids=_id)
def test_no_class_inherits_from_a_final_one(path):
    for node in filter(_is_class, ast.walk(ast.parse(path.read_text()))):
        for base in node.bases:
            name = ast.unparse(base).split("[")[0].split(".")[-1]
            plain = {"Module", "NamedTuple", "Enumeration", "IntFlag", "Enum"}
            foreign = name.endswith(("Error", "Formatter", "Protocol", "Thread"))
            assert name.startswith("Abstract") or name in plain or foreign, (
                f"{node.name} inherits from {name}, which is neither abstract nor a "
                "plain base"
            )
        calls = [n for n in ast.walk(node) if isinstance(n, ast.Call)]
        assert "super" not in {ast.unparse(call.func) for call in calls}


@pytest.mark.parametrize("path", SIZED, ids=_id)
def test_files_and_functions_are_short(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = node.end_lineno - node.lineno + 1
            # The docstring is not part of what has to be understood at once.
            length -= _docstring_lines(node)
            assert length <= 60, f"{node.name} has {length} lines"


def _docstring_lines(node):
    first = node.body[0]
    if ast.get_docstring(node) is None:
        return 0
    return first.end_lineno - first.lineno + 1
