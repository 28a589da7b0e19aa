import dataclasses
import difflib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any


@dataclasses.dataclass(frozen=True)
class DemoConfig:
    """What the main job does. Every field can be set from the command line."""

    seed: int = 1
    """Seed of everything random after the generator."""
    luminosity: float = 300.0
    """Integrated luminosity, in 1/fb."""
    capacity: int = 96
    """Particle slots of an event."""
    num_jets: int = 6
    """Jet slots of an event."""
    replicas: int = 2
    """How many times found hits and clusterings are drawn on each event."""
    num_bins: int = 10
    """Bins of the likelihood ratio's histogram."""
    pretrain_steps: int = 200
    """Adam steps of the networks alone, on the cross-entropy."""
    pretrain_batch: int = 512
    """Events of each such step."""
    num_steps: int = 14
    """Adam steps of everything at once, on the uncertainty and the price."""
    batch_events: int = 512
    """Events of each such step."""
    learning_rate: float = 0.02
    """Adam's rate; a step is this times the parameter's own scale."""
    price_weight: float = 0.2
    """How many e-folds of the uncertainty one doubling of the price is worth."""
    measure_draws: int = 1
    """Draws of each event in the measurement before and after."""
    check_batches: int = 3
    """Batches of the gradient table in the report."""

    def __post_init__(self):
        for name in ("luminosity", "capacity", "num_jets", "num_bins", "batch_events"):
            value = getattr(self, name)
            if value <= 0:
                raise ValueError(f"`{name}` must be positive, but is {value}.")
        if self.replicas < 2:
            raise ValueError(
                f"`replicas` is {self.replicas}, but leave-one-out baselines need at "
                "least 2; raise it."
            )

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> "DemoConfig":
        """The configuration with some fields set.

        Args:
            values: From field name to value.

        Returns:
            The configuration.

        Raises:
            ValueError: An unknown name, or a value of the wrong type.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        for name in values:
            if name not in known:
                close = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean {close[0]!r}?" if close else f"there are {known}."
                raise ValueError(f"Unknown configuration key {name!r}; {hint}")
        types = {field.name: field.type for field in dataclasses.fields(cls)}
        return cls(**{name: _typed(name, x, types[name]) for name, x in values.items()})


def _typed(name: str, value: Any, kind: Any) -> Any:
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        wants = "an integer" if kind is int else "a number"
        raise ValueError(f"`{name}` wants {wants}, but got {value!r}.")
    return value


def read_config(path: Path | None, overrides: list[str]) -> DemoConfig:
    """The configuration of a TOML file and of `name=value` words, which win.

    Args:
        path: A TOML file of field names and values, or None.
        overrides: Words of the form `name=value`.

    Returns:
        The configuration.

    Raises:
        ValueError: The file is not TOML, a word is malformed, or a name is unknown.
        OSError: The file cannot be read.
    """
    values: dict[str, Any] = {}
    if path is not None:
        try:
            values |= tomllib.loads(path.read_text(encoding="utf-8"))
        except tomllib.TOMLDecodeError as error:
            raise ValueError(
                f"{path} is not a TOML file ({error}); write lines like "
                "`num_steps = 30`."
            ) from error
    for word in overrides:
        name, equals, text = word.partition("=")
        if not equals:
            raise ValueError(f"`--set` wants name=value, but got {word!r}.")
        values[name.strip()] = _number(name, text)
    return DemoConfig.from_mapping(values)


def _number(name: str, text: str) -> int | float:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    raise ValueError(f"`--set {name}` wants a number, but got {text!r}.")
