"""One seed of the benchmark `interference`: training, closure, bins, toys."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffhep.inference import Addition

from ._harness import QUICK
from ._interference_bins import Bins, Observable, counts, tune
from ._interference_closure import judge, mixture
from ._interference_model import (
    BACKGROUND,
    SIGNAL,
    Table,
    exact_table,
    mass_terms,
    rates,
    sample,
    sample_mass,
)
from ._interference_ratios import Ratios, learn, learnt_table, simulate, single_ratio
from ._interference_toys import (
    Fits,
    curve,
    fit_bins,
    fit_events,
    inaccuracy,
    measure,
    padded,
    together,
)


POINTS = {
    "mu = 1": (1.0, 0.0, False),
    "mu = 2": (2.0, 0.0, False),
    "mu = 1, alpha free": (1.0, 0.0, True),
    "mu = 2, alpha free": (2.0, 0.0, True),
    "mu = 1, alpha = 1, free": (1.0, 1.0, True),
}
"""By name, true strength, true nuisance parameter, whether it is fitted."""
SHOWN = "mu = 1, alpha free"
SLOTS, BLOCK = 1152, 250
MANY, FINE = 256, ((16, 16), (32, 8), (8, 32))
"""Bins beyond the budget, and the numbers of m and of the cosine that are tried."""


class Prepared(NamedTuple):
    """What a seed fits with."""

    learnt: Callable[[np.ndarray], Table]
    """The table of events by the networks."""
    observables: dict[str, Observable]
    """What is binned, by the method's name."""
    bins: dict[str, dict[bool, Bins]]
    """By method and whether the nuisance parameter is fitted."""


def log_rates() -> tuple[Any, Any]:
    """Of the nuisance parameter, up and down."""
    up, down = (np.log(rates(shift) / rates()) for shift in (1.0, -1.0))
    return jnp.asarray(up), jnp.asarray(down)


def prepare(seed: int, settings: dict[str, Any]) -> tuple[Prepared, Ratios]:
    """Simulate, train and tune."""
    rng = np.random.default_rng([seed, 0])
    simulation = simulate(settings["events"], rng)
    trial = simulate(settings["trial events"], rng)
    ratios = learn(
        simulation, settings, members=settings["members"], key=jax.random.key(seed)
    )

    def score(x: np.ndarray) -> np.ndarray:
        return optimal_observable(learnt_table(ratios, x))[:, None]

    observables: dict[str, Observable] = {
        "1-D, m": lambda x: x[:, :1],
        "1-D, cos": lambda x: x[:, 1:],
        "1-D, learnt score": score,
        "2-D": lambda x: x,
        "2-D, 256 bins": lambda x: x,
    }
    few = settings["template events"]
    both = tuple(
        [[x[:few] for x in one] for one in s.shifted] for s in (trial, simulation)
    )
    bins = {
        name: {
            free: tune(
                observable,
                mixture(),
                both,
                log_rates=log_rates() if free else None,
                tried=FINE if "256" in name else None,
            )
            for free in (False, True)
        }
        for name, observable in observables.items()
    }
    return Prepared(lambda x: learnt_table(ratios, x), observables, bins), ratios


def optimal_observable(table: Table) -> np.ndarray:
    """The score at a strength of one, d log p(x | mu) / d mu, of learnt ratios."""

    def density(strength: Any) -> Any:
        return mixture().ratio(strength, jnp.asarray(table.log_ratios))

    value, slope = jax.jvp(density, (jnp.ones(()),), (jnp.ones(()),))
    return np.asarray(slope / value)


def fit_point(
    prepared: Prepared, name: str, number: int, rng: np.random.Generator
) -> dict[str, Fits]:
    """All methods on the same toys."""
    strength, alpha, free = POINTS[name]
    parts: dict[str, list[Fits]] = {}
    for start in range(0, number, BLOCK):
        toys = min(BLOCK, number - start)
        events = draw(strength, alpha, toys, rng)
        auxiliary = jnp.asarray(alpha + rng.normal(size=toys))
        one = _fit_all(prepared, events, auxiliary, free=free)
        for method, fits in one.items():
            parts.setdefault(method, []).append(fits)
    return {method: together(x) for method, x in parts.items()}


def draw(
    strength: float, alpha: float, toys: int, rng: np.random.Generator
) -> list[np.ndarray]:
    """Events of toys, whose numbers fluctuate."""
    expected = mixture().coefficients(jnp.asarray(strength)) @ rates(alpha)
    numbers = rng.poisson(float(expected), toys)
    pool = sample(int(numbers.sum()), strength, rng, shift=alpha)
    return np.split(pool, np.cumsum(numbers)[:-1])


def _fit_all(
    prepared: Prepared, events: list[np.ndarray], auxiliary: Any, *, free: bool
) -> dict[str, Fits]:
    model, factors = mixture(), log_rates() if free else None
    found = {}
    for method, table, weight in _inputs(prepared, events, free=free):
        fit = fit_bins if method in prepared.bins else fit_events
        found[method] = fit(model, table, weight, auxiliary, factors)
    return found


def _inputs(
    prepared: Prepared, events: list[np.ndarray], *, free: bool
) -> Iterator[tuple[str, Table, Any]]:
    """Method, table and weights: of each event, or of bins of all toys."""
    x, used = padded(events, SLOTS)
    yield "exact", exact_table(x), jnp.asarray(used)
    yield "learnt, unbinned", prepared.learnt(x), jnp.asarray(used)
    for method, observable in prepared.observables.items():
        bins = prepared.bins[method][free]
        # All in the same shape: one compilation. A score costs less for all at once.
        values = observable(np.concatenate(events))
        parts = np.split(values, np.cumsum([len(one) for one in events])[:-1])
        observed = [counts(one, bins.edges) for one in parts]
        spare = ((0, 0), (0, MANY - len(observed[0])))
        table = Table(*(np.pad(y, spare) for y in bins.table))
        yield method, table, jnp.asarray(np.pad(observed, spare), float)


def shown(
    prepared: Prepared, name: str, fits: dict[str, Fits], seed: int
) -> dict[str, Any]:
    """For the figure: one toy's curves, and histograms of the widths.

    Besides, how far the intervals of three toys are from `profile_interval`.
    """
    strength, alpha, free = POINTS[name]
    toys = draw(strength, alpha, 3, np.random.default_rng([seed, 3]))
    strengths = jnp.linspace(0.2, 2.4, 45)
    edges = np.linspace(0.2, 1.2, 51)
    deviances, apart = {}, []
    for method, table, weight in _inputs(prepared, toys, free=free):
        for k in range(len(toys) if method == "exact" else 1):
            binned = method in prepared.bins
            own = table if binned else Table(*(y[:, k] for y in table))
            toy = measure(
                mixture(), own, weight[k], jnp.zeros(()), log_rates=log_rates()
            )
            if k == 0:
                deviances[method] = _numbers(curve(toy, strengths))
            if method == "exact":
                apart.append(float(inaccuracy(toy)))
    widths = {
        method: np.histogram(x.width, edges)[0].tolist() for method, x in fits.items()
    }
    return {
        "strengths": strengths.tolist(),
        "deviances": deviances,
        "edges": edges.tolist(),
        "widths": widths,
        "inaccuracy": max(apart),
    }


def _numbers(values: Any) -> list[float | None]:
    # JSON knows nothing that is not a number: far away a fit may fail.
    return [round(float(x), 4) if np.isfinite(x) else None for x in values]


def fit_null(
    seed: int, settings: dict[str, Any], number: int
) -> tuple[dict[str, Fits], list[int]]:
    """The null test: the mass only, no interference, no nuisance parameter."""
    rng = np.random.default_rng([seed, 1])
    kinds = ((1.0, 0.0), (0.0, 1.0))
    simulations = [
        [[sample_mass(settings[k], kind, rng)] for kind in kinds]
        for k in ("trial events", "events")
    ]
    ratio = single_ratio(
        [x[0] for x in simulations[1]], settings, key=jax.random.key(1000 + seed)
    )
    model = Addition(jnp.asarray([SIGNAL, BACKGROUND]))
    observable = lambda x: x[:, None]  # noqa: E731
    bins = tune(observable, model, (simulations[0], simulations[1]), log_rates=None)
    parts: dict[str, list[Fits]] = {}
    for start in range(0, number, BLOCK):
        toys = min(BLOCK, number - start)
        numbers = rng.poisson(SIGNAL + BACKGROUND, toys)
        pool = sample_mass(int(numbers.sum()), (1.0, 1.0), rng)
        events = np.split(pool, np.cumsum(numbers)[:-1])
        x, used = padded(events, SLOTS)
        shares = mass_terms(x.ravel()).reshape(2, *x.shape)
        shares /= np.asarray([SIGNAL, BACKGROUND])[:, None, None]
        exact = np.log(shares) - np.log(np.mean(shares, axis=0))
        none = jnp.zeros(toys)
        for method, logs in (("exact", exact), ("learnt, unbinned", ratio(x))):
            table = Table(logs, np.zeros_like(logs), np.zeros_like(logs))
            fits = fit_events(model, table, jnp.asarray(used), none, None)
            parts.setdefault(method, []).append(fits)
        observed = [counts(one[:, None], bins.edges) for one in events]
        data = jnp.asarray(np.stack(observed), float)
        fits = fit_bins(model, bins.table, data, none, None)
        parts.setdefault("1-D, m", []).append(fits)
    return {method: together(x) for method, x in parts.items()}, bins.shape


def summary(
    fits: dict[str, Fits], truth: float, rng: np.random.Generator
) -> dict[str, Any]:
    """Widths, coverage and bias of each method, with paired bootstrap errors."""
    number = len(fits["exact"].best)
    draws = rng.integers(0, number, (500, number))
    widths = {method: _widths(x) for method, x in fits.items()}
    exact = np.median(widths["exact"][draws], axis=1)
    found = {}
    for method, x in fits.items():
        covered = (x.low <= truth) & (truth <= x.high)
        again = np.median(widths[method][draws], axis=1)
        middle = np.median(widths[method])
        apart = x.best - fits["exact"].best
        found[method] = {
            "width": float(middle),
            "width error": float(again.std()),
            "ratio": float(middle / np.median(widths["exact"])),
            "ratio error": float((again / exact).std()),
            "coverage": float(covered.mean()),
            "mean": float(x.best.mean()),
            "spread": float(x.best.std()),
            "difference": float(apart.mean()),
            "difference error": float(apart.std() / np.sqrt(number)),
            "failed": int(np.sum(~x.good)),
        }
    return found


def _widths(fits: Fits) -> np.ndarray:
    # What has no end, because a fit failed, is as wide as any.
    return np.where(np.isfinite(fits.width), fits.width, np.inf)


def run(seed: int, settings: dict[str, Any]) -> dict[str, Any]:
    """All that a seed records."""
    number = settings["toys"]
    null, null_bins = fit_null(seed, settings, number)
    prepared, ratios = prepare(seed, settings)
    rng = np.random.default_rng([seed, 2])
    found: dict[str, Any] = {
        "closure": judge(ratios, settings["test events"], rng),
        "bins": {
            name: {
                "alpha free" if free else "alpha fixed": {
                    "shape": bins.shape,
                    "equal": bins.equal,
                    "expected": bins.expected,
                }
                for free, bins in both.items()
            }
            for name, both in prepared.bins.items()
        },
        "null bins": null_bins,
        "points": {"null": summary(null, 1.0, rng)},
    }
    for name, (strength, _, _) in POINTS.items():
        if QUICK and name != SHOWN:
            continue
        fits = fit_point(prepared, name, number, rng)
        found["points"][name] = summary(fits, strength, rng)
        if name == SHOWN:
            found["shown"] = shown(prepared, name, fits, seed)
    return found
