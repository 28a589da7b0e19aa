"""A likelihood with a parameter of interest, and its fits."""

import equinox as eqx
import jax
import jax.numpy as jnp
import optimistix as optx
from jaxtyping import Array, Bool, Float

from ._likelihood import AbstractLikelihood
from ._newton import IMPLICIT, FitResult, fit_likelihood, make_problem
from ._search import Search


class Measurement(eqx.Module):
    """What a statistical question is asked of."""

    likelihood: AbstractLikelihood
    """The negative log-likelihood of what was observed."""
    start: Float[Array, " parameters"]
    """Where fits begin."""
    lower: Float[Array, " parameters"] | None
    """Lower bounds of the parameters."""
    upper: Float[Array, " parameters"] | None
    """Upper bounds."""
    fixed: Bool[Array, " parameters"] | None
    """Parameters that keep their value in every fit."""
    poi: int = eqx.field(static=True)
    """Index of the parameter of interest, the strength of the signal."""
    mirror: bool = eqx.field(static=True, default=False)
    """Whether fits search on both sides of `start` (`fit_likelihood`)."""
    starts: Float[Array, "starts parameters"] | None = None
    """Other places where fits begin; the best end counts. For likelihoods with more
    than one minimum. What a fit holds keeps its value."""

    def __check_init__(self):
        """Raise where there is no parameter of interest, or `starts` are of others."""
        if not 0 <= self.poi < self.start.shape[0]:
            raise ValueError(
                f"There is no parameter {self.poi} among {self.start.shape[0]}; `poi` "
                "is the index of the parameter of interest."
            )
        if self.starts is not None and self.starts.shape[1:] != self.start.shape:
            raise ValueError(
                f"`starts` has the shape {self.starts.shape}; give one row of "
                f"{self.start.shape[0]} parameters for each place."
            )


def fit_measurement(
    measurement: Measurement,
    *,
    strength: Float[Array, ""] | None = None,
    held: Bool[Array, ""] | None = None,
    num_steps: int = 100,
    adjoint: optx.AbstractAdjoint = IMPLICIT,
    throw: bool = False,
) -> FitResult:
    """The best fit, of all parameters or at a given strength of the signal.

    Args:
        measurement: What is fitted.
        strength: Signal strength to hold; free unless given.
        held: Whether to hold it indeed: not static, so that free and conditional fits
            share a compilation.
        num_steps: How many Newton steps to take at most.
        adjoint: How the gradient crosses the fit.
        throw: Whether a fit that fails raises. Its status tells otherwise.

    Returns:
        The result.

    Raises:
        RuntimeError: The fit failed and `throw` is set.
    """
    start, fixed = _hold(measurement, strength, held)
    return fit_likelihood(
        measurement.likelihood,
        start,
        lower=measurement.lower,
        upper=measurement.upper,
        fixed=fixed,
        mirror=measurement.mirror,
        starts=measurement.starts,
        num_steps=num_steps,
        adjoint=adjoint,
        throw=throw,
    )


def _hold(
    measurement: Measurement,
    strength: Float[Array, ""] | None,
    held: Bool[Array, ""] | None,
) -> tuple[Float[Array, " parameters"], Bool[Array, " parameters"] | None]:
    # Where the fit begins, and what is fixed.
    start, fixed = measurement.start, measurement.fixed
    if strength is None:
        return start, fixed
    holds = jnp.asarray(True) if held is None else held
    own = jnp.arange(start.shape[0]) == measurement.poi
    start = jnp.where(own & holds, strength, start)
    return start, own & holds if fixed is None else fixed | (own & holds)


def search_measurement(
    measurement: Measurement,
    *,
    strength: Float[Array, ""] | None = None,
    held: Bool[Array, ""] | None = None,
    num_steps: int = 100,
) -> Search:
    """The search of the fit that `fit_measurement` makes, to be taken in pieces.

    Args:
        measurement: What is fitted.
        strength: Signal strength to hold; free unless given.
        held: Whether to hold it indeed.
        num_steps: How many Newton steps to take at most.

    Returns:
        The search.
    """
    start, fixed = _hold(measurement, strength, held)
    problem = make_problem(
        measurement.likelihood,
        start,
        lower=measurement.lower,
        upper=measurement.upper,
        fixed=fixed,
    )
    return Search(problem, measurement.mirror, num_steps, measurement.starts)


def fit_strengths(
    measurement: Measurement,
    strengths: Float[Array, " fits"],
    held: Bool[Array, " fits"],
    *,
    num_steps: int = 100,
) -> list[FitResult]:
    """The best fits at some strengths of the signal, one after the other.

    In one loop: the fit is compiled once.

    Args:
        measurement: What is fitted.
        strengths: Signal strength to hold, for each fit.
        held: Whether to hold it indeed.
        num_steps: How many Newton steps each fit may take.

    Returns:
        The results.
    """

    def fit(question: tuple[Float[Array, ""], Bool[Array, ""]]) -> FitResult:
        strength, holds = question
        return fit_measurement(
            measurement, strength=strength, held=holds, num_steps=num_steps
        )

    fits = jax.lax.map(fit, (strengths, held))
    return [jax.tree.map(lambda x, i=i: x[i], fits) for i in range(held.shape[0])]


def asimov_uncertainty(
    measurement: Measurement, parameters: Float[Array, " parameters"]
) -> Float[Array, ""]:
    r"""The expected uncertainty on the strength of the signal, if parameters are true.

    That of the average experiment, whose best fit is known. With $H$ the Hessian there,
    the square is one over the Schur complement of the nuisance parameters,
    $\sigma^{-2} = H_{\mu\mu} - H_{\mu\nu} H_{\nu\nu}^{-1} H_{\nu\mu}$.

    Args:
        measurement: The measurement. Its data do not matter, and parameters on a bound
            count as free.
        parameters: The truth.

    Returns:
        One standard deviation; NaN where nothing constrains a parameter.
    """
    average = fit_likelihood(
        measurement.likelihood.asimov(parameters),
        parameters,
        fixed=measurement.fixed,
        num_steps=0,
    )
    return jnp.sqrt(average.covariance[measurement.poi, measurement.poi])
