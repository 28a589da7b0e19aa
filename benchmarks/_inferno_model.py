"""The densities and likelihoods of INFERNO's benchmark: see `inferno`."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffhep.inference import (
    FunctionLikelihood,
    Measurement,
    Polynomial,
    asimov_uncertainty,
)


# s, r, lambda, b: the truth, and the auxiliary measurements' widths.
TRUTH = (50.0, 0.0, 3.0, 1000.0)
WIDTHS = (None, 0.4, 1.0, 100.0)
# Which parameters are free, and whether they are constrained.
BENCHMARKS = {
    "B0": (1, False),
    "B1": (2, False),
    "B2": (3, False),
    "B3": (3, True),
    "B4": (4, True),
}


Templates = tuple[Any, Any, Any, Any]


def signal(number: int, rng: np.random.Generator) -> np.ndarray:
    plane = rng.normal(0.0, 1.0, (number, 2))
    return np.column_stack([plane, rng.exponential(1 / 2, number)])


def background(number: int, rng: np.random.Generator) -> np.ndarray:
    plane = rng.normal((2.0, 0.0), np.sqrt((5.0, 9.0)), (number, 2))
    return np.column_stack([plane, rng.exponential(1 / 3, number)])


def vary(x: Any, parameters: Any) -> Any:
    """A nominal background event as it would be with another r and lambda."""
    shift, rate = parameters
    return jnp.stack([x[0] + shift, x[1], x[2] * (TRUTH[2] / rate)])


def _log_signal(x: Any) -> Any:
    plane = -0.5 * (x[:, 0] ** 2 + x[:, 1] ** 2) - jnp.log(2 * jnp.pi)
    return plane + jnp.log(2.0) - 2 * x[:, 2]


def _log_background(x: Any, shift: Any, rate: Any) -> Any:
    plane = -0.5 * ((x[:, 0] - 2 - shift) ** 2 / 5 + x[:, 1] ** 2 / 9)
    return plane - jnp.log(2 * jnp.pi * jnp.sqrt(45.0)) + jnp.log(rate) - rate * x[:, 2]


def scaled(x: Any) -> Any:
    return (x - jnp.asarray([1.0, 0.0, 0.4])) / jnp.asarray([2.0, 2.5, 0.4])


# The binned likelihood: to first order in r and lambda, which is all that the
# uncertainty of the average experiment depends on.
def _yields(parameters: Any, templates: Templates) -> Any:
    signal, background, to_shift, to_rate = templates
    events, shift, rate, number = parameters
    tilted = background + shift * to_shift + (rate - TRUTH[2]) * to_rate
    return events * signal + number * tilted


def _constraints(parameters: Any, constrained: Any) -> Any:
    pulls = [
        ((x - truth) / width) ** 2 / 2
        for x, truth, width in zip(parameters, TRUTH, WIDTHS, strict=True)
        if width is not None
    ]
    return jnp.where(constrained, sum(pulls), 0.0)


def _binned(parameters: Any, data: Any) -> Any:
    templates, observed, constrained = data
    yields = _yields(parameters, templates)
    poisson = jnp.sum(yields - observed * jnp.log(yields))
    return poisson + _constraints(parameters, constrained)


def _expected(parameters: Any, data: Any) -> Any:
    templates, _, constrained = data
    return templates, _yields(parameters, templates), constrained


def uncertainty(templates: Templates, benchmark: str) -> Any:
    free, constrained = BENCHMARKS[benchmark]
    truth = jnp.asarray(TRUTH)
    floor = 1e-9
    templates = (templates[0] + floor, templates[1] + floor, *templates[2:])
    data = (templates, _yields(truth, templates), jnp.asarray(constrained))
    likelihood = FunctionLikelihood(_binned, data, _expected)
    fixed = jnp.arange(4) >= free
    measurement = Measurement(likelihood, truth, None, None, fixed, poi=0)
    return asimov_uncertainty(measurement, truth)


def soft_templates(network: Any, signal: Any, background: Any) -> Templates:
    def shares(x: Any) -> Any:
        logits = jax.vmap(network)(scaled(x).astype(jnp.float32))
        return jnp.mean(jax.nn.softmax(logits), axis=0).astype(float)

    def at(parameters: Any) -> Any:
        return shares(jax.vmap(vary, (0, None))(background, parameters))

    nominal = jnp.asarray(TRUTH[1:3])
    push = jax.jacfwd(at)(nominal)
    return shares(signal), at(nominal), *push.T


TILT = Polynomial((TRUTH[1], TRUTH[2]), (0.4, 1.0), degree=3)
"""In r and lambda: of the logarithm of the learnt ratio of backgrounds. The second
degree cannot follow log(lambda) over the range that is learnt; fits were biased."""


# The unbinned likelihoods, extended, over weighted events of the average experiment.
def exact_terms(parameters: Any, data: Any) -> Any:
    x, _, _ = data
    events, shift, rate, number = parameters
    return jnp.logaddexp(
        jnp.log(events) + _log_signal(x),
        jnp.log(number) + _log_background(x, shift, rate),
    )


def learnt_terms(parameters: Any, data: Any) -> Any:
    (log_signal, terms), _, _ = data
    events, shift, rate, number = parameters
    tilt = TILT(terms, jnp.stack([shift, rate]))
    return jnp.logaddexp(jnp.log(events) + log_signal, jnp.log(number) + tilt)


def _unbinned(terms: Callable) -> Callable:
    def value(parameters: Any, data: Any) -> Any:
        _, weight, constrained = data
        total = parameters[0] + parameters[3]
        poisson = total - jnp.sum(weight * terms(parameters, data))
        return poisson + _constraints(parameters, constrained)

    return value


EXACT, LEARNT = _unbinned(exact_terms), _unbinned(learnt_terms)
