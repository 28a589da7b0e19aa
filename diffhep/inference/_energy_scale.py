"""The jet energy scale as a systematic variation of one event."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ..event import Event, Jets
from ..numerics import safe_norm, smooth_step


def scale_factors(jes_width: Float[Array, ""]) -> Float[Array, " variations"]:
    """The factors on the jets' four-momenta: nominal, up, down.

    Args:
        jes_width: Relative uncertainty of the jet energy scale.

    Returns:
        `1, 1 + jes_width, 1 - jes_width`.
    """
    return jnp.stack([jnp.ones_like(jes_width), 1 + jes_width, 1 - jes_width])


def scale_jets(
    momentum: Float[Array, "jets 4"],
    weight: Float[Array, " jets"],
    missing_momentum: Float[Array, " 2"],
    factor: Float[Array, ""],
) -> tuple[Float[Array, "jets 4"], Float[Array, " 2"]]:
    """Jets with another energy scale, and the missing momentum that goes with them.

    What the jets gain the missing momentum loses, each jet with its weight, so that a
    jet at the threshold shifts it without a step.

    Args:
        momentum: Four-momenta (px, py, pz, E), in GeV; no NaN.
        weight: How much each jet counts at the nominal scale, 0 to 1.
        missing_momentum: Missing transverse momentum (x, y), in GeV.
        factor: Factor on each four-momentum.

    Returns:
        Four-momenta and missing transverse momentum, in GeV.
    """
    change = (factor - 1) * jnp.sum(weight[:, None] * momentum[:, :2], axis=0)
    return factor * momentum, missing_momentum - change


def jet_weight(
    momentum: Float[Array, "jets 4"],
    mask: Bool[Array, " jets"],
    *,
    threshold: float,
    width: float,
) -> Float[Array, " jets"]:
    """How much each jet counts: exactly 0 below the threshold, 1 a width above it.

    Args:
        momentum: Four-momenta (px, py, pz, E), in GeV; no NaN.
        mask: Which slots hold a jet.
        threshold: Transverse momentum at which a jet begins to count, in GeV.
        width: Further transverse momentum until it counts fully, in GeV.

    Returns:
        The weights; zero in dead slots.
    """
    transverse = safe_norm(momentum[:, :2])
    return jnp.where(mask, smooth_step((transverse - threshold) / width), 0.0)


def required(event: Event) -> tuple[Jets, Float[Array, " 2"]]:
    """The jets and the missing momentum of an event.

    Args:
        event: One event.

    Returns:
        Both.

    Raises:
        ValueError: One of them is not filled.
    """
    if event.jets is None or event.missing_momentum is None:
        raise ValueError(
            "The event lacks `jets` or `missing_momentum`; run `ClusterJets` and "
            "`MeasureMissingMomentum` before."
        )
    return event.jets, event.missing_momentum
