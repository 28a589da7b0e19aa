"""Engines: ways to find the history of ordinary sequential recombination.

An engine returns integers; whatever is differentiated is computed from these by
`jets_from_history` and `history_log_prob`, whichever engine found them.
"""

import abc
import functools
import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.lax import stop_gradient
from jaxtyping import Array, Bool, Float, Int

from ..event import MergeHistory
from ._algorithm import METRICS, SCHEMES, Algorithm
from ._alive import alive_momentum
from ._fastjet import fastjet_definition, load_package, steps_of
from ._greedy import greedy_history
from ._metric import AbstractMetric
from ._neighbour_state import Parameters
from ._radius import AbstractRadius, ConstantRadius, tabulated
from ._scheme import AbstractScheme


# The last part of a batch is this part of what each thread has to do.
_PARTS = 8


class AbstractEngine(eqx.Module):
    """How the history of a clustering is found: the same by each, but for ties."""

    @abc.abstractmethod
    def __call__(
        self,
        momentum: Float[Array, "constituents 4"],
        mask: Bool[Array, " constituents"],
        algorithm: Algorithm,
    ) -> tuple[Int[Array, " steps"], Int[Array, " steps"]]:
        """The history of one event; `vmap` for several.

        Args:
            momentum: Four-momenta (px, py, pz, E), in GeV, safe in dead slots.
            mask: Which slots hold a constituent.
            algorithm: The algorithm; not every engine knows other radii than constant
                ones, or metrics and schemes other than those of this package.

        Returns:
            `keep` and `take` of `MergeHistory`.
        """


class JaxEngine(AbstractEngine):
    """Pure JAX: for accelerators, and for chains that stay on the device."""

    def __call__(
        self,
        momentum: Float[Array, "constituents 4"],
        mask: Bool[Array, " constituents"],
        algorithm: Algorithm,
    ) -> tuple[Int[Array, " steps"], Int[Array, " steps"]]:
        """The history of one event; `vmap` for several."""
        return greedy_history(momentum, mask, algorithm)


class AbstractHostEngine(AbstractEngine):
    """An engine outside of JAX, in double precision, that takes a whole batch."""

    @abc.abstractmethod
    def run(
        self,
        momentum: np.ndarray,
        mask: np.ndarray,
        radius: np.ndarray,
        power: np.ndarray,
        *,
        metric: AbstractMetric,
        scheme: AbstractScheme,
    ) -> np.ndarray:
        """The histories of events along a leading axis.

        Args:
            momentum: Four-momenta, of shape (events, slots, 4), in GeV, safe in dead
                slots.
            mask: Which slots hold a constituent, of shape (events, slots).
            radius: Jet radius of each event.
            power: Power p of each event.
            metric: One of `RapidityAzimuth` and `EnergyAngle`.
            scheme: One of the schemes of this package.

        Returns:
            `keep` and `take` of `MergeHistory`, of shape (events, slots, 2), of 32-bit
            integers.
        """

    def __call__(
        self,
        momentum: Float[Array, "constituents 4"],
        mask: Bool[Array, " constituents"],
        algorithm: Algorithm,
    ) -> tuple[Int[Array, " steps"], Int[Array, " steps"]]:
        """The history of one event; `vmap` for several."""
        radius = _known(algorithm, type(self).__name__)
        widest = jnp.result_type(float)
        # Few arrays: each takes 30 us to the host, or from it.
        history = jax.pure_callback(
            functools.partial(self._flat, algorithm.metric, algorithm.scheme),
            jax.ShapeDtypeStruct((*mask.shape, 2), np.int32),
            momentum,
            mask,
            jnp.stack([x.astype(widest) for x in (radius.value, algorithm.power)]),
            vmap_method="broadcast_all",
        )
        return history[..., 0], history[..., 1]

    def _flat(
        self, metric: AbstractMetric, scheme: AbstractScheme, *arrays: Array
    ) -> np.ndarray:
        momentum, mask, numbers = map(np.asarray, arrays)
        slots = mask.shape[-1]
        radius, power = numbers.astype(np.float64).reshape(-1, 2).T
        history = self.run(
            np.ascontiguousarray(momentum, np.float64).reshape(-1, slots, 4),
            mask.reshape(-1, slots),
            radius,
            power,
            metric=metric,
            scheme=scheme,
        )
        return history.reshape(*mask.shape, 2)


class CompiledEngine(AbstractHostEngine):
    """Compiled for a CPU by numba, in double precision, parallel over events.

    Where the rest of the chain runs on an accelerator, the momenta travel to the host.
    """

    num_threads: int | None = None
    """How many events are clustered at a time; as many as there are cores unless given.
    """

    def __check_init__(self):
        if self.num_threads is not None and self.num_threads < 1:
            raise ValueError(
                f"`num_threads` is {self.num_threads}, but must be at least 1."
            )
        load_package("numba", "CompiledEngine")

    def run(
        self,
        momentum: np.ndarray,
        mask: np.ndarray,
        radius: np.ndarray,
        power: np.ndarray,
        *,
        metric: AbstractMetric,
        scheme: AbstractScheme,
    ) -> np.ndarray:
        # Not at the top: numba is optional, and takes a second to import.
        from ._compiled import cluster_events  # noqa: PLC0415

        history = _empty_history(mask)
        # The momenta are overwritten.
        arrays = (momentum.copy(), mask, np.stack([radius, power], axis=1), history)
        kind = METRICS.index(type(metric)), SCHEMES.index(type(scheme))
        self._spread(functools.partial(cluster_events, kind), arrays)
        return history

    def sample(
        self,
        momentum: Float[Array, "constituents 4"],
        mask: Bool[Array, " constituents"],
        uniforms: Float[Array, " constituents"],
        parameters: Parameters,
        *,
        only: bool,
    ) -> tuple[Array, Array, Float[Array, ""], Float[Array, "4 constituents"], Any]:
        """A history at random, its log-probability and score; `vmap` for several.

        Args:
            momentum: Four-momenta (px, py, pz, E), in GeV, safe in dead slots.
            mask: Which slots hold a constituent.
            uniforms: One random number in [0, 1) per step.
            parameters: The parameters; the radius is one of those of this package.
            only: Whether the only candidates are those of the least distance.

        Returns:
            As `search_neighbours`.
        """
        kind, knots, values = tabulated(parameters.radius)
        power, sharpness = parameters.power, parameters.sharpness
        # Few arrays: each takes 30 us to the host, or from it.
        given = jnp.concatenate([jnp.stack([power, sharpness]), values])
        history, found, to_momentum = jax.pure_callback(
            functools.partial(self._flat_sample, (kind, only), knots),
            (
                jax.ShapeDtypeStruct((*mask.shape, 2), np.int32),
                jax.ShapeDtypeStruct((1 + given.shape[0],), momentum.dtype),
                jax.ShapeDtypeStruct(momentum.shape, momentum.dtype),
            ),
            momentum,
            mask,
            given,
            uniforms,
            vmap_method="broadcast_all",
        )
        log_prob, slopes = found[0], found[1:]
        radius = parameters.radius
        if isinstance(radius, ConstantRadius):
            to_radius = ConstantRadius(slopes[2])
        else:
            to_radius = eqx.tree_at(lambda r: r.values, radius, slopes[2:])
        score = Parameters(to_radius, slopes[0], slopes[1])
        return history[..., 0], history[..., 1], log_prob, to_momentum.T, score

    def _flat_sample(
        self, kind: tuple[int, bool], knots: tuple[float, ...], *arrays: Array
    ) -> tuple[np.ndarray, ...]:
        # Not at the top: numba is optional, and takes a second to import.
        from ._compiled_sampling import sample_events  # noqa: PLC0415

        momentum, mask, given, uniforms = map(np.asarray, arrays)
        slots = mask.shape[-1]

        def flat(array: np.ndarray, axes: int) -> np.ndarray:
            rest = array.shape[array.ndim - axes :]
            return np.array(array, np.float64).reshape(-1, *rest)

        alive, parameters = mask.reshape(-1, slots), flat(given, 1)
        history = _empty_history(alive)
        found = np.zeros((len(alive), 1 + parameters.shape[1]))
        to_momentum = np.zeros((len(alive), slots, 4))
        run = functools.partial(sample_events, kind, np.asarray(knots, np.float64))
        inputs = (flat(momentum, 2), alive, parameters, flat(uniforms, 1))
        self._spread(run, (*inputs, history, found, to_momentum))
        return (
            history.reshape(*mask.shape, 2),
            found.astype(momentum.dtype).reshape(*mask.shape[:-1], -1),
            to_momentum.astype(momentum.dtype).reshape(momentum.shape),
        )

    def _spread(self, run: Callable[..., None], arrays: tuple[np.ndarray, ...]) -> None:
        number = len(arrays[0])
        threads = self.num_threads or os.cpu_count() or 1
        if threads == 1 or number == 1:
            run(*arrays)
            return
        rest = iter(_parts(number, threads))

        # Each thread takes the next part until there is none; this one, too.
        def work() -> None:
            for part in rest:
                run(*(array[part] for array in arrays))

        others = [_threads(threads - 1).submit(work) for _ in range(threads - 1)]
        work()
        for other in others:
            other.result()


class FastjetEngine(AbstractHostEngine):
    """The Python package of fastjet, one event after another: the reference.

    Slow, for each particle becomes a Python object.
    """

    def __check_init__(self):
        load_package("fastjet", "FastjetEngine")

    def run(
        self,
        momentum: np.ndarray,
        mask: np.ndarray,
        radius: np.ndarray,
        power: np.ndarray,
        *,
        metric: AbstractMetric,
        scheme: AbstractScheme,
    ) -> np.ndarray:
        history = _empty_history(mask)
        for event, alive in enumerate(mask):
            definition = fastjet_definition(
                float(radius[event]), float(power[event]), metric, scheme
            )
            steps = steps_of(momentum[event], alive, definition)
            for step, merge in enumerate(steps):
                history[event, step] = merge
        return history


def cluster(
    momentum: Float[Array, "constituents 4"],
    mask: Bool[Array, " constituents"],
    *,
    radius: Float[Array, ""] | AbstractRadius,
    power: Float[Array, ""],
    metric: AbstractMetric | None = None,
    scheme: AbstractScheme | None = None,
    engine: AbstractEngine | None = None,
) -> MergeHistory:
    """The history of ordinary sequential recombination: always the least distance.

    The limit of `sample_history` for infinite sharpness.

    Args:
        momentum: Four-momenta (px, py, pz, E), in GeV. Dead slots may hold anything.
        mask: Which slots hold a constituent.
        radius: Jet radius R, or a function for it.
        power: Power p of the transverse momentum: -1 anti-kt, 0 Cambridge/Aachen, 1 kt.
        metric: In which coordinates; `RapidityAzimuth` unless given. `EnergyAngle` is
            for e+e- collisions, with Durham's for an infinite radius and a power of 1.
        scheme: How momenta are recombined; by `EScheme` unless given.
        engine: How it is found; by `JaxEngine` unless given.

    Returns:
        The history.
    """
    engine = JaxEngine() if engine is None else engine
    algorithm = Algorithm.of(radius, power, metric, scheme)
    # Integers come out: there is no gradient to drop.
    inputs = stop_gradient((alive_momentum(momentum, mask), mask, algorithm))
    return MergeHistory(*engine(*inputs))


def _empty_history(mask: np.ndarray) -> np.ndarray:
    # Without a step.
    history = np.zeros((*mask.shape, 2), np.int32)
    history[..., 1] = -2
    return history


@functools.lru_cache(maxsize=64)
def _parts(number: int, threads: int) -> tuple[slice, ...]:
    # Of so many events: ever smaller ones, for the last one is waited for.
    edges, least = [0], max(1, number // (threads * _PARTS))
    while edges[-1] < number:
        left = number - edges[-1]
        edges.append(edges[-1] + min(left, max(least, left * 2 // (3 * threads))))
    return tuple(slice(*edge) for edge in itertools.pairwise(edges))


@functools.cache
def _threads(number: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(number, thread_name_prefix="diffhep-jets")


def _known(algorithm: Algorithm, engine: str) -> ConstantRadius:
    # The radius of an algorithm that engines outside of JAX know.
    radius = algorithm.radius
    if not isinstance(radius, ConstantRadius):
        raise ValueError(
            f"`{engine}` takes a number as radius, but got a "
            f"`{type(radius).__name__}`; use `JaxEngine`."
        )
    for part, known in ((algorithm.metric, METRICS), (algorithm.scheme, SCHEMES)):
        if type(part) not in known:
            names = ", ".join(f"`{kind.__name__}`" for kind in known)
            raise ValueError(
                f"`{engine}` knows {names}, but got a `{type(part).__name__}`; use "
                "`JaxEngine`."
            )
    return radius
