import jax.numpy as jnp
from jax.lax import stop_gradient
from jaxtyping import Array, Float

from ._baselines import AbstractBaseline, LeaveOneOut
from ._log_weight import score_term


def surrogate(
    values: Float[Array, "events replicas"],
    log_prob: Float[Array, "events replicas"],
    *,
    baseline: AbstractBaseline | None = None,
) -> Float[Array, ""]:
    r"""The mean of `values`, whose derivatives of any order estimate those of $E[f]$.

    DiCE (Foerster et al., arXiv 1802.05098) with a baseline: the mean of
    $(f - b) \exp(\ln p - \bot \ln p) + b$, where $\bot$ stops gradients. As each
    derivative of $\exp(\ln p - \bot \ln p)$ has the mean zero, a baseline that does
    not depend on the draw keeps all orders unbiased: `LeaveOneOut` and `NoBaseline`
    are, `BatchMean` is short by one over the number of values.

    Args:
        values: Results f of replicas of events, drawn independently; derivatives along
            their path count.
        log_prob: Log-probability of each draw, differentiable to the order that is
            wanted: `jets.history_log_prob` is to any, `with_score` to the first.
        baseline: What b is; `LeaveOneOut` unless given.

    Returns:
        The mean.
    """
    baseline = LeaveOneOut() if baseline is None else baseline
    # The baseline's own derivative multiplies what is zero, or has the mean zero.
    level = stop_gradient(baseline.of(values))
    factor = jnp.exp(score_term(log_prob))
    return jnp.mean((values - level) * factor + level)
