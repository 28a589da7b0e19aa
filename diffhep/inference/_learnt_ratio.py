"""Networks as density ratios, with parameters of the theory among their inputs."""

from collections.abc import Callable
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

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


class Standardisation(eqx.Module):
    """A shift and a scale for each input of a network. They are not trained."""

    mean: tuple[float, ...] = eqx.field(static=True)
    """What becomes zero."""
    deviation: tuple[float, ...] = eqx.field(static=True)
    """What becomes one."""

    @classmethod
    def of(cls, values: Float[Array, "entries inputs"]) -> "Standardisation":
        """That of a sample.

        Args:
            values: The inputs.

        Returns:
            Means and standard deviations; of an input that is always the same, one.

        Raises:
            ValueError: A value is not finite.
        """
        array = np.asarray(values, float)
        mean, deviation = array.mean(axis=0), array.std(axis=0)
        if not np.all(np.isfinite(mean) & np.isfinite(deviation)):
            broken = np.flatnonzero(~np.isfinite(mean) | ~np.isfinite(deviation))
            raise ValueError(
                f"Input {broken[0]} has values that are not finite; leave these events "
                "out, or give a feature that exists for all."
            )
        deviation = np.where(deviation > 0, deviation, 1.0)
        return cls(tuple(mean.tolist()), tuple(deviation.tolist()))

    def __call__(self, values: Float[Array, " inputs"]) -> Float[Array, " inputs"]:
        """The inputs, of mean zero and deviation one.

        Args:
            values: The inputs.

        Returns:
            The standardised ones.
        """
        mean, deviation = (
            jnp.asarray(x, values.dtype) for x in (self.mean, self.deviation)
        )
        return (values - mean) / deviation


class NetworkRatio(eqx.Module):
    """A density ratio that is a network of features and parameters.

    Without parameters it is one of two fixed densities, or of several.
    """

    network: Callable[[Float[Array, " inputs"]], Array]
    """From standardised features and parameters, in this order, to the logarithm of
    the ratio; or to several. May be of lower precision."""
    standardisation: Standardisation
    """Of both."""

    @classmethod
    def init(
        cls,
        features: Float[Array, "entries features"],
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
        columns = [x for x in (features, parameters) if x is not None]
        standardisation = Standardisation.of(jnp.concatenate(columns, axis=1))
        number = len(standardisation.mean)
        sizes = number, "scalar" if outputs is None else outputs
        return cls(perceptron(*sizes, width, depth, key), standardisation)

    def __call__(
        self,
        features: Float[Array, " features"],
        parameters: Float[Array, " parameters"],
    ) -> Float[Array, "*outputs"]:
        """The logarithm of the ratio.

        Args:
            features: Of one event.
            parameters: The parameters, or an empty array.

        Returns:
            The logarithm; of several ratios an array.
        """
        inputs = jnp.concatenate([features, parameters.astype(features.dtype)])
        return apply_network(self.network, self.standardisation(inputs))


class SoftmaxRatio(eqx.Module):
    """Density ratios of several samples to the mean of their densities.

    What is trained with `SoftmaxRatioLoss`.
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
    """Several ratios whose mean is taken (`mean_ratio`)."""

    members: PyTree
    """The ratios, their arrays stacked along a first axis."""

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
