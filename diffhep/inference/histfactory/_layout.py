"""Where everything of a workspace lies in the arrays of a model.

Channels, samples and parameters are in pyhf's order, so that parameter vectors can be
exchanged: channels and samples by name; parameters by type of modifier, within a type
as a walk through channels, samples and modifiers, all sorted, meets them.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from ._checks import PER_BIN, SHAPES, walk_modifiers
from ._parameters import ParameterSet, make_set


class Interpolated(NamedTuple):
    """A histosys or normsys modifier."""

    name: str
    """Its name."""
    parameter: int
    """Which parameter it is."""
    pairs: tuple[tuple[int, int], ...]
    """The samples and channels that it acts on."""


class PerBin(NamedTuple):
    """A modifier with one parameter per bin."""

    name: str
    """Its name."""
    parameter: int
    """Its first parameter; the others follow."""
    pairs: tuple[tuple[int, int], ...]
    """The samples and channels that it acts on."""
    bins: tuple[int, ...]
    """The bin of each parameter, of the first channel that it acts on if shared."""


class Layout(NamedTuple):
    """Names and places; all hashable."""

    channels: tuple[str, ...]
    """Names of the channels."""
    edges: tuple[int, ...]
    """First bin of each channel, and the number of all bins."""
    samples: tuple[str, ...]
    """Names of the samples."""
    present: tuple[tuple[int, int], ...]
    """Which samples are in which channels."""
    sets: tuple[ParameterSet, ...]
    """Parameters that belong together."""
    poi: int | None
    """Which parameter is of interest; none if the measurement names none."""
    shapes: tuple[Interpolated, ...]
    """The histosys modifiers."""
    norms: tuple[Interpolated, ...]
    """The normsys modifiers."""
    poissons: tuple[PerBin, ...]
    """The shapesys modifiers."""
    stats: tuple[PerBin, ...]
    """The staterror modifiers."""
    factors: tuple[tuple[int, ...], ...]
    """Of each sample and bin, the parameters that are factors on it."""

    @property
    def bins(self) -> int:
        """Number of bins of all channels."""
        return self.edges[-1]

    @property
    def names(self) -> tuple[str, ...]:
        """Name of each parameter, with an index where there is one per bin."""
        return tuple(name for group in self.sets for name in group.names)


def without_names(layout: Layout) -> Layout:
    """The places without the names.

    Models that differ in names only, such as those of many signal points, then share
    their compiled code.

    Args:
        layout: A layout.

    Returns:
        The same, with empty names.
    """

    def bare(items: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(item._replace(name="") for item in items)

    return layout._replace(
        channels=("",) * len(layout.channels),
        samples=("",) * len(layout.samples),
        sets=bare(layout.sets),
        shapes=bare(layout.shapes),
        norms=bare(layout.norms),
        poissons=bare(layout.poissons),
        stats=bare(layout.stats),
    )


class _Use(NamedTuple):
    # What a modifier of one name and type acts on, first come first.
    pairs: list[tuple[int, int]]
    data: list[Any]
    sizes: list[int]
    nominal: list[Any]


def lay_out(channels: list[Mapping[str, Any]], config: Mapping[str, Any]) -> Layout:
    """The layout of a workspace.

    Args:
        channels: Its channels.
        config: The measurement's configuration: parameter of interest and settings.

    Returns:
        The layout.

    Raises:
        ValueError: A setting is wrong, or there is no parameter of interest.
    """
    by_name = {channel["name"]: channel for channel in channels}
    names = tuple(sorted(by_name))
    edges = [0]
    for name in names:
        edges.append(edges[-1] + len(by_name[name]["samples"][0]["data"]))
    samples = tuple(sorted({s["name"] for c in channels for s in c["samples"]}))
    uses = _find_uses(by_name, names, samples)
    settings = {item["name"]: item for item in config.get("parameters", ())}
    sets: list[ParameterSet] = []
    places: dict[str, int] = {}
    for (kind, name), use in uses.items():
        if name not in places:
            places[name] = sum(group.size for group in sets)
            sets.append(make_set(kind, name, use, settings.get(name, {})))

    def of(kind: str) -> list[tuple[str, _Use]]:
        return [(name, use) for (k, name), use in uses.items() if k == kind]

    def per_bin(name: str, use: _Use) -> PerBin:
        bins: list[int] = []
        for channel in dict.fromkeys(c for _, c in use.pairs):
            bins += range(edges[channel], edges[channel + 1])
        return PerBin(name, places[name], tuple(use.pairs), tuple(bins))

    factors: list[list[int]] = [[] for _ in range(len(samples) * edges[-1])]
    for (kind, name), use in uses.items():
        if kind not in SHAPES:
            _add_factors(factors, kind, places[name], use, edges)
    shapes, norms = (
        tuple(Interpolated(name, places[name], tuple(use.pairs)) for name, use in of(k))
        for k in SHAPES
    )
    poissons, stats = (
        tuple(per_bin(*item) for item in of(k)) for k in ("shapesys", "staterror")
    )
    return Layout(
        names,
        tuple(edges),
        samples,
        tuple(
            (samples.index(sample["name"]), index)
            for index, name in enumerate(names)
            for sample in by_name[name]["samples"]
        ),
        tuple(sets),
        _find_poi(config["poi"], sets, places),
        shapes,
        norms,
        poissons,
        stats,
        tuple(map(tuple, factors)),
    )


def _find_uses(
    channels: Mapping[str, Any], names: tuple[str, ...], samples: tuple[str, ...]
) -> dict[tuple[str, str], _Use]:
    uses: dict[tuple[str, str], _Use] = {}
    for channel, sample, modifier in _walk_sorted([channels[name] for name in names]):
        key = (modifier["type"], modifier["name"])
        use = uses.setdefault(key, _Use([], [], [], []))
        use.pairs.append((samples.index(sample["name"]), names.index(channel["name"])))
        use.data.append(modifier.get("data"))
        use.sizes.append(len(sample["data"]))
        use.nominal.append(sample["data"])
    # pyhf collects all staterror modifiers before it makes their parameters.
    by_name = ("staterror",)
    return dict(
        sorted(
            uses.items(),
            key=lambda item: (item[0][0], item[0][1] if item[0][0] in by_name else ""),
        )
    )


def _walk_sorted(channels: list[Any]) -> Any:
    for channel in channels:
        ordered = sorted(channel["samples"], key=lambda s: s["name"])
        for sample in ordered:
            modifiers = sorted(
                sample.get("modifiers", ()), key=lambda m: (m["name"], m["type"])
            )
            whole = {**channel, "samples": [{**sample, "modifiers": modifiers}]}
            yield from walk_modifiers([whole])


def _add_factors(
    factors: list[list[int]], kind: str, first: int, use: _Use, edges: list[int]
) -> None:
    # One parameter per bin: those of a staterror run through its channels one after
    # the other, those of a shapefactor are shared by all.
    starts: dict[int, int] = {}
    total = 0
    for (sample, channel), size in zip(use.pairs, use.sizes, strict=True):
        if channel not in starts:
            starts[channel] = total if kind == "staterror" else 0
            total += size
        for bin_ in range(size):
            own = first + (starts[channel] + bin_ if kind in PER_BIN else 0)
            factors[sample * edges[-1] + edges[channel] + bin_].append(own)


def _find_poi(
    poi: str, sets: list[ParameterSet], places: Mapping[str, int]
) -> int | None:
    if not poi:
        return None
    if poi not in places:
        raise ValueError(
            f"The parameter of interest '{poi}' belongs to no modifier; apply the "
            "patch that adds the signal, or change 'poi' of the measurement."
        )
    group = next(group for group in sets if group.name == poi)
    if group.size > 1:
        raise ValueError(
            f"The parameter of interest '{poi}' has {group.size} components; choose "
            "a modifier with a single parameter."
        )
    return places[poi]
