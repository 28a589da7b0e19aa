"""Renews constraints.txt: everything that the project's extras pull in, as installed.

Run by `make constraints`, in the virtual environment. Other packages that happen to lie
there are left out, and so are hosts and paths.
"""

import importlib.metadata
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


ROOT = Path(__file__).parent.parent
HEADER = """\
# Every package that the Makefile installs, at the version that was tested.
# Wheels exist for Python 3.11, 3.12 and 3.13. Renew with 'make constraints'.
"""


def _wanted(requirement: Requirement, extras: set[str]) -> bool:
    if requirement.marker is None:
        return True
    versions = ("3.11", "3.12", "3.13")
    environments = (
        {"extra": extra, "python_version": v, "python_full_version": f"{v}.0"}
        for extra in {"", *extras}
        for v in versions
    )
    return any(requirement.marker.evaluate(e) for e in environments)


def main() -> None:
    """Write the file."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"]]
    for extra in project["optional-dependencies"].values():
        lines += extra
    todo = [Requirement(line) for line in lines]
    versions: dict[str, str] = {}
    done: set[str] = set()
    while todo:
        requirement = todo.pop()
        if str(requirement) in done:
            continue
        done.add(str(requirement))
        name = canonicalize_name(requirement.name)
        distribution = importlib.metadata.distribution(name)
        versions[name] = distribution.version
        needs = (Requirement(line) for line in distribution.requires or [])
        todo += [need for need in needs if _wanted(need, requirement.extras)]
    body = "".join(f"{name}=={versions[name]}\n" for name in sorted(versions))
    (ROOT / "constraints.txt").write_text(HEADER + body)


if __name__ == "__main__":
    main()
