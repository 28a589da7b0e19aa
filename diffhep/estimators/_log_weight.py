"""The algebra of `log_weight`: value the Monte-Carlo weight, derivative the score."""

import jax
import jax.numpy as jnp
from jax.lax import stop_gradient
from jaxtyping import Array, Float, PyTree


def score_term(log_prob: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Zero in value, the score in derivative.

    Args:
        log_prob: Log-probability of the choice made.

    Returns:
        `log_prob - stop_gradient(log_prob)`, the logarithm of the DiCE factor
        (Foerster et al., arXiv 1802.05098).
    """
    return log_prob - stop_gradient(log_prob)


def with_score(
    log_prob: Float[Array, ""], inputs: PyTree, score: PyTree
) -> Float[Array, ""]:
    """A log-probability with a derivative that was computed beside it.

    For a loop that accumulates the score as it goes, which needs neither the memory
    nor the time of reverse mode. First derivatives only.

    Args:
        log_prob: The value.
        inputs: What it depends on (floating-point arrays).
        score: The derivative of `log_prob` to each of `inputs`.

    Returns:
        The value, whose derivative to `inputs` is `score`.
    """
    # The gradient through value and score themselves is dropped: it is what `score` is.
    value, score = stop_gradient((log_prob, score))
    terms = jax.tree.map(
        lambda x, s: jnp.sum(s * (x - stop_gradient(x))), inputs, score
    )
    return value + sum(jax.tree.leaves(terms))


def leave_one_out(terms: Float[Array, " replicas"]) -> Float[Array, " replicas"]:
    r"""The terms of replicas of one event, with leave-one-out baselines.

    For replicas $k = 1 \ldots K$ of weight $1/K$ the derivative of the mean of $f$
    becomes $\sum_k (f_k - \bar f) S_k / (K - 1)$, which is unbiased, where a baseline
    that contains the replica itself would be short by a factor $1 - 1/K$. With
    $w_k = e^{\ln p_k - \bot \ln p_k}$, where $\bot$ stops gradients, the weights become
    $1 + (w_k - 1) - \sum_{j \neq k} (w_j - 1) / (K - 1)$: as the mean of $w_j - 1$ is
    zero in all orders, so are higher derivatives of a weighted sum unbiased.

    Args:
        terms: What each replica's choices added to `log_weight`. Only their scores are
            centred; a value that is not zero is kept.

    Returns:
        Terms of the same value, with derivatives of as many orders as those of `terms`.
    """
    number = terms.shape[0]
    if number < 2:
        raise ValueError(
            f"Leave-one-out baselines need at least 2 replicas, but `num` is {number}; "
            "raise it."
        )
    excess = jnp.expm1(score_term(terms))
    centred = (excess - jnp.mean(excess)) * (number / (number - 1))
    return stop_gradient(terms) + jnp.log1p(centred)
