"""The binned likelihoods of the benchmark `interference`: see there."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from diffhep.inference import (
    AbstractMixture,
    Measurement,
    UnbinnedLikelihood,
    asimov_uncertainty,
)

from ._interference_model import Table


Observable = Callable[[np.ndarray], np.ndarray]
"""From events to numbers, (entries, dimensions)."""
# Numbers of bins, up to 64 in all, that are tried: twelve choices with two kinds of
# edges, in one dimension as in two.
TRIED = {
    1: ((4,), (8,), (16,), (32,), (48,), (64,)),
    2: ((4, 4), (4, 8), (8, 4), (8, 8), (16, 4), (4, 16)),
}


class Bins(NamedTuple):
    """Bins of an observable with the likelihood's table of them."""

    edges: tuple[np.ndarray, ...]
    """Inner edges, of each dimension."""
    equal: bool
    """Whether bins have the same width; the same share of the reference otherwise."""
    table: Table
    """With one entry for each bin."""
    reference: np.ndarray
    """Share of the reference in each bin."""
    expected: float
    """Expected uncertainty on the strength."""

    @property
    def shape(self) -> list[int]:
        """Numbers of bins."""
        return [len(x) + 1 for x in self.edges]


def counts(values: np.ndarray, edges: Sequence[np.ndarray]) -> np.ndarray:
    """Entries in each bin. Those beyond the outer edges are in the outer bins."""
    shape = [len(x) + 1 for x in edges]
    index = [np.searchsorted(e, v) for e, v in zip(edges, values.T, strict=True)]
    flat = np.ravel_multi_index(tuple(index), shape)
    return np.bincount(flat, minlength=int(np.prod(shape)))


def _all_edges(
    values: np.ndarray, tried: Sequence[tuple[int, ...]]
) -> Iterator[tuple[bool, tuple[np.ndarray, ...]]]:
    for equal, numbers in itertools.product((False, True), tried):
        yield equal, _edges(values, numbers, equal=equal)


def _edges(
    values: np.ndarray, numbers: Sequence[int], *, equal: bool
) -> tuple[np.ndarray, ...]:
    found = []
    for column, number in zip(values.T, numbers, strict=True):
        inner = np.arange(1, number) / number
        low, high = np.quantile(column, [1e-3, 1 - 1e-3])
        # Without the tails of an observable that has some.
        edges = low + inner * (high - low) if equal else np.quantile(column, inner)
        found.append(edges)
    return tuple(found)


def _table(
    samples: Sequence[Sequence[np.ndarray]], edges: Sequence[np.ndarray]
) -> tuple[Table, np.ndarray]:
    """The table of bins from values by strength and variation, and the reference."""
    found = np.stack([[counts(x, edges) for x in one] for one in samples])
    # Half an event more in each bin: one without events need not be empty.
    shares = (found + 0.5) / np.sum(found + 0.5, axis=-1, keepdims=True)
    nominal = shares[:, 0]
    reference = nominal.mean(axis=0)
    moved = [shares[:, k] for k in range(1, shares.shape[1])]
    logs = [np.log(x / nominal) for x in moved] or [np.zeros_like(nominal)] * 2
    return Table(np.log(nominal / reference), *logs), reference


def likelihood(
    mixture: AbstractMixture,
    table: Any,
    weight: Any,
    *,
    log_rates: Any,
    auxiliary: Any,
    reference: Any = None,
) -> UnbinnedLikelihood:
    """The likelihood of entries: of events, or of bins with numbers of events.

    Bins are entries whose ratio is that of their shares, so that the extended
    likelihood is that of independent Poisson numbers.

    Args:
        mixture: How the processes add up.
        table: Of the entries.
        weight: How often each was observed.
        log_rates: Logarithms of factors on the rates at alpha = 1 and -1. None: there
            is no nuisance parameter.
        auxiliary: The outcome of the auxiliary measurement.
        reference: The share of each entry in the reference.

    Returns:
        The likelihood.
    """
    logs, up, down = (jnp.asarray(x) for x in table)
    if log_rates is None:
        return UnbinnedLikelihood.without_nuisances(
            mixture, logs, weight, reference=reference
        )
    rates = [x[None] for x in log_rates]
    both = (up[None], down[None], auxiliary[None])
    return UnbinnedLikelihood(mixture, logs, weight, *rates, *both, reference)


@eqx.filter_jit
def _expected(mixture: Any, table: Any, reference: Any, log_rates: Any) -> Any:
    found = likelihood(
        mixture,
        table,
        reference,
        log_rates=log_rates,
        auxiliary=jnp.zeros(()),
        reference=reference,
    )
    start = jnp.asarray([1.0] if log_rates is None else [1.0, 0.0])
    measurement = Measurement(found, start, None, None, None, poi=0)
    return asimov_uncertainty(measurement, start)


def _judge(
    mixture: Any, samples: Any, edges: Any, log_rates: Any
) -> tuple[Table, np.ndarray, float]:
    table, reference = _table(samples, edges)
    # Entries without a share change nothing, and one shape is compiled once.
    spare = max(64 - len(reference), 0)
    padded = Table(*(np.pad(x, ((0, 0), (0, spare))) for x in table))
    share = np.pad(reference, (0, spare), constant_values=1e-300)
    value = _expected(mixture, padded, jnp.asarray(share), log_rates)
    return table, reference, float(value)


def tune(
    observable: Observable,
    mixture: AbstractMixture,
    simulations: tuple[Any, Any],
    *,
    log_rates: Any,
    tried: Sequence[tuple[int, ...]] | None = None,
) -> Bins:
    """The bins with the least expected uncertainty on the strength at one.

    Args:
        observable: What is binned.
        mixture: How the processes add up.
        simulations: Events by strength and variation, twice: those that the choice is
            made on, and, independent, those that fill the templates.
        log_rates: As of `likelihood`.
        tried: Numbers of bins to try, each with two kinds of edges; `TRIED` unless
            given.

    Returns:
        The bins.
    """
    values = [[[observable(x) for x in one] for one in s] for s in simulations]
    trial, final = values
    whole = np.concatenate([x[0] for x in trial])
    options = _all_edges(whole, TRIED[whole.shape[1]] if tried is None else tried)
    equal, edges = min(
        options, key=lambda x: _judge(mixture, trial, x[1], log_rates)[2]
    )
    return Bins(edges, equal, *_judge(mixture, final, edges, log_rates))
