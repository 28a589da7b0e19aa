"""The public API as text, read off the source; `make api` writes it to api.json.

Public is what an `__init__.py` exports as `from ._x import y as y`. The source and not
the objects, so that neither the Python version nor an optional package matters.
"""

import ast
import json
from pathlib import Path


PACKAGE = Path(__file__).parent.parent / "diffhep"
SNAPSHOT = Path(__file__).parent / "api.json"

# Applications of the library, whose interface is the command line.
PRIVATE = {"demo"}


def exports(package: Path) -> dict[str, Path]:
    """From each public name of a package to the file that defines it."""
    found = {}
    for node in ast.parse((package / "__init__.py").read_text()).body:
        if not isinstance(node, ast.ImportFrom) or not node.module:
            continue
        for alias in node.names:
            if alias.asname == alias.name:
                found[alias.name] = package / f"{node.module}.py"
    return found


def _signature(node: ast.FunctionDef) -> str:
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return f"({ast.unparse(node.args)}){returns}"


def _is_public(name: str) -> bool:
    return not name.startswith("_") or name in {"__call__", "__init__"}


def _class(node: ast.ClassDef) -> dict[str, str]:
    members = {"": "class(" + ", ".join(ast.unparse(base) for base in node.bases) + ")"}
    for item in node.body:
        if isinstance(item, ast.AnnAssign):
            default = f" = {ast.unparse(item.value)}" if item.value else ""
            members[ast.unparse(item.target)] = ast.unparse(item.annotation) + default
        elif isinstance(item, ast.Assign):
            members[ast.unparse(item.targets[0])] = ast.unparse(item.value)
        elif isinstance(item, ast.FunctionDef) and _is_public(item.name):
            marks = "".join(f"@{ast.unparse(d)} " for d in item.decorator_list)
            members[item.name] = marks + _signature(item)
    return members


def _describe(name: str, path: Path) -> str | dict[str, str]:
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return _signature(node)
        if isinstance(node, ast.ClassDef) and node.name == name:
            return _class(node)
        target = node.target if isinstance(node, ast.AnnAssign) else None
        target = node.targets[0] if isinstance(node, ast.Assign) else target
        if target is not None and ast.unparse(target) == name:
            return "constant"
    raise ValueError(f"{path} does not define {name!r}; export it where it is defined.")


def snapshot() -> dict[str, dict[str, str | dict[str, str]]]:
    """From package to public name to signature, or to the members of a class."""
    packages = sorted(p.parent for p in PACKAGE.glob("*/**/__init__.py"))
    names = {".".join(x.relative_to(PACKAGE).parts): x for x in packages}
    return {
        name: {n: _describe(n, p) for n, p in sorted(exports(package).items())}
        for name, package in names.items()
        if package.relative_to(PACKAGE).parts[0] not in PRIVATE
    }


if __name__ == "__main__":
    SNAPSHOT.write_text(json.dumps(snapshot(), indent=1) + "\n")
