"""Clustering of awkward arrays, with the interface of the Python package of fastjet."""

from typing import Any

import equinox as eqx
import numpy as np

from ._algorithm import METRICS, SCHEMES
from ._definition import JetDefinition, as_definition
from ._engine import AbstractHostEngine, CompiledEngine


_NAMES = ("px", "py", "pz", "E")


class ClusterSequence(eqx.Module):
    """Jets of the events of an awkward array: `fastjet.ClusterSequence(array, jetdef)`.

    The same input and the same results, in the same order, for generalised-kt
    algorithms of hadron and lepton colliders; by default faster, on all cores.
    """

    momentum: np.ndarray
    """Four-momenta of all particles, padded, of shape (events, particles, 4)."""
    mask: np.ndarray
    """Which of them there are."""
    history: np.ndarray
    """`keep` and `take` of `MergeHistory`, of shape (events, particles, 2)."""
    definition: JetDefinition
    """The algorithm."""
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
        self.definition = as_definition(jetdef)
        self.single = array.ndim == 1
        self.momentum, self.mask = _padded(array[np.newaxis] if self.single else array)
        engine = CompiledEngine() if engine is None else engine
        number = len(self.mask)
        self.history = engine.run(
            self.momentum,
            self.mask,
            np.full(number, self.definition.radius),
            np.full(number, self.definition.power),
            metric=self.definition.metric,
            scheme=self.definition.scheme,
        )

    def inclusive_jets(self, min_pt: float = 0.0) -> Any:
        """The jets of each event.

        Args:
            min_pt: Least transverse momentum, in GeV.

        Returns:
            Records `Momentum4D` of px, py, pz and E.
        """
        return self._records(*self._inclusive(min_pt))

    def constituent_index(self, min_pt: float = 0.0) -> Any:
        """The particles of each jet, as places in the event.

        Args:
            min_pt: Least transverse momentum of a jet, in GeV.

        Returns:
            For each event and jet, in the order of `inclusive_jets`, the indices of its
            particles, increasing. (fastjet's are in the order of the tree.)
        """
        event, slot, _ = self._inclusive(min_pt)
        return self._index(event, slot, _roots(self.history))

    def constituents(self, min_pt: float = 0.0) -> Any:
        """The particles of each jet.

        Args:
            min_pt: Least transverse momentum of a jet, in GeV.

        Returns:
            For each event and jet, records `Momentum4D`, as `constituent_index`.
        """
        event, slot, _ = self._inclusive(min_pt)
        return self._particles(event, slot, _roots(self.history))

    def exclusive_jets(self, n_jets: int = -1, dcut: float = -1.0) -> Any:
        """What is left of each event when the clustering is stopped.

        Args:
            n_jets: How many jets there are to be.
            dcut: Unless that is given: the distance, in GeV^2p, that all jets are to
                be apart from one another and from the beam.

        Returns:
            Records `Momentum4D` of px, py, pz and E.

        Raises:
            ValueError: Neither is given, or an event has fewer particles.
        """
        return self._records(*self._exclusive(self._stop(n_jets, dcut)))

    def exclusive_jets_ycut(self, ycut: float = -1.0) -> Any:
        """What is left of each event: `exclusive_jets` for e+e- collisions.

        Args:
            ycut: The distance over the square of the total energy.

        Returns:
            Records `Momentum4D` of px, py, pz and E.
        """
        return self._records(*self._exclusive(self._stop(-1, ycut * self._energy2())))

    def exclusive_jets_constituent_index(self, njets: int = 10) -> Any:
        """The particles of each jet, as places in the event.

        Args:
            njets: How many jets there are to be.

        Returns:
            For each event and jet, in the order of `exclusive_jets`, the indices of its
            particles, increasing.
        """
        stop = self._stop(njets, -1.0)
        event, slot, _ = self._exclusive(stop)
        return self._index(event, slot, _roots(self.history, stop))

    def exclusive_jets_constituents(self, njets: int = 10) -> Any:
        """The particles of each jet.

        Args:
            njets: How many jets there are to be.

        Returns:
            For each event and jet, records `Momentum4D`, in the order of
            `exclusive_jets_constituent_index`.
        """
        stop = self._stop(njets, -1.0)
        event, slot, _ = self._exclusive(stop)
        return self._particles(event, slot, _roots(self.history, stop))

    def exclusive_dmerge_max(self, njets: int = 10) -> Any:
        """The largest distance of any step up to that from `njets` + 1 jets to `njets`.

        Args:
            njets: The number of jets, 0 for the last step.

        Returns:
            For each event, the distance in GeV^2p; zero if there are fewer particles.
        """
        largest = self._largest_distances()
        step = self.mask.sum(axis=1) - njets - 1
        found = np.take_along_axis(largest, np.maximum(step, 0)[:, None], axis=1)[:, 0]
        found = np.where(step >= 0, found, 0.0)
        return float(found[0]) if self.single else _awkward().Array(found)

    def exclusive_ymerge_max(self, njets: int = 10) -> Any:
        """`exclusive_dmerge_max` over the square of the total energy.

        Args:
            njets: The number of jets.

        Returns:
            For each event, the ratio y.
        """
        energy2 = self._energy2()
        return self.exclusive_dmerge_max(njets) / (
            energy2[0] if self.single else energy2
        )

    def _kind(self) -> tuple[int, int]:
        definition = self.definition
        return METRICS.index(type(definition.metric)), SCHEMES.index(
            type(definition.scheme)
        )

    def _energy2(self) -> np.ndarray:
        return self.momentum[..., 3].sum(axis=1, where=self.mask) ** 2

    def _largest_distances(self) -> np.ndarray:
        # Not at the top: numba is optional, and takes a second to import.
        from ._compiled_replay import replay_distances  # noqa: PLC0415

        distance = np.zeros(self.mask.shape)
        definition = self.definition
        settings = float(definition.radius), float(definition.power)
        replay_distances(
            self._kind(), self.momentum.copy(), settings, self.history, distance
        )
        return np.maximum.accumulate(distance, axis=1)

    def _stop(self, n_jets: int, dcut: float | np.ndarray) -> np.ndarray:
        # After how many steps the clustering ends.
        counts = self.mask.sum(axis=1)
        if n_jets != -1:
            if n_jets < 1 or counts.min(initial=n_jets) < n_jets:
                raise ValueError(
                    f"{n_jets} jets are asked for, but there must be at least one, and "
                    f"the smallest event has {counts.min(initial=0)} particles; select "
                    "events before."
                )
            return counts - n_jets
        if np.any(np.asarray(dcut) < 0):
            raise ValueError(
                f"`n_jets` is not given, and the cut on distances is {dcut}; give one "
                "of the two, not negative."
            )
        below = self._largest_distances() <= np.reshape(dcut, (-1, 1))
        steps = np.arange(self.mask.shape[1])[None] < counts[:, None]
        return (below & steps).sum(axis=1)

    def _left(self, stop: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        # Momenta of what is left after some steps, and the slots of these.
        from ._compiled_replay import stop_events  # noqa: PLC0415 (as above)

        total, order = self.momentum.copy(), np.full(self.mask.shape, -1)
        stop_events(self._kind()[1], total, self.history, stop, order)
        return total, order

    def _inclusive(self, min_pt: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        # Event, lowest particle and momentum of each jet, those that met the beam last
        # first: the order of fastjet.
        total, _ = self._left(self.mask.sum(axis=1))
        event, step = np.nonzero(self.history[:, ::-1, 1] == -1)
        slot = self.history[event, self.mask.shape[1] - 1 - step, 0]
        found = total[event, slot]
        hard = np.hypot(found[:, 0], found[:, 1]) >= min_pt
        return event[hard], slot[hard], found[hard]

    def _exclusive(self, stop: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        total, order = self._left(stop)
        event, place = np.nonzero(order >= 0)
        slot = order[event, place]
        return event, slot, total[event, slot]

    def _records(self, event: np.ndarray, slot: np.ndarray, found: np.ndarray) -> Any:
        del slot
        return self._per_event(_zip(found), event)

    def _index(self, event: np.ndarray, slot: np.ndarray, root: np.ndarray) -> Any:
        jet, index = self._members(event, slot, root)
        counts = np.bincount(jet, minlength=len(event))
        return self._per_event(_awkward().unflatten(index, counts), event)

    def _particles(self, event: np.ndarray, slot: np.ndarray, root: np.ndarray) -> Any:
        jet, index = self._members(event, slot, root)
        counts = np.bincount(jet, minlength=len(event))
        records = _zip(self.momentum[event[jet], index])
        return self._per_event(_awkward().unflatten(records, counts), event)

    def _members(
        self, event: np.ndarray, slot: np.ndarray, root: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        jet, index = np.nonzero((root[event] == slot[:, None]) & self.mask[event])
        return jet, index

    def _per_event(self, array: Any, event: np.ndarray) -> Any:
        counts = np.bincount(event, minlength=len(self.mask))
        found = _awkward().unflatten(array, counts)
        return found[0] if self.single else found


def _zip(momentum: np.ndarray) -> Any:
    fields = {name: momentum[:, k] for k, name in enumerate(_NAMES)}
    return _awkward().zip(fields, with_name="Momentum4D")


def _awkward() -> Any:
    try:
        import awkward  # noqa: PLC0415 (optional)
    except ImportError as error:
        raise ImportError(
            "`ClusterSequence` needs the package `awkward`; install it with "
            "`pip install diffhep[jets]`."
        ) from error
    return awkward


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


def _roots(history: np.ndarray, stop: np.ndarray | None = None) -> np.ndarray:
    # The lowest particle of the jet that each particle is in, after some steps.
    number, slots, _ = history.shape
    merges = history[..., 1] >= 0
    if stop is not None:
        merges &= np.arange(slots)[None] < stop[:, None]
    event, step = np.nonzero(merges)
    keep, take = history[event, step].T
    root = np.broadcast_to(np.arange(slots), (number, slots)).copy()
    root[event, take] = keep
    for _ in range(max(slots - 1, 1).bit_length()):
        root = np.take_along_axis(root, root, axis=1)
    return root
