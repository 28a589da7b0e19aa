"""Templates that come from upstream, in place of those of a workspace."""

import dataclasses
from collections.abc import Mapping

import jax.numpy as jnp
from jaxtyping import Array, Float

from ._layout import Interpolated, Layout, PerBin
from ._model import HistFactoryModel


def with_templates(
    model: HistFactoryModel,
    channel: str,
    *,
    nominal: Mapping[str, Float[Array, " bins"]] | None = None,
    shape_up: Mapping[tuple[str, str], Float[Array, " bins"]] | None = None,
    shape_down: Mapping[tuple[str, str], Float[Array, " bins"]] | None = None,
    stat_error: Mapping[tuple[str, str], Float[Array, " bins"]] | None = None,
) -> HistFactoryModel:
    """The model with other templates in a channel.

    The arrays may be traced: a workspace then says which systematic uncertainties there
    are, and the numbers come from a network, a detector or a selection that is being
    optimised. A template that is not given keeps its numbers; the variations of one
    that changes are to be given too.

    Args:
        model: The model of a workspace with as many bins as the new templates have.
        channel: Name of the channel.
        nominal: From sample to expected number of events.
        shape_up: From histosys modifier and sample to the same at plus one standard
            deviation.
        shape_down: The same, at minus one.
        stat_error: From staterror modifier and sample to the absolute statistical error
            of the simulation: above zero where there are events.

    Returns:
        The model.

    Raises:
        ValueError: The model has no such channel, sample or modifier, or another number
            of bins.
    """
    layout = model.layout
    at = _place(channel, layout.channels, "channel")
    bins = slice(layout.edges[at], layout.edges[at + 1])
    templates = {
        "nominal": nominal,
        "shape_up": shape_up,
        "shape_down": shape_down,
        "stat_error": stat_error,
    }
    changed = {}
    for name, given in templates.items():
        array = getattr(model, name)
        for key, values in (given or {}).items():
            place = _row(layout, at, name, key)
            wanted = bins.stop - bins.start
            if values.shape != (wanted,):
                raise ValueError(
                    f"`{name}` of {key} in channel '{channel}' has the shape "
                    f"{values.shape}, but the channel of the workspace has {wanted} "
                    "bins; build the model of a workspace with as many bins."
                )
            array = array.at[(*place, bins)].set(jnp.asarray(values, array.dtype))
        changed[name] = array
    return dataclasses.replace(model, **changed)


def _row(
    layout: Layout, channel: int, name: str, key: str | tuple[str, str]
) -> tuple[int, ...]:
    wanted = "a sample" if name == "nominal" else "a pair of modifier and sample"
    if isinstance(key, str) != (name == "nominal"):
        raise ValueError(f"{key!r} is a key of `{name}`, which takes {wanted}.")
    if isinstance(key, str):
        place = _place(key, layout.samples, "sample")
        if (place, channel) not in layout.present:
            raise ValueError(
                f"The channel '{layout.channels[channel]}' has no sample '{key}'; add "
                "it there in the workspace."
            )
        return (place,)
    modifier, sample = key
    table: tuple[Interpolated | PerBin, ...] = layout.shapes
    kind = "histosys modifier"
    if name == "stat_error":
        table, kind = layout.stats, "staterror modifier"
    row = _place(modifier, tuple(item.name for item in table), kind)
    place = _place(sample, layout.samples, "sample")
    if (place, channel) not in table[row].pairs:
        raise ValueError(
            f"The {kind} '{modifier}' does not act on the sample '{sample}' in the "
            f"channel '{layout.channels[channel]}'; add it there in the workspace."
        )
    if name == "stat_error":
        _require_free(layout, channel, layout.stats[row])
    return row, place


def _require_free(layout: Layout, channel: int, item: PerBin) -> None:
    fixed = [x for group in layout.sets for x in group.fixed]
    held = [
        bin - layout.edges[channel]
        for number, bin in enumerate(item.bins)
        if layout.edges[channel] <= bin < layout.edges[channel + 1]
        and fixed[item.parameter + number]
    ]
    if held:
        raise ValueError(
            f"The staterror modifier '{item.name}' is fixed in the bins {held} of the "
            f"channel '{layout.channels[channel]}', so that an error there would have "
            "no effect; give the workspace a sample and an error above zero there."
        )


def _place(name: str, names: tuple[str, ...], kind: str) -> int:
    if name not in names:
        known = ", ".join(f"'{x}'" for x in names) or "none"
        raise ValueError(f"The model has no {kind} '{name}', but {known}.")
    return names.index(name)
