"""How well a tagger tells flavours, in the numbers that experiments publish."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ._jet_tracks import BOTTOM, CHARM, LIGHT


class Rejection(eqx.Module):
    """One over the fraction of background jets that pass, and its statistical error."""

    value: Float[Array, ""]
    """Infinite where no background jet passes."""
    error: Float[Array, ""]
    """One standard deviation, from the numbers of both, signal and background."""


def discriminant(
    flavour: Float[Array, "jets flavours"], *, charm_fraction: float
) -> Float[Array, " jets"]:
    r"""The b-tagging discriminant $D_b$.

    $$D_b = \ln\frac{p_b}{f_c\,p_c + (1 - f_c)\,p_u}.$$

    Args:
        flavour: Logits of light, charm and bottom.
        charm_fraction: The fraction $f_c$ of charm in the background, between 0 and 1.

    Returns:
        The discriminant of each jet.

    Raises:
        ValueError: `charm_fraction` is not between 0 and 1.
    """
    if not 0 < charm_fraction < 1:
        raise ValueError(
            f"`charm_fraction` is {charm_fraction}; give a number between 0 and 1, for "
            "example 0.05."
        )
    share = jnp.log(jnp.asarray([1 - charm_fraction, charm_fraction], flavour.dtype))
    log_p = jax.nn.log_softmax(flavour, axis=1)
    background = jnp.stack([log_p[:, LIGHT], log_p[:, CHARM]], axis=1) + share[None]
    return log_p[:, BOTTOM] - jax.nn.logsumexp(background, axis=1)


def rejection(
    scores: Float[Array, " jets"],
    flavours: Int[Array, " jets"],
    *,
    efficiency: float,
    signal: int = BOTTOM,
    background: int = LIGHT,
) -> Rejection:
    r"""The rejection of one flavour at a given efficiency for another.

    With $N_b$ background jets, of which a fraction $\varepsilon_b$ passes, and $N_s$
    signal jets, the relative error is

    $$\sqrt{\frac{1-\varepsilon_b}{N_b\,\varepsilon_b}
      + \Bigl(\frac{d\ln\varepsilon_b}{d\varepsilon_s}\Bigr)^2
        \frac{\varepsilon_s(1-\varepsilon_s)}{N_s}},$$

    the second term from the threshold, whose derivative is a difference over two
    standard deviations of the efficiency. It neglects the training's own fluctuations.

    Args:
        scores: The discriminant, larger for signal.
        flavours: True flavours.
        efficiency: Fraction of the signal that passes, between 0 and 1.
        signal: The flavour that is to pass.
        background: The flavour that is to be rejected.

    Returns:
        The rejection.

    Raises:
        ValueError: The efficiency is not between 0 and 1.
    """
    if not 0 < efficiency < 1:
        raise ValueError(
            f"`efficiency` is {efficiency}; give a number between 0 and 1, as 0.7."
        )
    wanted, others = flavours == signal, flavours == background
    spread = jnp.sqrt(efficiency * (1 - efficiency) / _count(wanted, scores))
    passed, above, below = (
        _count(
            others & (scores > _threshold(scores, wanted, efficiency + step)), scores
        )
        for step in (0.0, spread, -spread)
    )
    fraction = passed / _count(others, scores)
    # The logarithm's change over one standard deviation of the efficiency.
    moved = (above - below) / (2 * jnp.maximum(passed, 1))
    error = jnp.sqrt((1 - fraction) / jnp.maximum(passed, 1) + moved**2)
    return Rejection(1 / fraction, error / fraction)


def roc_curve(
    scores: Float[Array, " jets"],
    flavours: Int[Array, " jets"],
    *,
    efficiencies: Float[Array, " points"],
    signal: int = BOTTOM,
    background: int = LIGHT,
) -> Float[Array, " points"]:
    """The fraction of one flavour that passes, for given efficiencies for another.

    Args:
        scores: The discriminant, larger for signal.
        flavours: True flavours.
        efficiencies: Fractions of the signal that pass.
        signal: The flavour that is to pass.
        background: The flavour that is to be rejected.

    Returns:
        The fractions of the background.
    """
    wanted, others = flavours == signal, flavours == background

    def one(efficiency: Float[Array, ""]) -> Float[Array, ""]:
        threshold = _threshold(scores, wanted, efficiency)
        passed = _count(others & (scores > threshold), scores)
        return passed / _count(others, scores)

    return jax.lax.map(one, efficiencies)


def _count(chosen: Bool[Array, " jets"], like: Array) -> Float[Array, ""]:
    return jnp.sum(chosen.astype(like.dtype))


def _threshold(
    scores: Float[Array, " jets"],
    wanted: Bool[Array, " jets"],
    efficiency: Float[Array, ""] | float,
) -> Float[Array, ""]:
    # This fraction of the signal lies above, to one jet.
    ordered = jnp.sort(jnp.where(wanted, scores, jnp.inf))
    rest = jnp.round((1 - efficiency) * _count(wanted, scores))
    place = rest.astype(jnp.int32) - 1
    below = ordered[jnp.clip(place, 0, scores.shape[0] - 1)]
    return jnp.where(place < 0, -jnp.inf, below)
