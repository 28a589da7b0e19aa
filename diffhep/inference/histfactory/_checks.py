"""What a workspace must fulfil; one sentence for what it does not."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


SHAPES = ("histosys", "normsys")
"""Modifiers whose parameters interpolate; they may share a name with each other."""
PER_BIN = ("shapesys", "shapefactor", "staterror")
"""Modifiers with one parameter per bin."""
SCALES = ("normfactor", "lumi")
"""Modifiers whose single parameter is a factor."""
_CONFIGURABLE = {"name", "inits", "bounds", "auxdata", "factors", "sigmas", "fixed"}


def check_workspace(content: Any) -> None:
    """Raise where the content is not a workspace.

    Args:
        content: Parsed JSON.

    Raises:
        ValueError: With the channel, sample and modifier, and a remedy.
    """
    _fields(content, ("channels", "measurements", "observations"), "The workspace")
    channels = _named(content["channels"], "channel", "The workspace")
    for channel in channels.values():
        _check_channel(channel)
    _check_shared(channels)
    observed = _named(content["observations"], "observation", "The workspace")
    for name, channel in channels.items():
        bins = len(channel["samples"][0]["data"])
        place = f"The observation of channel '{name}'"
        if name not in observed:
            raise ValueError(
                f"Channel '{name}' has no observation; add one of {bins} bins under "
                "'observations', or remove the channel."
            )
        _numbers(observed[name].get("data"), place, bins=bins, positive=True)
    for measurement in _named(
        content["measurements"], "measurement", "The workspace"
    ).values():
        _check_measurement(measurement)


def _check_channel(channel: Mapping[str, Any]) -> None:
    place = f"Channel '{channel['name']}'"
    samples = _named(channel.get("samples"), "sample", place)
    sizes: list[int] = []
    for sample in samples.values():
        here = f"Sample '{sample['name']}' of channel '{channel['name']}'"
        bins = sizes[0] if sizes else None
        data = _numbers(sample.get("data"), here, bins=bins, positive=True)
        sizes.append(len(data))
        seen = set()
        for modifier in sample.get("modifiers", ()):
            _fields(modifier, ("name", "type"), f"A modifier of {_lower(here)}")
            key = (modifier["type"], modifier["name"])
            if key in seen:
                raise ValueError(
                    f"{here} has the modifier '{key[1]}' of type {key[0]} twice; "
                    "remove one of them."
                )
            seen.add(key)
            _check_modifier(modifier, here, sizes[0])


def _check_modifier(modifier: Mapping[str, Any], place: str, bins: int) -> None:
    kind: str = modifier["type"]
    data: Any = modifier.get("data")
    here = f"Modifier '{modifier['name']}' ({kind}) of {_lower(place)}"
    if kind == "histosys":
        _fields(data, ("lo_data", "hi_data"), here)
        for side in ("lo_data", "hi_data"):
            _numbers(data[side], f"{here}, '{side}',", bins=bins)
    elif kind == "normsys":
        _fields(data, ("lo", "hi"), here)
        _numbers([data["lo"], data["hi"]], here, bins=2, positive=True)
    elif kind in {"shapesys", "staterror"}:
        _numbers(data, here, bins=bins, positive=True)
    elif kind in {"normfactor", "lumi", "shapefactor"}:
        if data is not None:
            raise ValueError(f"{here} takes no data; write null.")
    else:
        known = ", ".join((*SHAPES, *SCALES, *PER_BIN))
        raise ValueError(f"{here} is of an unknown type; use one of {known}.")


def _check_shared(channels: Mapping[str, Any]) -> None:
    # Parameters are shared by name: what shares one must want the same of it.
    kinds: dict[str, tuple[str, str]] = {}
    bins: dict[str, int] = {}
    for channel, sample, modifier in walk_modifiers(channels.values()):
        name, kind = modifier["name"], modifier["type"]
        place = f"of sample '{sample['name']}' of channel '{channel['name']}'"
        other, where = kinds.setdefault(name, (kind, place))
        if other != kind and {other, kind} != set(SHAPES):
            raise ValueError(
                f"Modifier '{name}' is a {other} {where} and a {kind} {place}, which "
                "cannot share a parameter; rename one of them."
            )
        if kind == "shapesys" and where != place:
            raise ValueError(
                f"Modifier '{name}' (shapesys) is on more than one sample, {where} and "
                f"{place}, but its parameters cannot be shared; rename one of them."
            )
        size = len(sample["data"])
        if kind == "shapefactor" and bins.setdefault(name, size) != size:
            raise ValueError(
                f"Modifier '{name}' (shapefactor) {place} has {size} bins, and "
                f"{bins[name]} elsewhere; rename it, or use the same binning."
            )
    _check_staterrors(channels)


def _check_staterrors(channels: Mapping[str, Any]) -> None:
    # One parameter per bin of the channels; each sample that has it, has all of them.
    places: dict[str, dict[str, set[str]]] = {}
    for channel, sample, modifier in walk_modifiers(channels.values()):
        if modifier["type"] == "staterror":
            samples = places.setdefault(modifier["name"], {})
            samples.setdefault(sample["name"], set()).add(channel["name"])
    for name, samples in places.items():
        wanted = set.union(*samples.values())
        for sample, found in samples.items():
            if found != wanted:
                raise ValueError(
                    f"Modifier '{name}' (staterror) is on sample '{sample}' in "
                    f"channels {sorted(found)}, and on other samples in "
                    f"{sorted(wanted)}; give each channel a modifier of its own."
                )


def _check_measurement(measurement: Mapping[str, Any]) -> None:
    place = f"Measurement '{measurement['name']}'"
    _fields(measurement, ("config",), place)
    _fields(measurement["config"], ("poi",), place)
    parameters = measurement["config"].get("parameters", [])
    for name, settings in _named(parameters, "parameter", place, least=0).items():
        here = f"Parameter '{name}' of {_lower(place)}"
        if unknown := sorted(set(settings) - _CONFIGURABLE):
            raise ValueError(
                f"{here} has the unknown setting '{unknown[0]}'; known are "
                f"{', '.join(sorted(_CONFIGURABLE))}."
            )
        for key in ("inits", "auxdata", "factors", "sigmas"):
            if key in settings:
                _numbers(settings[key], f"{here}, '{key}',")
        for pair in settings.get("bounds", ()):
            low, high = _numbers(pair, f"{here}, 'bounds',", bins=2)
            if low > high:
                raise ValueError(
                    f"{here} has the bounds {low} and {high}; exchange them."
                )


def walk_modifiers(
    channels: Iterable[Mapping[str, Any]],
) -> Iterable[tuple[Mapping[str, Any], Mapping[str, Any], Mapping[str, Any]]]:
    """Each modifier with its channel and sample, in the order of the file.

    Args:
        channels: The channels of a workspace.

    Yields:
        Channel, sample, modifier.
    """
    for channel in channels:
        for sample in channel["samples"]:
            for modifier in sample.get("modifiers", ()):
                yield channel, sample, modifier


def _lower(place: str) -> str:
    return place[0].lower() + place[1:]


def _fields(content: Any, wanted: Sequence[str], place: str) -> None:
    if not isinstance(content, Mapping):
        raise ValueError(f"{place} is no JSON object; it needs {', '.join(wanted)}.")
    for key in wanted:
        if key not in content:
            raise ValueError(f"{place} lacks '{key}'; add it.")


def _named(
    items: Any, kind: str, place: str, *, least: int = 1
) -> dict[str, Mapping[str, Any]]:
    if not isinstance(items, Sequence) or isinstance(items, str) or len(items) < least:
        raise ValueError(f"{place} needs a list of {kind}s; add at least {least}.")
    found: dict[str, Mapping[str, Any]] = {}
    for item in items:
        _fields(item, ("name",), f"A {kind} of {_lower(place)}")
        name = item["name"]
        if name in found:
            raise ValueError(f"{place} has two {kind}s '{name}'; rename one of them.")
        found[name] = item
    return found


def _numbers(
    values: Any, place: str, *, bins: int | None = None, positive: bool = False
) -> Sequence[int | float]:
    if not isinstance(values, Sequence) or isinstance(values, str) or not values:
        raise ValueError(f"{place} needs a list of numbers; it has {values!r}.")
    if bins is not None and len(values) != bins:
        raise ValueError(
            f"{place} has {len(values)} numbers in place of {bins}; use the same "
            "binning throughout the channel."
        )
    for index, value in enumerate(values):
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not math.isfinite(value):
            raise ValueError(
                f"{place} has {value!r} in place {index}; put a finite number there."
            )
        if positive and value < 0:
            raise ValueError(
                f"{place} has the negative number {value!r} in place {index}; merge "
                "bins, or set it to zero."
            )
    return values
