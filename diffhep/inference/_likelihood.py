"""What a fit has to know of a likelihood, whatever it is the likelihood of."""

import abc
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.lax import stop_gradient
from jaxtyping import Array, Float, PRNGKeyArray, PyTree


class Derivatives(NamedTuple):
    """Derivatives of a negative log-likelihood to its parameters."""

    slope: Float[Array, " parameters"]
    """First derivatives."""
    hessian: Float[Array, "parameters parameters"]
    """Second derivatives."""
    fisher: Float[Array, "parameters parameters"]
    """A positive semi-definite stand-in for the second derivatives: their expectation,
    if the likelihood were true at these parameters, or that of Gauss and Newton."""


class AbstractLikelihood(eqx.Module):
    """The negative log-likelihood of given data, a function of a parameter vector.

    Fits, intervals and test statistics are written for this type. It is a pytree: what
    it holds is differentiated through them.
    """

    @abc.abstractmethod
    def value(self, parameters: Float[Array, " parameters"]) -> Float[Array, ""]:
        """The negative log-likelihood, up to constants that depend on no parameter.

        Args:
            parameters: Where.

        Returns:
            The value.
        """

    @abc.abstractmethod
    def change(
        self,
        new: Float[Array, " parameters"],
        old: Float[Array, " parameters"],
    ) -> Float[Array, ""]:
        """A difference of two values, without the cancellation of large numbers.

        Args:
            new: Parameters of the minuend.
            old: Parameters of the subtrahend.

        Returns:
            The value at `new` minus that at `old`.
        """

    @abc.abstractmethod
    def derivatives(self, parameters: Float[Array, " parameters"]) -> Derivatives:
        """First and second derivatives together, for they share most of the work.

        Args:
            parameters: Where.

        Returns:
            The derivatives.
        """

    @abc.abstractmethod
    def asimov(self, parameters: Float[Array, " parameters"]) -> "AbstractLikelihood":
        """The likelihood of the average experiment, if the parameters are true.

        Args:
            parameters: The truth, at which the new likelihood has its maximum.

        Returns:
            A likelihood of the same structure.
        """

    @abc.abstractmethod
    def sample(
        self, parameters: Float[Array, " parameters"], *, key: PRNGKeyArray
    ) -> "AbstractLikelihood":
        """The likelihood of a random experiment, if the parameters are true.

        All that was measured is drawn, the outcomes of auxiliary measurements too.
        No gradient flows through the draws.

        Args:
            parameters: The truth.
            key: Random key.

        Returns:
            A likelihood of the same structure.

        Raises:
            ValueError: The likelihood does not know how its data come about.
        """


def _made_dominant(matrix: Float[Array, "n n"]) -> Float[Array, "n n"]:
    # Positive semi-definite: no element of the diagonal is less than the sum of the
    # others in its row (Gershgorin); nor than its own size, or nothing would be left.
    diagonal = jnp.diagonal(matrix)
    size = jnp.abs(diagonal)
    others = jnp.sum(jnp.abs(matrix), axis=1) - size
    return matrix + jnp.diag(jnp.maximum(others, size) - diagonal)


class FunctionLikelihood(AbstractLikelihood):
    """Any function of parameters and data, with the derivatives that JAX finds.

    The change is a difference of values, good to the rounding of these.
    """

    function: Callable[[Float[Array, " parameters"], Any], Float[Array, ""]] = (
        eqx.field(static=True)
    )
    """The negative log-likelihood, `(parameters, data) -> value`. A module-level
    function: what is differentiated belongs to the data."""
    data: PyTree
    """Everything else that the function depends on."""
    expected: Callable[[Float[Array, " parameters"], Any], Any] | None = eqx.field(
        static=True, default=None
    )
    """The data of the average experiment, `(parameters, data) -> data`. Only
    expectations need it."""
    draw: Callable[[Float[Array, " parameters"], Any, PRNGKeyArray], Any] | None = (
        eqx.field(static=True, default=None)
    )
    """The data of a random experiment, `(parameters, data, key) -> data`. Only toys
    need it."""

    def __check_init__(self):
        """Raise where the data hold something that is not differentiated."""
        for path, leaf in jax.tree_util.tree_leaves_with_path(self.data):
            if callable(leaf):
                raise ValueError(
                    f"`data{jax.tree_util.keystr(path)}` is a function, but the data "
                    "of a likelihood are arrays. Of a network give what it says of the "
                    "events (`PolynomialRatio.terms`, say); or give its arrays "
                    "(`equinox.partition(network, equinox.is_array)`), and let the "
                    "function put them together again."
                )

    def value(self, parameters: Float[Array, " parameters"]) -> Float[Array, ""]:
        """The function's value."""
        return self.function(parameters, self.data)

    def change(
        self,
        new: Float[Array, " parameters"],
        old: Float[Array, " parameters"],
    ) -> Float[Array, ""]:
        """The difference of the function's values."""
        return self.value(new) - self.value(old)

    def derivatives(self, parameters: Float[Array, " parameters"]) -> Derivatives:
        """Those of the function. The stand-in is the Hessian, its diagonal raised."""
        slope = jax.grad(self.value)(parameters)
        hessian = jax.jacfwd(jax.grad(self.value))(parameters)
        return Derivatives(slope, hessian, _made_dominant(hessian))

    def asimov(self, parameters: Float[Array, " parameters"]) -> "FunctionLikelihood":
        """The same function of the expected data."""
        if self.expected is None:
            raise ValueError(
                "The likelihood cannot tell what the average experiment observes; "
                "give `FunctionLikelihood` the function `expected`."
            )
        data = self.expected(parameters, self.data)
        return FunctionLikelihood(self.function, data, self.expected, self.draw)

    def sample(
        self, parameters: Float[Array, " parameters"], *, key: PRNGKeyArray
    ) -> "FunctionLikelihood":
        """The same function of data that are drawn."""
        if self.draw is None:
            raise ValueError(
                "The likelihood cannot draw data; give `FunctionLikelihood` the "
                "function `draw`."
            )
        data = stop_gradient(self.draw(parameters, self.data, key))
        return FunctionLikelihood(self.function, data, self.expected, self.draw)
