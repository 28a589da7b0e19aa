"""Likelihoods of the benchmark `interference` at other true alpha: see there.

No network takes part. Each likelihood knows the exact densities at alpha = 0 and +-1,
and interpolates them in its own way; the first one knows them at all alpha.
"""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from diffhep.inference import (
    AbstractCode,
    AbstractLikelihood,
    Code2,
    Code4,
    Code4p,
    FunctionLikelihood,
    Measurement,
    Parabola,
    UnbinnedLikelihood,
)

from . import _interference_model as model
from ._interference_closure import mixture
from ._interference_run import SLOTS, draw, log_rates
from ._interference_toys import LOWEST, Fits, interval, padded, together


ALPHAS = (0.0, 0.5, 1.0, 1.5, 2.0)
EXACT = "exact at all α"
CODES: dict[str, AbstractCode] = {
    "added, `Code4p`": Code4p(),
    "added, `Code2`": Code2(),
    "added, `Parabola`": Parabola(),
    "factors, `Code4`": Code4(),
}
BLOCK = 500
RANGE = 6.0
"""Of alpha, in which the exact rates are interpolated."""


def far(number: int) -> None:
    """Print how likelihoods do at other true nuisance parameters, on the same toys.

    Args:
        number: Toys at each.
    """
    found = [_fit_all(alpha, number, seed) for seed, alpha in enumerate(ALPHAS)]
    cells: dict[str, Callable[[Fits, Fits, float], str]] = {
        "coverage, in per cent": lambda x, _, __: _percent(x),
        "bias, in standard deviations": lambda x, _, __: _mean(x.best - 1, x.best),
        "bias, less that of the exact one": lambda x, exact, _: _mean(
            x.best - exact.best, exact.best
        ),
        "bias of α": lambda x, _, alpha: _mean(x.parameters[:, 1] - alpha),
        "fits that failed": lambda x, _, __: str(np.sum(~x.good)),
    }
    heads = " | ".join(f"α = {alpha:g}" for alpha in ALPHAS)
    for name, cell in cells.items():
        print(f"\n| {name} | {heads} |\n|---{'|---' * len(ALPHAS)}|")
        for method in found[0]:
            row = [
                cell(one[method], one[EXACT], alpha)
                for one, alpha in zip(found, ALPHAS, strict=True)
            ]
            print(f"| {method} | {' | '.join(row)} |")


def _percent(fits: Fits) -> str:
    covered = np.mean((fits.low <= 1) & (fits.high >= 1))
    error = np.sqrt(covered * (1 - covered) / len(fits.best))
    return f"{100 * covered:.1f} ± {100 * error:.1f}"


def _mean(values: np.ndarray, unit: np.ndarray | None = None) -> str:
    scale = 1.0 if unit is None else unit.std()
    mean, error = values.mean() / scale, values.std() / scale / np.sqrt(len(values))
    return f"{mean:+.3f} ± {error:.3f}"


def _fit_all(alpha: float, number: int, seed: int) -> dict[str, Fits]:
    rng = np.random.default_rng([77, seed])
    parts: dict[str, list[Fits]] = {}
    for start in range(0, number, BLOCK):
        toys = min(BLOCK, number - start)
        x, used = padded(draw(1.0, alpha, toys, rng), SLOTS + 96)
        rest = (jnp.asarray(used), jnp.asarray(alpha + rng.normal(size=toys)))
        one = {EXACT: fit_exact(jnp.asarray(x), *rest, exact_rates())}
        table = model.exact_table(x)
        for method, code in CODES.items():
            one[method] = fit_code(table, *rest, nodes(), code)
        for method, fits in one.items():
            parts.setdefault(method, []).append(Fits(*map(np.asarray, fits)))
    return {method: together(x) for method, x in parts.items()}


def nodes() -> tuple[model.Table, Any]:
    """Points of an integral over the window with their shares of the reference.

    They take the place of the simulated sample that factors are normalised over.
    """
    x, weight = model.nodes(60, 24)
    x, weight = x.reshape(-1, 2), weight.ravel()
    density = np.stack([model.intensity(x, k) for k in model.STRENGTHS])
    share = weight * np.mean(density / model.rates()[:, None], axis=0)
    return model.exact_table(x), jnp.asarray(share)


@eqx.filter_jit
def fit_code(table: Any, weight: Any, auxiliary: Any, nodes: Any, code: Any) -> Fits:
    """Toys of exact tables, (processes, toys, slots), with a code for densities."""
    table = model.Table(*(jnp.moveaxis(jnp.asarray(x), 1, 0) for x in table))
    rates = [x[None] for x in log_rates()]

    def one(toy: Any) -> Fits:
        (logs, *moved), seen, outcome = toy
        share = None
        if not code.additive:
            (more, *rest), share = nodes
            logs = jnp.concatenate([logs, more], axis=1)
            pairs = zip(moved, rest, strict=True)
            moved = [jnp.concatenate(pair, axis=1) for pair in pairs]
            share = jnp.concatenate([jnp.zeros_like(seen), share])
            seen = jnp.concatenate([seen, jnp.zeros(len(share) - len(seen))])
        both = [x[None] for x in moved]
        likelihood = UnbinnedLikelihood(
            mixture(), logs, seen, *rates, *both, outcome[None], share, shape_code=code
        )
        return interval(_measurement(likelihood))

    return jax.lax.map(one, (table, weight, auxiliary))


@eqx.filter_jit
def fit_exact(x: Any, weight: Any, auxiliary: Any, log_rates: Any) -> Fits:
    """Toys, (toys, slots, 2), with the exact density at every alpha."""

    def one(toy: Any) -> Fits:
        likelihood = FunctionLikelihood(exact_value, (*toy, log_rates))
        # Beyond the range the rates would be anything.
        return interval(_measurement(likelihood, RANGE))

    return jax.lax.map(one, (x, weight, auxiliary))


def _measurement(likelihood: AbstractLikelihood, most: float = np.inf) -> Measurement:
    start, lower = jnp.asarray([1.0, 0.0]), jnp.asarray([LOWEST, -most])
    upper = jnp.asarray([np.inf, most])
    return Measurement(likelihood, start, lower, upper, None, poi=0)


def exact_rates() -> Any:
    """Coefficients of polynomials for the logarithms of the rates, in alpha / RANGE."""
    degree = 12
    points = np.cos(np.pi * (np.arange(degree + 1) + 0.5) / (degree + 1))
    logs = np.log(np.stack([model.rates(RANGE * x) for x in points]))
    return jnp.asarray(np.polyfit(points, logs, degree))


def exact_value(parameters: Any, data: Sequence[Any]) -> Any:
    """Minus the logarithm of the exact likelihood of events (slots, 2)."""
    x, weight, auxiliary, coefficients = data
    strength, alpha = parameters
    rates = jnp.exp(jnp.polyval(coefficients, alpha / RANGE))
    expected = jnp.sum(mixture().coefficients(strength) * rates)
    events = jnp.log(exact_intensity(x, strength, alpha))
    constraint = (alpha - auxiliary) ** 2 / 2
    return expected - jnp.sum(weight * events) + constraint


def exact_intensity(x: Any, strength: Any, alpha: Any) -> Any:
    """What `_interference_model.intensity` gives, differentiable."""
    mass, cosine = x[..., 0] - alpha * model.SHIFT, x[..., 1]
    # The resonance without its phase, g / (d - i g), is s e^(i t), s = sin(t).
    g, d = model.MASS * model.WIDTH, model.MASS**2 - mass**2
    size = g / jnp.hypot(g, d)
    angle = jnp.arctan2(g, d) + model.PHASE
    wave = 1.5 * cosine**2 - 0.25
    exchange = jnp.exp(-(mass - model.MASS) / (2 * model.FALL)) / (1.5 - cosine)
    root = jnp.sqrt(strength) * size * wave
    products = (root**2, 2 * root * jnp.cos(angle) * exchange, exchange**2)
    scales = zip(model.SCALES, products, strict=True)
    return jnp.exp(alpha * model.RATE) * sum(n * p for n, p in scales)
