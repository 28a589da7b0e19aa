"""Networks of flax, where those of equinox are."""

from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array, Float, PyTree


class FlaxNetwork(eqx.Module):
    """A network of flax as a function whose parameters are a pytree.

    For every place that takes a network of equinox. All leaves of `parameters` are
    trained, so that a network may not hold statistics or random numbers of its own
    (batch normalisation, dropout).
    """

    parameters: PyTree[Array]
    """The parameters."""
    definition: Any = eqx.field(static=True)
    """What is computed with them."""

    @classmethod
    def from_linen(cls, module: Any, variables: PyTree[Array]) -> "FlaxNetwork":
        """That of `flax.linen`.

        Args:
            module: The module.
            variables: What `module.init` returned.

        Returns:
            The network.

        Raises:
            ValueError: There are other variables than parameters.
        """
        if set(variables) != {"params"}:
            found = ", ".join(f"'{name}'" for name in sorted(variables)) or "none"
            raise ValueError(
                f"The module has the collections {found}, but 'params' and nothing "
                "else can be trained; give what `init` returned, and leave out layers "
                "with a state, such as batch normalisation."
            )
        return cls(variables["params"], _Linen(module))

    @classmethod
    def from_nnx(cls, module: Any) -> "FlaxNetwork":
        """That of `flax.nnx`.

        Args:
            module: The module. Its parameters are copied: what is trained is the
                network that is returned, and `nnx.merge` makes a module of it again.

        Returns:
            The network.

        Raises:
            ImportError: flax is not installed.
            ValueError: There are other variables than parameters.
        """
        try:
            from flax import nnx  # noqa: PLC0415 - optional
        except ImportError as error:
            raise ImportError(
                "`FlaxNetwork` needs flax, which is not installed; run `pip install "
                "'diffhep[flax]'`."
            ) from error
        graph, parameters, rest = nnx.split(module, nnx.Param, ...)
        if rest:
            found = ", ".join(str(path) for path, _ in nnx.to_flat_state(rest))
            raise ValueError(
                f"The module has a state beside its parameters: {found}; leave out "
                "layers with one, such as batch normalisation and dropout."
            )
        # Another container of the arrays: the module changes its own in place.
        return cls(jax.tree.map(lambda x: x, parameters), _Nnx(graph))

    def __call__(self, features: Float[Array, " features"]) -> Float[Array, " outputs"]:
        """The output.

        Args:
            features: The input of one event.

        Returns:
            What the network makes of it.
        """
        return self.definition(self.parameters, features)


class _Linen(eqx.Module):
    module: Any = eqx.field(static=True)

    def __call__(self, parameters: PyTree[Array], features: Array) -> Array:
        return self.module.apply({"params": parameters}, features)


class _Nnx(eqx.Module):
    graph: Any = eqx.field(static=True)

    def __call__(self, parameters: PyTree[Array], features: Array) -> Array:
        from flax import nnx  # noqa: PLC0415 - optional

        return nnx.merge(self.graph, parameters)(features)
