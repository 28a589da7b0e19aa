import jax
import jax.numpy as jnp
import numpy as np

from ._dataset import Dataset


def split_halves(dataset: Dataset, *, multiple: int = 1) -> tuple[Dataset, Dataset]:
    """A training and a held-out half, each of which predicts the full yields.

    Every other event of each stratum goes to either half, and the weights are scaled
    so that each stratum keeps its yield.

    Args:
        dataset: The events.
        multiple: The number of events of each half is cut to a multiple of this, for
            a number of devices: the last events of the largest stratum are left out.

    Returns:
        The training half and the held-out half.

    Raises:
        ValueError: A stratum has fewer than two events, or too few for `multiple`.
    """
    groups = _positions(dataset)
    halves = []
    for start in (0, 1):
        parts = [group[start::2] for group in groups]
        halves.append(_select(dataset, _cut(parts, multiple)))
    return halves[0], halves[1]


def thin_strata(dataset: Dataset, *, num_events: int, multiple: int = 1) -> Dataset:
    """A smaller data set that predicts the same yields.

    Args:
        dataset: The events.
        num_events: At most so many of each stratum are kept, the first ones.
        multiple: The number of events is cut to a multiple of this, as in
            `split_halves`.

    Returns:
        The smaller data set.

    Raises:
        ValueError: `num_events` is not positive, or too small for `multiple`.
    """
    if num_events <= 0:
        raise ValueError(f"`num_events` must be positive, but is {num_events}.")
    parts = [group[:num_events] for group in _positions(dataset)]
    return _select(dataset, _cut(parts, multiple))


def sort_by_multiplicity(dataset: Dataset) -> Dataset:
    """The same data set, with events of similar size next to each other.

    A block of events takes as long as its largest event: sorted blocks are faster.

    Args:
        dataset: The events.

    Returns:
        The events by rising number of particles.

    Raises:
        ValueError: The events have no particles.
    """
    particles = dataset.events.particles
    if particles is None:
        raise ValueError("The events have no `particles` to sort by; load them first.")
    counts = np.asarray(particles.mask).sum(axis=1)
    order = np.argsort(counts, kind="stable")
    events = jax.tree.map(lambda leaf: leaf[order], dataset.events)
    return Dataset(
        events, dataset.stratum[order], dataset.strata, dataset.luminosity_fb
    )


def _positions(dataset: Dataset) -> list[np.ndarray]:
    # Of the events of each stratum that has any. By event number, so that the result
    # does not depend on the order of the batch.
    order = np.argsort(np.asarray(dataset.events.index), kind="stable")
    stratum = dataset.stratum[order]
    return [order[stratum == number] for number in np.unique(stratum)]


def _cut(parts: list[np.ndarray], multiple: int) -> list[np.ndarray]:
    if multiple <= 0:
        raise ValueError(f"`multiple` must be positive, but is {multiple}.")
    excess = sum(len(part) for part in parts) % multiple
    largest = max(range(len(parts)), key=lambda i: len(parts[i]))
    parts = list(parts)
    parts[largest] = parts[largest][: max(len(parts[largest]) - excess, 0)]
    return parts


def _select(dataset: Dataset, parts: list[np.ndarray]) -> Dataset:
    log_weight = np.asarray(dataset.events.log_weight)
    scale = np.zeros_like(log_weight)
    for group, part in zip(_positions(dataset), parts, strict=True):
        if len(part) == 0:
            stratum = dataset.strata[int(dataset.stratum[group[0]])]
            raise ValueError(
                f"The stratum {stratum.name!r} of {stratum.process!r} has only "
                f"{len(group)} events, too few to share out; generate more."
            )
        total = np.logaddexp.reduce(log_weight[group])
        scale[part] = total - np.logaddexp.reduce(log_weight[part])
    chosen = np.sort(np.concatenate(parts))
    events = jax.tree.map(lambda leaf: leaf[chosen], dataset.events)
    weights = jnp.asarray(log_weight[chosen] + scale[chosen])
    return Dataset(
        events.replace(log_weight=weights),
        dataset.stratum[chosen],
        dataset.strata,
        dataset.luminosity_fb,
    )
