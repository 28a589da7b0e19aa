"""Maximum-likelihood fit of a binned model."""

import jax.numpy as jnp
import optimistix as optx
from jaxtyping import Array, Float, PRNGKeyArray

from ._binned_model import (
    BinnedModel,
    expected_yields,
    likelihood_change,
    negative_log_likelihood,
    widest,
)
from ._likelihood import AbstractLikelihood, Derivatives
from ._newton import IMPLICIT, FitResult, fit_likelihood
from ._template_error import eliminate_factors


class BinnedLikelihood(AbstractLikelihood):
    """The likelihood of a binned model and its data."""

    model: BinnedModel
    """Expected yields, with their variations."""
    data: Float[Array, " bins"]
    """Observed number of events per bin; need not be whole."""

    def value(self, parameters: Float[Array, " 3"]) -> Float[Array, ""]:
        """Minus the log-probability of the data."""
        return negative_log_likelihood(self.model, parameters, self.data)

    def change(
        self, new: Float[Array, " 3"], old: Float[Array, " 3"]
    ) -> Float[Array, ""]:
        """A difference of two values."""
        return likelihood_change(self.model, new, old, self.data)

    def derivatives(self, parameters: Float[Array, " 3"]) -> Derivatives:
        """In closed form."""
        rate, first, second = expected_yields(self.model, parameters)
        constrained = jnp.asarray([0.0, 1.0, 1.0], rate.dtype)
        variance = self.model.relative_variance
        bins = eliminate_factors(rate, self.data, variance)
        excess = bins.factor - self.data / rate
        slope = jnp.sum(first * excess[None, :], axis=1) + constrained * parameters
        outer = first[:, None, :] * first[None, :, :]
        curvature = self.data / rate**2 + bins.slope
        observed = outer * curvature[None, None, :] + second * excess[None, None, :]
        hessian = jnp.sum(observed, axis=-1) + jnp.diag(constrained)
        expected = eliminate_factors(rate, rate, variance).slope + 1 / rate
        fisher = jnp.sum(outer * expected[None, None, :], axis=-1)
        return Derivatives(slope, hessian, fisher + jnp.diag(constrained))

    def asimov(self, parameters: Float[Array, " 3"]) -> "BinnedLikelihood":
        """The likelihood of the expected yields."""
        return BinnedLikelihood(
            self.model, expected_yields(self.model, parameters).rate
        )

    def sample(
        self, parameters: Float[Array, " 3"], *, key: PRNGKeyArray
    ) -> "BinnedLikelihood":
        """Not possible: the auxiliary measurements are no data of this likelihood."""
        del parameters, key
        raise ValueError(
            "The constraints of a `BinnedModel` are centred on zero and cannot "
            "fluctuate from toy to toy; write it as a workspace of `histfactory`, or "
            "as a `FunctionLikelihood` with `draw`."
        )


def fit(
    model: BinnedModel,
    data: Float[Array, " bins"],
    *,
    strength: Float[Array, ""] | None = None,
    start: Float[Array, " 3"] | None = None,
    num_steps: int = 30,
    adjoint: optx.AbstractAdjoint = IMPLICIT,
    throw: bool = False,
) -> FitResult:
    """The parameters at which the data are likeliest, with their covariance.

    Newton's method, damped by a line search; where the Hessian is not positive
    definite its Fisher approximation takes its place. In 64 bits wherever JAX has them.

    Args:
        model: The model.
        data: Observed number of events per bin; need not be whole.
        strength: Signal strength to hold fixed; free unless given.
        start: Where to begin; no signal change and no pulls unless given.
        num_steps: How many Newton steps to take.
        adjoint: How the gradient crosses the fit.
        throw: Whether a fit that fails raises. Its status tells otherwise.

    Returns:
        The result.

    Raises:
        RuntimeError: The fit failed and `throw` is set.
    """
    model, data = widest((model, data))
    begin = jnp.asarray([1.0, 0.0, 0.0], data.dtype) if start is None else widest(start)
    fixed = None
    if strength is not None:
        begin = begin.at[0].set(widest(strength))
        fixed = jnp.asarray([True, False, False])
    return fit_likelihood(
        BinnedLikelihood(model, data),
        begin,
        fixed=fixed,
        num_steps=num_steps,
        adjoint=adjoint,
        throw=throw,
    )
