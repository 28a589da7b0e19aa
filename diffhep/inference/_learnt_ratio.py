"""Networks as density ratios, with parameters of the theory among their inputs."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree, Shaped

from ._calibrated import mean_ratio


def network_precision(network: Any, otherwise: jnp.dtype) -> jnp.dtype:
    """That of a network's parameters.

    Args:
        network: The network.
        otherwise: What it is without parameters.

    Returns:
        The type of its numbers.
    """
    leaves = jax.tree.leaves(eqx.filter(network, eqx.is_inexact_array))
    return leaves[0].dtype if leaves else otherwise


def float_type(*values: Array) -> jnp.dtype:
    """In which floating-point numbers to compute with some values.

    Args:
        values: Any numbers, such as counts.

    Returns:
        The most precise of their types, JAX's default counting for that of integers.
    """
    types = [
        x.dtype
        if jnp.issubdtype(x.dtype, jnp.inexact)
        else jax.dtypes.canonicalize_dtype(float)
        for x in values
    ]
    # Mixed on purpose, which strict users forbid.
    with jax.numpy_dtype_promotion("standard"):
        return jnp.result_type(*types)


class Standardisation(eqx.Module):
    """A shift and a scale for each input of a network. They are not trained."""

    mean: tuple[float, ...] = eqx.field(static=True)
    """What becomes zero."""
    deviation: tuple[float, ...] = eqx.field(static=True)
    """What becomes one."""

    @classmethod
    def of(cls, values: Shaped[Array, "entries inputs"]) -> "Standardisation":
        """That of a sample.

        Args:
            values: The inputs.

        Returns:
            Means and standard deviations; of an input that is always the same, one.

        Raises:
            ValueError: There are no rows, or a value is not finite.
        """
        array = np.asarray(values, float)
        if array.ndim != 2 or not len(array):
            raise ValueError(
                f"The inputs have the shape {array.shape}, but there is a row for each "
                "of some events; write `x[:, None]` for a single feature."
            )
        mean, deviation = array.mean(axis=0), array.std(axis=0)
        if not np.all(np.isfinite(mean) & np.isfinite(deviation)):
            broken = np.flatnonzero(~np.isfinite(mean) | ~np.isfinite(deviation))
            raise ValueError(
                f"Input {broken[0]} has values that are not finite; leave these events "
                "out, or give a feature that exists for all."
            )
        # Not by the deviation, which has rounding errors.
        same = array.min(axis=0) == array.max(axis=0)
        deviation = np.where(same, 1.0, deviation)
        return cls(tuple(mean.tolist()), tuple(deviation.tolist()))

    def __call__(self, values: Float[Array, " inputs"]) -> Float[Array, " inputs"]:
        """The inputs, of mean zero and deviation one.

        Args:
            values: The inputs.

        Returns:
            The standardised ones.

        Raises:
            ValueError: There is another number of inputs.
        """
        if values.shape != (len(self.mean),):
            raise ValueError(
                f"The inputs have the shape {values.shape}, but the ratio was made for "
                f"{len(self.mean)}, features and parameters together; give each event "
                "as many."
            )
        mean, deviation = (
            jnp.asarray(x, values.dtype) for x in (self.mean, self.deviation)
        )
        return (values - mean) / deviation


class NetworkRatio(eqx.Module):
    """A density ratio that is a network of features and parameters.

    Without parameters it is one of two fixed densities, or of several. A learnt ratio
    is not exactly normalised, at any value of its parameters; `normalisation` tells by
    how much. Compile with `eqx.filter_jit`, for it holds functions.
    """

    network: Callable[[Float[Array, " inputs"]], Array]
    """From standardised features and parameters, in this order, to the logarithm of
    the ratio; or to several. May be of lower precision."""
    standardisation: Standardisation
    """Of both."""

    @classmethod
    def init(
        cls,
        features: Shaped[Array, "entries features"],
        parameters: Float[Array, "entries parameters"] | None = None,
        *,
        width: int = 64,
        depth: int = 2,
        outputs: int | None = None,
        key: PRNGKeyArray,
    ) -> "NetworkRatio":
        """A new one, a multilayer perceptron in 32 bits.

        Args:
            features: Those of the training, to standardise.
            parameters: Those of the training; none for a ratio without.
            width: Width of the hidden layers.
            depth: Number of hidden layers.
            outputs: How many ratios; one, a number, unless given.
            key: Random key.

        Returns:
            The ratio, at random.
        """
        columns = [Standardisation.of(features)]
        if parameters is not None:
            columns.append(Standardisation.of(parameters))
        standardisation = Standardisation(
            sum((x.mean for x in columns), ()), sum((x.deviation for x in columns), ())
        )
        number = len(standardisation.mean)
        sizes = number, "scalar" if outputs is None else outputs
        return cls(perceptron(*sizes, width, depth, key), standardisation)

    def __call__(
        self,
        features: Shaped[Array, " features"],
        parameters: Float[Array, " parameters"],
    ) -> Float[Array, "*outputs"]:
        """The logarithm of the ratio.

        Args:
            features: Of one event.
            parameters: The parameters, or an empty array.

        Returns:
            The logarithm; of several ratios an array.
        """
        dtype = float_type(features, parameters)
        inputs = [x.astype(dtype) for x in (features, parameters)]
        inputs = jnp.concatenate(inputs)
        return apply_network(self.network, self.standardisation(inputs))


class SoftmaxRatio(eqx.Module):
    """Density ratios of several samples to the mean of their densities.

    What is trained with `SoftmaxRatioLoss`, alone or as the member of an ensemble.
    """

    network: Callable[
        [Float[Array, " features"], Float[Array, " parameters"]],
        Float[Array, " samples"],
    ]
    """From features and parameters to one logit for each sample: a `NetworkRatio` with
    as many outputs, say."""

    def __call__(
        self, features: PyTree, parameters: Float[Array, " parameters"]
    ) -> Float[Array, " samples"]:
        """Logarithms of the ratios.

        Args:
            features: Of one event.
            parameters: An empty array, unless the network wants some.

        Returns:
            The logarithm for each sample. The ratios' mean is one at every event.
        """
        logits = self.network(features, parameters)
        number = jnp.asarray(logits.shape[0], logits.dtype)
        return jax.nn.log_softmax(logits) + jnp.log(number)


class RatioEnsemble(eqx.Module):
    """Several ratios whose mean is taken (`mean_ratio`).

    Each has to be a ratio: of logits, which know a constant only, it would be wrong.
    """

    members: PyTree
    """The ratios, their arrays stacked along a first axis."""

    @classmethod
    def of(cls, members: Sequence[PyTree]) -> "RatioEnsemble":
        """That of ratios which were trained one by one.

        Args:
            members: Ratios of one structure.

        Returns:
            The ensemble.

        Raises:
            ValueError: They are of different structures, or there is none.
        """
        parts = [eqx.partition(x, eqx.is_array) for x in members]
        shapes = {str(jax.tree.map(jnp.shape, arrays)) for arrays, _ in parts}
        if len(shapes) != 1:
            raise ValueError(
                f"The {len(members)} members are of {len(shapes)} structures; give one "
                "or more, whose networks are of the same shape."
            )
        arrays = jax.tree.map(lambda *x: jnp.stack(x), *(x for x, _ in parts))
        return cls(eqx.combine(arrays, parts[0][1]))

    @classmethod
    def init(
        cls, make: Callable[[PRNGKeyArray], PyTree], *, num: int, key: PRNGKeyArray
    ) -> "RatioEnsemble":
        """A new one.

        Args:
            make: From a random key to a member.
            num: How many members.
            key: Random key.

        Returns:
            The ensemble.
        """
        return cls(eqx.filter_vmap(make)(jax.random.split(key, num)))

    @property
    def size(self) -> int:
        """How many members."""
        return jax.tree.leaves(eqx.filter(self.members, eqx.is_array))[0].shape[0]

    def each(
        self, features: PyTree, parameters: Float[Array, " parameters"]
    ) -> Float[Array, "members *outputs"]:
        """What each member says.

        Args:
            features: Of one event.
            parameters: The parameters, or an empty array.

        Returns:
            The members' outputs. Their spread is a measure of what the training left
            to chance.
        """
        return eqx.filter_vmap(lambda member: member(features, parameters))(
            self.members
        )

    def __call__(
        self, features: PyTree, parameters: Float[Array, " parameters"]
    ) -> Float[Array, "*outputs"]:
        """The logarithm of the mean ratio.

        Args:
            features: Of one event.
            parameters: The parameters, or an empty array.

        Returns:
            The logarithm.
        """
        return mean_ratio(self.each(features, parameters))


def perceptron(
    inputs: int,
    outputs: int | Literal["scalar"],
    width: int,
    depth: int,
    key: PRNGKeyArray,
) -> eqx.nn.MLP:
    """A new network, smooth, for likelihoods are differentiated twice.

    Args:
        inputs: How many inputs.
        outputs: How many outputs; "scalar" for one that is a number.
        width: Width of the hidden layers.
        depth: Number of hidden layers.
        key: Random key.

    Returns:
        The network, in 32 bits.
    """
    sizes = (inputs, outputs, width, depth)
    return eqx.nn.MLP(*sizes, jax.nn.silu, dtype=jnp.float32, key=key)


def apply_network(
    network: Callable[[Float[Array, " inputs"]], Array],
    inputs: Float[Array, " inputs"],
) -> Array:
    """A network's output, in the precision of the inputs.

    Args:
        network: The network, of any precision.
        inputs: What goes in.

    Returns:
        What comes out.
    """
    own = network_precision(network, inputs.dtype)
    return network(inputs.astype(own)).astype(inputs.dtype)
