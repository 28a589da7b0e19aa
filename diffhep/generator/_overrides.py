import dataclasses
import difflib
import tomllib
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ._config import GeneratorConfig, Process


def override_config(
    config: GeneratorConfig, changes: Mapping[str, Any]
) -> GeneratorConfig:
    """A configuration with some values changed.

    `{"seed": 2, "processes": {"z_jets": {"num_tried": 100}}}` changes the seed and the
    size of one process. A process with a new name must bring all its required values. A
    list of processes, each with its `name`, replaces all that there were.

    Args:
        config: The configuration to start from.
        changes: New values by key, nested for the processes.

    Returns:
        A new configuration.

    Raises:
        ValueError: A key is unknown, or a value has the wrong type.
    """
    changes = dict(changes)
    processes = {process.name: process for process in config.processes}
    wanted = changes.pop("processes", {})
    if isinstance(wanted, list):
        processes, wanted = {}, _by_name(wanted)
    for name, values in _mapping(wanted, "processes").items():
        content = _mapping(values, f"processes.{name}")
        processes[name] = _process(processes, name, content)
    known = {field.name: field for field in dataclasses.fields(GeneratorConfig)}
    values = _checked(changes, known, "")
    return dataclasses.replace(config, processes=tuple(processes.values()), **values)


def read_config(path: str | Path, config: GeneratorConfig) -> GeneratorConfig:
    """A configuration with the values changed that a TOML file names.

    Args:
        path: The TOML file.
        config: The configuration to start from.

    Returns:
        A new configuration.

    Raises:
        ValueError: It is no TOML, a key is unknown, or a value has the wrong type.
        OSError: The file cannot be read.
    """
    try:
        changes = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ValueError(
            f"{path} is no valid TOML file ({error}); correct it."
        ) from error
    except OSError as error:
        raise OSError(
            f"Cannot read the configuration {path} ({error.strerror}); check the path."
        ) from error
    return override_config(config, changes)


def parse_overrides(texts: Sequence[str]) -> dict[str, Any]:
    """Changes from `key=value` texts, as they stand on a command line.

    Args:
        texts: Such as `seed=2` or `processes.z_jets.num_tried=100`. Values are TOML;
            what is not is taken as a string.

    Returns:
        Nested changes for `override_config`.

    Raises:
        ValueError: A text has no equals sign, or no key.
    """
    changes: dict[str, Any] = {}
    for text in texts:
        key, separator, value = text.partition("=")
        parts = [part.strip() for part in key.split(".")]
        if not separator or not all(parts):
            raise ValueError(f"{text!r} is no override; write key=value, as in seed=2.")
        try:
            parsed = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            parsed = value.strip()
        target = changes
        for part in parts[:-1]:
            target = target.setdefault(part, {})
            if not isinstance(target, dict):
                raise ValueError(
                    f"{text!r} goes below {part!r}, which has a value already; give "
                    "one of the two."
                )
        target[parts[-1]] = parsed
    return changes


def _process(
    processes: Mapping[str, Process], name: str, changes: Mapping[str, Any]
) -> Process:
    known = {f.name: f for f in dataclasses.fields(Process) if f.name != "name"}
    if name in processes:
        values = _checked(changes, known, f"processes.{name}.")
        return dataclasses.replace(processes[name], **values)
    required = {k for k, f in known.items() if f.default is dataclasses.MISSING}
    if missing := sorted(required - set(changes)):
        raise ValueError(
            f"There is no process {name!r}{_nearest(name, list(processes))}; for a new "
            f"one give {missing[0]!r} too."
        )
    return Process(name=name, **_checked(changes, known, f"processes.{name}."))


def _checked(
    changes: Mapping[str, Any], known: Mapping[str, dataclasses.Field], prefix: str
) -> dict[str, Any]:
    values = {}
    for key, value in changes.items():
        if key not in known:
            raise ValueError(
                f"There is no configuration key {prefix + key!r}"
                f"{_nearest(key, list(known))}; the keys are {sorted(known)}."
            )
        values[key] = _convert(value, known[key].type, prefix + key)
    return values


def _nearest(name: str, known: Sequence[str]) -> str:
    # A cut-off of zero: the nearest key is named however far it is.
    best = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
    return f", did you mean {best[0]!r}" if best else ""


def _by_name(processes: list[Any]) -> dict[str, Any]:
    entries = [dict(_mapping(entry, "processes")) for entry in processes]
    for entry in entries:
        if not isinstance(entry.get("name"), str):
            raise ValueError(
                f"The process {entry!r} has no name; give each process in the list a "
                "`name`."
            )
    return {entry.pop("name"): entry for entry in entries}


def _mapping(value: Any, key: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError(
            f"`{key}` must hold keys with values, but is {value!r}; write for example "
            "processes.z_jets.num_tried=100."
        )
    return value


def _convert(value: Any, kind: Any, key: str) -> Any:
    if isinstance(kind, types.UnionType):
        if value is None or value == "none":
            return None
        kind = typing.get_args(kind)[0]
    if typing.get_origin(kind) is tuple and isinstance(value, list | tuple):
        item = typing.get_args(kind)[0]
        return tuple(_convert(entry, item, key) for entry in value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(kind, type) and type(value) is kind:
        return value
    name = "a list" if typing.get_origin(kind) is tuple else kind.__name__
    raise ValueError(f"`{key}` must be {name}, but is {value!r}; correct the value.")
