import abc
from collections.abc import Callable
from typing import Any

import jax
import lineax as lx
from jaxtyping import Array, Float


class AbstractSmallSolver(lx.AbstractLinearSolver[Any]):
    """A direct solver of small systems, given as products with a matrix.

    It is a lineax solver, and can be used without lineax's operators.
    """

    @abc.abstractmethod
    def invert(
        self,
        multiply: Callable[[Float[Array, " n"]], Float[Array, " n"]],
        like: Float[Array, " n"],
    ) -> Any:
        """What `apply` needs to know of the matrix.

        Args:
            multiply: The product of the matrix with a vector.
            like: Any vector of the right size.

        Returns:
            The inverse, in whatever form.
        """

    @abc.abstractmethod
    def apply(self, inverse: Any, vector: Float[Array, " n"]) -> Float[Array, " n"]:
        """The product of the inverse with a vector.

        Args:
            inverse: What `invert` returned.
            vector: The right-hand side.

        Returns:
            The solution.
        """

    def init(self, operator: lx.AbstractLinearOperator, options: dict[str, Any]) -> Any:
        """Invert the operator's matrix."""
        del options
        (like,) = jax.tree.leaves(operator.in_structure())
        return self.invert(operator.mv, like)

    def compute(
        self, state: Any, vector: Any, options: dict[str, Any]
    ) -> tuple[Any, lx.RESULTS, dict[str, Any]]:
        """Apply the inverse."""
        del options
        return self.apply(state, vector), lx.RESULTS.successful, {}

    def conj(self, state: Any, options: dict[str, Any]) -> Any:
        """The operator is real."""
        return state, options

    def assume_full_rank(self) -> bool:
        """The matrix is taken to be invertible."""
        return True
