"""Clustering of awkward arrays, with the interface of the Python package of fastjet."""

from typing import Any

import equinox as eqx
import numpy as np

from ._engine import AbstractHostEngine, CompiledEngine


_NAMES = ("px", "py", "pz", "E")
# Numbers of fastjet's algorithms, and the power of each; None is a parameter.
_POWERS = {0: 1.0, 1: 0.0, 2: -1.0, 3: None}
_E_SCHEME = 0


class JetDefinition(eqx.Module):
    """A generalised-kt algorithm with the E-scheme."""

    radius: float = 0.4
    """Jet radius R."""
    power: float = -1.0
    """Power p of the transverse momentum: -1 anti-kt, 0 Cambridge/Aachen, 1 kt."""

    def __check_init__(self):
        if not self.radius > 0:
            raise ValueError(f"`radius` is {self.radius}, but must be positive.")


class ClusterSequence(eqx.Module):
    """Jets of the events of an awkward array: `fastjet.ClusterSequence(array, jetdef)`.

    The same input and the same results, in the same order, for generalised-kt
    algorithms with the E-scheme; by default faster, on all cores.
    """

    momentum: np.ndarray
    """Four-momenta of all particles, padded, of shape (events, particles, 4)."""
    mask: np.ndarray
    """Which of them there are."""
    root: np.ndarray
    """The lowest particle of the jet that each particle is in."""
    last: np.ndarray
    """The step in which that jet met the beam."""
    single: bool
    """Whether the array was that of one event."""

    # The signature is that of fastjet.
    def __init__(
        self, array: Any, jetdef: Any, *, engine: AbstractHostEngine | None = None
    ):
        """Cluster.

        Args:
            array: Particles with the fields `px`, `py`, `pz` and `E` (or a behaviour
                that provides them), in GeV: of one event, or of several.
            jetdef: A `JetDefinition`, this package's or fastjet's.
            engine: How; by `CompiledEngine` unless given.

        Raises:
            ValueError: If the array or the definition is another one.
        """
        definition = _definition(jetdef)
        self.single = array.ndim == 1
        self.momentum, self.mask = _padded(array[np.newaxis] if self.single else array)
        engine = CompiledEngine() if engine is None else engine
        number = len(self.mask)
        keep, take = engine.run(
            self.momentum,
            self.mask,
            np.full(number, definition.radius),
            np.full(number, definition.power),
        )
        self.root, self.last = _roots(keep, take)

    def inclusive_jets(self, min_pt: float = 0.0) -> Any:
        """The jets of each event.

        Args:
            min_pt: Least transverse momentum, in GeV.

        Returns:
            Records `Momentum4D` of px, py, pz and E.
        """
        event, slot, total = self._jets(min_pt)
        awkward = _awkward()
        fields = {n: total[:, k] for k, n in enumerate(_NAMES)}
        records = awkward.zip(fields, with_name="Momentum4D")
        counts = np.bincount(event, minlength=len(self.mask))
        del slot
        return self._unwrapped(awkward.unflatten(records, counts))

    def constituent_index(self, min_pt: float = 0.0) -> Any:
        """The particles of each jet, as places in the event.

        Args:
            min_pt: Least transverse momentum of a jet, in GeV.

        Returns:
            For each event and jet, in the order of `inclusive_jets`, the indices of its
            particles, increasing. (fastjet's are in the order of the tree.)
        """
        event, slot, _ = self._jets(min_pt)
        awkward = _awkward()
        inside = (self.root[event] == slot[:, None]) & self.mask[event]
        jet, index = np.nonzero(inside)
        per_jet = awkward.unflatten(index, np.bincount(jet, minlength=len(event)))
        counts = np.bincount(event, minlength=len(self.mask))
        return self._unwrapped(awkward.unflatten(per_jet, counts))

    def constituents(self, min_pt: float = 0.0) -> Any:
        """The particles of each jet.

        Args:
            min_pt: Least transverse momentum of a jet, in GeV.

        Returns:
            For each event and jet, records `Momentum4D`, as `constituent_index`.
        """
        event, slot, _ = self._jets(min_pt)
        awkward = _awkward()
        inside = (self.root[event] == slot[:, None]) & self.mask[event]
        jet, index = np.nonzero(inside)
        found = self.momentum[event[jet], index]
        fields = {n: found[:, k] for k, n in enumerate(_NAMES)}
        records = awkward.zip(fields, with_name="Momentum4D")
        per_jet = awkward.unflatten(records, np.bincount(jet, minlength=len(event)))
        counts = np.bincount(event, minlength=len(self.mask))
        return self._unwrapped(awkward.unflatten(per_jet, counts))

    def _jets(self, min_pt: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        # Event, lowest particle and momentum of each jet, those that met the beam last
        # first: the order of fastjet.
        sums = np.zeros_like(self.momentum)
        event, slot = np.nonzero(self.mask)
        np.add.at(sums, (event, self.root[event, slot]), self.momentum[event, slot])
        is_jet = self.mask & (self.root == np.arange(self.mask.shape[1]))
        is_jet &= np.hypot(sums[..., 0], sums[..., 1]) >= min_pt
        event, slot = np.nonzero(is_jet)
        order = np.lexsort((-self.last[event, slot], event))
        event, slot = event[order], slot[order]
        return event, slot, sums[event, slot]

    def _unwrapped(self, array: Any) -> Any:
        return array[0] if self.single else array


def _awkward() -> Any:
    try:
        import awkward  # noqa: PLC0415 (optional)
    except ImportError as error:
        raise ImportError(
            "`ClusterSequence` needs the package `awkward`; install it with "
            "`pip install diffhep[jets]`."
        ) from error
    return awkward


def _definition(jetdef: Any) -> JetDefinition:
    if isinstance(jetdef, JetDefinition):
        return jetdef
    if not hasattr(jetdef, "jet_algorithm"):
        raise ValueError(
            f"`jetdef` is a `{type(jetdef).__name__}`; pass a `JetDefinition`, this "
            "package's or fastjet's."
        )
    power = _POWERS.get(jetdef.jet_algorithm(), "unknown")
    if power == "unknown" or jetdef.recombination_scheme() != _E_SCHEME:
        raise ValueError(
            f"'{jetdef.description()}' is not a generalised-kt algorithm with the "
            "E-scheme; use fastjet's own `ClusterSequence` for it."
        )
    return JetDefinition(jetdef.R(), jetdef.extra_param() if power is None else power)


def _padded(array: Any) -> tuple[np.ndarray, np.ndarray]:
    awkward = _awkward()
    if array.ndim != 2:
        raise ValueError(
            f"The array has {array.ndim} dimensions; give the particles of one event, "
            "or a list of them for each event."
        )
    counts = awkward.to_numpy(awkward.num(array, axis=1))
    mask = np.arange(max(counts, default=0))[None] < counts[:, None]
    momentum = np.zeros((*mask.shape, 4))
    # What dead slots hold is safe to compute with.
    momentum[...] = 1.0, 0.0, 0.0, 2.0
    for k, name in enumerate(_NAMES):
        try:
            values = getattr(array, name)
        except AttributeError as error:
            raise ValueError(
                f"The array has the fields {array.fields}, but '{name}' is missing; "
                "give px, py, pz and E, or register the behaviour of `vector`."
            ) from error
        momentum[mask, k] = awkward.to_numpy(awkward.flatten(values, axis=1))
    return momentum, mask


def _roots(keep: np.ndarray, take: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    number, slots = keep.shape
    root = np.broadcast_to(np.arange(slots), keep.shape).copy()
    event, step = np.nonzero(take >= 0)
    root[event, take[event, step]] = keep[event, step]
    for _ in range(max(slots - 1, 1).bit_length()):
        root = np.take_along_axis(root, root, axis=1)
    last = np.zeros((number, slots), int)
    event, step = np.nonzero(take == -1)
    last[event, keep[event, step]] = step
    return root, last
