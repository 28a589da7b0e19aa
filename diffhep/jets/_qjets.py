"""Pruning, and its probabilistic form: Qjets."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.lax import stop_gradient
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from ..numerics import masked_sum, safe_norm, safe_sqrt
from ._alive import alive_momentum
from ._declustering import separation
from ._grooming import GroomedJet


class Qjet(eqx.Module):
    """A jet of one random clustering, pruned on the way."""

    momentum: Float[Array, " 4"]
    """Four-momentum (px, py, pz, E), in GeV; pathwise in those of the constituents."""
    membership: Bool[Array, " constituents"]
    """Which constituents are left."""
    log_prob: Float[Array, ""]
    """Log-probability of the clustering. Its derivative is the score."""


class _Distances(eqx.Module):
    """How two pseudojets are compared."""

    exp_min: float
    exp_max: float
    rigidity: Float[Array, ""] | None
    truncation: float = eqx.field(static=True)


def prune(
    momentum: Float[Array, "constituents 4"],
    mask: Bool[Array, " constituents"],
    *,
    zcut: float = 0.1,
    dcut_factor: float = 0.5,
) -> GroomedJet:
    r"""A jet after pruning with Cambridge/Aachen (Ellis et al., arXiv 0912.0033).

    Of two that are to merge, farther apart than $2 f m / p_T$ of the jet, the softer is
    thrown away if it has less than `zcut` of the transverse momentum of their sum.

    Args:
        momentum: Four-momenta of the constituents of one jet (px, py, pz, E), in GeV.
            Dead slots may hold anything.
        mask: Which slots hold a constituent.
        zcut: Least share of the softer.
        dcut_factor: The factor f.

    Returns:
        What is left. Which constituents that is is a choice without gradient.
    """
    rule = _Distances(0.0, 0.0, None, 0.0)
    result = _recombine(
        stop_gradient(alive_momentum(momentum, mask)),
        mask,
        rule,
        (zcut, dcut_factor),
        jax.random.key(0),
    )
    return GroomedJet(masked_sum(momentum, result[0]), result[0])


def sample_qjet(
    momentum: Float[Array, "constituents 4"],
    mask: Bool[Array, " constituents"],
    *,
    rigidity: Float[Array, ""],
    zcut: float = 0.1,
    dcut_factor: float = 0.5,
    exp_min: float = 0.0,
    exp_max: float = 0.0,
    truncation: float = 0.0,
    key: PRNGKeyArray,
) -> Qjet:
    r"""A jet clustered at random and pruned (Ellis et al., arXiv 1201.1914).

    In each step a pair is drawn with a probability proportional to $\exp(-\alpha (d -
    d_\mathrm{min}) / d_\mathrm{min})$, where $d = \min(p_T)^a \max(p_T)^b \Delta R^2$,
    and merged, or its softer one thrown away as in `prune`. There are no beams: all
    constituents are those of one jet. The time grows with the cube of their number.

    Args:
        momentum: Four-momenta of the constituents of one jet (px, py, pz, E), in GeV;
            of about 50 subjets at most, in the paper. Dead slots may hold anything.
        mask: Which slots hold a constituent.
        rigidity: The rigidity alpha, positive.
        zcut: Least share of the softer.
        dcut_factor: The factor f of the angle 2 f m / pT beyond which that holds.
        exp_min: The power a of the smaller transverse momentum: 0 Cambridge/Aachen, 2
            kt.
        exp_max: The power b of the larger.
        truncation: Pairs are considered in the order of their distance until the
            probability of one, among those so is below this. The score is that of
            the truncated distribution.
        key: Random key.

    Returns:
        The jet. Its membership is a draw, the derivative of its log-probability the
        score: hand it to `estimators.score_term`.
    """
    if not 0 <= truncation < 1:
        raise ValueError(
            f"`truncation` is {truncation}, but must be at least 0 and below 1; the "
            "paper recommends values up to 0.01."
        )
    rule = _Distances(exp_min, exp_max, rigidity, truncation)
    cuts = (zcut, dcut_factor)
    inside, log_prob = _recombine(alive_momentum(momentum, mask), mask, rule, cuts, key)
    return Qjet(masked_sum(momentum, inside), inside, log_prob)


def mass_volatility(
    masses: Float[Array, " draws"], weight: Float[Array, " draws"] | None = None
) -> Float[Array, ""]:
    """The width of a jet's mass over its Qjets, in units of its mean.

    Args:
        masses: Mass of each draw, in GeV.
        weight: Weights; all the same unless given.

    Returns:
        The volatility (arXiv 1201.1914, equation 4): standard deviation over mean.
    """
    weight = jnp.ones_like(masses) if weight is None else weight
    total = jnp.sum(weight)
    mean = jnp.sum(weight * masses) / total
    return safe_sqrt(jnp.sum(weight * (masses - mean) ** 2) / total) / mean


_State = tuple[
    Float[Array, "constituents 4"],
    Bool[Array, " constituents"],
    Int[Array, " constituents"],
]


def _recombine(
    momentum: Float[Array, "constituents 4"],
    mask: Bool[Array, " constituents"],
    rule: _Distances,
    cuts: tuple[float, float],
    key: PRNGKeyArray,
) -> tuple[Bool[Array, " constituents"], Float[Array, ""]]:
    slots = jnp.arange(mask.shape[0], dtype=jnp.int32)
    zcut, factor = cuts
    whole = masked_sum(momentum, mask)
    mass2 = whole[3] ** 2 - jnp.sum(whole[:3] ** 2)
    pt2 = jnp.sum(whole[:2] ** 2)
    # Cuts are choices: no gradient flows through them.
    reach2 = stop_gradient(4 * factor**2 * mass2 / jnp.where(pt2 > 0, pt2, 1.0))

    def step(state: _State, key: PRNGKeyArray) -> tuple[_State, Float[Array, ""]]:
        momenta, alive, holder = state
        pairs = alive[:, None] & alive[None] & (slots[:, None] < slots[None])
        some = jnp.any(pairs)
        # A step that is not taken: let one candidate be left, so that nothing diverges.
        pairs |= ~some & (slots[:, None] == 0) & (slots[None] == 0)
        place, log_prob = _draw(momenta, pairs, rule, key)
        one, other = jnp.divmod(place.astype(slots.dtype), mask.shape[0])
        pt = safe_norm(stop_gradient(momenta)[:, :2])
        softer = jnp.where(pt[one] > pt[other], other, one)
        angle = separation(*stop_gradient((momenta[one], momenta[other])))
        share = pt[softer] / safe_norm(stop_gradient(momenta[one] + momenta[other])[:2])
        cut = (angle**2 > reach2) & (share < zcut)
        # Merged into the first; or the softer one is thrown away.
        ended = jnp.where(cut, softer, other)
        merged = momenta.at[one].add(jnp.where(cut, 0.0, momenta[other]))
        new = jnp.where(cut, -1, one)
        after = (
            jnp.where(some, merged, momenta),
            alive & ~(some & (slots == ended)),
            jnp.where(some & (holder == ended), new, holder),
        )
        return after, jnp.where(some, log_prob, 0.0)

    keys = jax.random.split(key, max(mask.shape[0] - 1, 1))
    start = (momentum, mask, jnp.where(mask, slots, -1))
    (_, _, holder), log_probs = jax.lax.scan(step, start, keys)
    return holder >= 0, jnp.sum(log_probs)


def _draw(
    momenta: Float[Array, "constituents 4"],
    pairs: Bool[Array, "constituents constituents"],
    rule: _Distances,
    key: PRNGKeyArray,
) -> tuple[Int[Array, ""], Float[Array, ""]]:
    # The flat index of the pair, and its log-probability.
    pt = safe_norm(momenta[:, :2])
    small, large = (
        jnp.minimum(pt[:, None], pt[None]),
        jnp.maximum(pt[:, None], pt[None]),
    )
    distance = separation(momenta[:, None], momenta[None]) ** 2
    distance = distance * small**rule.exp_min * large**rule.exp_max
    distance = jnp.ravel(jnp.where(pairs, distance, jnp.inf))
    if rule.rigidity is None:
        return jnp.argmin(distance), jnp.zeros((), distance.dtype)
    # One direction merges for certain; the floor keeps the ratio finite, and its
    # derivative, in which it is squared.
    least = jnp.maximum(jnp.min(distance), jnp.finfo(distance.dtype).tiny ** 0.4)
    allowed = jnp.ravel(pairs)
    ratio = jnp.where(allowed, distance, least) / least
    logits = jnp.where(allowed, -rule.rigidity * (ratio - 1), -jnp.inf)
    if rule.truncation > 0:
        weight = jnp.sort(stop_gradient(jnp.exp(logits)), descending=True)
        going_on = weight >= rule.truncation * jnp.cumsum(weight)
        last = weight[jnp.minimum(jnp.sum(going_on), weight.shape[0] - 1)]
        logits = jnp.where(jnp.exp(logits) >= last, logits, -jnp.inf)
    place = jax.random.categorical(key, stop_gradient(logits))
    return place, logits[place] - jax.nn.logsumexp(logits)
