"""Parameters: their start, bounds and constraints, as pyhf suggests them."""

import enum
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from ._checks import PER_BIN, SHAPES


class Constraint(enum.Enum):
    """What an auxiliary measurement says of a parameter."""

    NONE = "free"
    NORMAL = "normal"
    POISSON = "poisson"


class ParameterSet(NamedTuple):
    """The parameters of one name."""

    name: str
    """Their name."""
    size: int
    """How many they are."""
    scalar: bool
    """Whether it is one, without an index."""
    start: tuple[float, ...]
    """Where a fit begins."""
    bounds: tuple[tuple[float, float], ...]
    """The least and the greatest value."""
    fixed: tuple[bool, ...]
    """Whether a fit keeps them."""
    constraint: Constraint
    """The auxiliary measurement."""
    centre: tuple[float, ...]
    """Its outcome, if Gaussian."""
    width: tuple[float, ...] | None
    """Its standard deviation, if Gaussian; None if the templates determine it."""

    @property
    def names(self) -> tuple[str, ...]:
        """Name of each, with its index."""
        if self.scalar:
            return (self.name,)
        return tuple(f"{self.name}[{index}]" for index in range(self.size))


def make_set(
    kind: str, name: str, use: Any, settings: Mapping[str, Any]
) -> ParameterSet:
    """The parameters of a modifier.

    Args:
        kind: Its type.
        name: Its name.
        use: What it acts on, with its data.
        settings: What the measurement says of it.

    Returns:
        The parameters.

    Raises:
        ValueError: A setting is missing, of the wrong length, or not for this type.
    """
    size, fixed = 1, (False,)
    if kind == "staterror":
        fixed = _without_error(use)
        size = len(fixed)
    elif kind == "shapesys":
        fixed = tuple(
            not (n > 0 and e > 0)
            for n, e in zip(use.nominal[0], use.data[0], strict=True)
        )
        size = len(fixed)
    elif kind == "shapefactor":
        size, fixed = use.sizes[0], (False,) * use.sizes[0]
    start, bounds, centre, width, constraint = _DEFAULTS[kind]
    _check_settings(kind, name, size, settings)
    if "fixed" in settings:
        fixed = (bool(settings["fixed"]),) * size
    width = settings.get("sigmas", None if width is None else (width,) * size)
    limits = settings.get("bounds", (bounds,) * size)
    return ParameterSet(
        name,
        size,
        kind not in PER_BIN,
        tuple(map(float, settings.get("inits", (start,) * size))),
        tuple((float(a), float(b)) for a, b in limits),
        fixed,
        constraint,
        tuple(map(float, settings.get("auxdata", (centre,) * size))),
        None if width is None else tuple(map(float, width)),
    )


# Start, bounds, centre and width of the auxiliary measurement, its kind.
_DEFAULTS: dict[str, Any] = {
    "histosys": (0.0, (-5.0, 5.0), 0.0, 1.0, Constraint.NORMAL),
    "normsys": (0.0, (-5.0, 5.0), 0.0, 1.0, Constraint.NORMAL),
    "lumi": (None, None, None, None, Constraint.NORMAL),
    "normfactor": (1.0, (0.0, 10.0), 0.0, None, Constraint.NONE),
    "shapefactor": (1.0, (0.0, 10.0), 0.0, None, Constraint.NONE),
    "shapesys": (1.0, (1e-10, 10.0), 1.0, None, Constraint.POISSON),
    "staterror": (1.0, (1e-10, 10.0), 1.0, None, Constraint.NORMAL),
}
_ALLOWED = {
    "lumi": {"auxdata", "sigmas"},
    "staterror": {"auxdata", "sigmas"},
    **{kind: {"auxdata"} for kind in SHAPES},
}


def _check_settings(
    kind: str, name: str, size: int, settings: Mapping[str, Any]
) -> None:
    allowed = {"inits", "bounds", "fixed"} | _ALLOWED.get(kind, set())
    for key, value in settings.items():
        if key == "name":
            continue
        if key not in allowed:
            raise ValueError(
                f"Parameter '{name}' ({kind}) has the setting '{key}', which is not "
                f"for this type; remove it (allowed are {', '.join(sorted(allowed))})."
            )
        if key != "fixed" and len(value) != size:
            raise ValueError(
                f"Parameter '{name}' ({kind}) has {len(value)} numbers under '{key}' "
                f"in place of {size}; give one per parameter."
            )
    if kind == "lumi":
        for key in ("inits", "bounds", "auxdata", "sigmas"):
            if key not in settings:
                raise ValueError(
                    f"Parameter '{name}' (lumi) lacks '{key}'; add it to the "
                    "parameters of the measurement."
                )


def _without_error(use: Any) -> tuple[bool, ...]:
    # Bins whose relative statistical error is zero: nothing would constrain them.
    nominal: dict[int, np.ndarray] = {}
    variance: dict[int, np.ndarray] = {}
    for (_, channel), values, errors in zip(
        use.pairs, use.nominal, use.data, strict=True
    ):
        nominal[channel] = nominal.get(channel, 0.0) + np.asarray(values, float)
        variance[channel] = variance.get(channel, 0.0) + np.asarray(errors, float) ** 2
    good = np.concatenate([(nominal[c] > 0) & (variance[c] > 0) for c in nominal])
    return tuple(bool(x) for x in ~good)
