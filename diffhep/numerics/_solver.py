import abc
from collections.abc import Callable
from typing import Any

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
