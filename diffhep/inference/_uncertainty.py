"""What an average experiment would find: uncertainty and discovery significance."""

import jax.numpy as jnp
import optimistix as optx
from jaxtyping import Array, Float

from ..numerics import safe_sqrt
from ._binned_model import BinnedModel, expected_yields, likelihood_change, widest
from ._fit import fit
from ._newton import IMPLICIT


def expected_uncertainty(
    model: BinnedModel, *, adjoint: optx.AbstractAdjoint = IMPLICIT
) -> Float[Array, ""]:
    """The expected uncertainty on the signal strength, through the profile fit.

    The fit of the Asimov data set at mu = 1, whose minimum is known: the fit starts
    there and takes no step. The uncertainty is that of the inverse Hessian, whose
    first element is one over the Schur complement of the nuisance parameters: the
    curvature of the profile likelihood. In 64 bits wherever JAX has them.

    Args:
        model: The model.
        adjoint: How the gradient crosses the fit.

    Returns:
        One standard deviation; NaN if there is no signal.
    """
    model = widest(model)
    truth = jnp.asarray([1.0, 0.0, 0.0], model.signal.dtype)
    data = expected_yields(model, truth).rate
    best = fit(model, data, start=truth, num_steps=0, adjoint=adjoint)
    return jnp.sqrt(best.covariance[0, 0])


def discovery_significance(
    model: BinnedModel, *, num_steps: int = 30, adjoint: optx.AbstractAdjoint = IMPLICIT
) -> Float[Array, ""]:
    r"""The expected significance of the signal, $\sqrt{q_0}$ of the Asimov data.

    Cowan, Cranmer, Gross, Vitells, arXiv 1007.1727, equation 97 with nuisance
    parameters profiled at mu = 0. In 64 bits wherever JAX has them.

    Args:
        model: The model.
        num_steps: How many Newton steps the fit at mu = 0 may take.
        adjoint: How the gradient crosses the fit.

    Returns:
        The significance, in standard deviations.
    """
    model = widest(model)
    truth = jnp.asarray([1.0, 0.0, 0.0], model.signal.dtype)
    data = expected_yields(model, truth).rate
    empty = fit(
        model,
        data,
        strength=jnp.zeros_like(truth[0]),
        num_steps=num_steps,
        adjoint=adjoint,
    )
    change = likelihood_change(model, empty.parameters, truth, data)
    return safe_sqrt(2 * change)
