"""What a network is trained on so that it becomes a density ratio."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from ._event_source import AbstractEventSource
from ._learnt_ratio import RatioEnsemble, SoftmaxRatio


LogRatio = Callable[[PyTree, Float[Array, " parameters"]], Float[Array, "*outputs"]]
"""From features and parameters of one event to logarithms of density ratios."""


class BinaryRatioLoss(eqx.Module):
    r"""The cross-entropy whose minimum is $\log p(x|\theta) / p_\mathrm{ref}(x)$.

    A loss for `diffhep.optimise.train`. The network's output is the logit of a
    classifier of both kinds of events, in equal total weight (Cranmer, Pavez, Louppe,
    arXiv 1506.02169; with parameters as inputs: Baldi et al., arXiv 1601.07913). The
    events of the reference are given the parameters of those of the numerator, so that
    these tell nothing. Its gradient is unbiased, also for weighted events.
    """

    numerator: AbstractEventSource
    """Events of p(x | parameters)."""
    reference: AbstractEventSource
    """Events of the reference. Their own parameters do not count."""
    batch_size: int = eqx.field(static=True)
    """How many events of each are drawn for a step."""

    def __check_init__(self):
        """Raise where there is nothing to draw."""
        _check_batch(self.batch_size)

    def __call__(
        self, log_ratio: LogRatio, key: PRNGKeyArray, step: Any = None
    ) -> Float[Array, ""]:
        """The loss of a batch.

        Args:
            log_ratio: The network, with one output.
            key: Random key, which draws the events.
            step: Not used; that of the training.

        Returns:
            The mean cross-entropy, in nats: log 2 for a ratio of one everywhere.

        Raises:
            ValueError: The network has not one output.
        """
        del step
        up, down = jax.random.split(key)
        batch = self.numerator.draw(self.batch_size, key=up)
        other = self.reference.draw(self.batch_size, key=down)
        logit = _outputs(log_ratio, batch.features, batch.parameters, 1)[:, 0]
        against = _outputs(log_ratio, other.features, batch.parameters, 1)[:, 0]
        weight, pair = (
            x.astype(logit.dtype) for x in (batch.weight, batch.weight * other.weight)
        )
        losses = weight * jax.nn.softplus(-logit)
        # Weighted as the pair is: the parameters' density is that of the numerator.
        losses += pair * jax.nn.softplus(against)
        return jnp.mean(losses) / 2


class SoftmaxRatioLoss(eqx.Module):
    r"""The cross-entropy that separates several samples at once.

    A loss for `diffhep.optimise.train`, of a `SoftmaxRatio`. At its minimum the outputs
    are $\log p_k(x) / p_\mathrm{ref}(x)$, with the mean of the samples' densities as
    the reference: one that vanishes nowhere where a sample does not, so that no ratio
    exceeds the number of samples.
    """

    samples: tuple[AbstractEventSource, ...]
    """The samples. Their parameters do not count."""
    batch_size: int = eqx.field(static=True)
    """How many events of each are drawn for a step."""

    def __check_init__(self):
        """Raise where there is nothing to separate."""
        _check_batch(self.batch_size)
        if len(self.samples) < 2:
            raise ValueError(
                f"There are {len(self.samples)} samples, but a ratio needs at least "
                "two; give one more."
            )

    def __call__(
        self, network: SoftmaxRatio, key: PRNGKeyArray, step: Any = None
    ) -> Float[Array, ""]:
        """The loss of a batch.

        Args:
            network: The network, with one output for each sample.
            key: Random key, which draws the events.
            step: Not used; that of the training.

        Returns:
            The mean cross-entropy, in nats.

        Raises:
            ValueError: The network has another number of outputs, or these are not
                those of a `SoftmaxRatio`.
        """
        del step
        if not isinstance(network, SoftmaxRatio):
            # The loss does not see the constant that makes ratios of logits.
            raise ValueError(
                f"The network is a `{type(network).__name__}`, whose outputs are no "
                "ratios yet; train `SoftmaxRatio(network)`."
            )
        number = len(self.samples)
        losses = []
        for k, sample in enumerate(self.samples):
            one = sample.draw(self.batch_size, key=jax.random.fold_in(key, k))
            none = one.parameters[:, :0]
            logits = _outputs(network, one.features, none, number)
            logs = jax.nn.log_softmax(logits, axis=1)[:, k]
            losses.append(-one.weight.astype(logs.dtype) * logs)
        return jnp.mean(jnp.stack(losses))


class EnsembleLoss(eqx.Module):
    """The loss of an ensemble, whose members see different events.

    A sum: each member gets the gradient that it would get alone.
    """

    loss: BinaryRatioLoss | SoftmaxRatioLoss
    """That of one member."""

    def __call__(
        self, ensemble: RatioEnsemble, key: PRNGKeyArray, step: Any = None
    ) -> Float[Array, ""]:
        """The loss of a batch for each member.

        Args:
            ensemble: The members.
            key: Random key.
            step: Not used; that of the training.

        Returns:
            The sum of the members' losses.
        """
        keys = jax.random.split(key, ensemble.size)
        each = eqx.filter_vmap(lambda member, key: self.loss(member, key, step))
        return jnp.sum(each(ensemble.members, keys))


def _check_batch(size: int) -> None:
    if size < 1:
        raise ValueError(f"`batch_size` is {size}, but a step needs events.")


def _outputs(
    network: LogRatio,
    features: PyTree,
    parameters: Float[Array, "entries parameters"],
    number: int,
) -> Float[Array, "entries {number}"]:
    found = jax.vmap(network)(features, parameters)
    if found.size != parameters.shape[0] * number:
        raise ValueError(
            f"The network's output has the shape {found.shape[1:]}, but there are "
            f"{number} ratios to learn; give the last layer as many outputs."
        )
    return jnp.reshape(found, (-1, number))
