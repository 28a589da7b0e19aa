import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..pipeline import Sample


def cross_entropy(sample: Sample) -> Float[Array, ""]:
    """The balanced binary cross-entropy of the log-ratio, to train it with.

    Each process has total weight one half, whatever its yield. The minimum is at
    log_ratio = log(p1 / p0), the densities being those of selected events if the events
    have a `pass_weight`. Consistent, with a bias of order one over the number of
    entries.

    Args:
        sample: Events with `log_ratio` and `label`. The nominal variation counts.

    Returns:
        The cross-entropy, in nats: log(2) for a log-ratio that knows nothing.

    Raises:
        ValueError: The events lack a field.
    """
    events = sample.events
    if events.log_ratio is None or events.label is None:
        raise ValueError(
            "The sample lacks `log_ratio` or `label`; name them in `keep` when you "
            "call `run`."
        )
    logit, label = events.log_ratio[:, 0], events.label
    log_weight = events.log_weight
    weight = jnp.exp(log_weight - jax.lax.stop_gradient(jnp.max(log_weight)))
    if events.pass_weight is not None:
        weight = weight * events.pass_weight[:, 0]
    losses = -jnp.stack([jax.nn.log_sigmoid(-logit), jax.nn.log_sigmoid(logit)])
    share = jnp.stack([weight * (1 - label), weight * label])
    total = jnp.sum(share, axis=1)
    mean = jnp.sum(share * losses, axis=1) / jnp.where(total > 0, total, 1.0)
    return jnp.mean(mean)
