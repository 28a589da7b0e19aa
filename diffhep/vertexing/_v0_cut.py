"""What V0s may be, and a soft selection of them."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..numerics import safe_sqrt


V0_HYPOTHESES = ("K_S", "Lambda", "anti-Lambda", "photon")
"""What a V0 may be: the axis `hypotheses` of `V0s`."""

_PION, _PROTON, _ELECTRON = 0.13957039, 0.93827209, 0.00051099895
# Masses in GeV (Particle Data Group 2022): of the positive track, the negative one, and
# what decays.
_POSITIVE = (_PION, _PROTON, _PION, _ELECTRON)
_NEGATIVE = (_PION, _PION, _PROTON, _ELECTRON)
_PARENT = (0.497611, 1.115683, 1.115683, 0.0)


def _number(value: float) -> Any:
    return eqx.field(default_factory=lambda: jnp.asarray(value))


class V0Cut(eqx.Module):
    """A soft selection of V0s: a product of smooth steps, each 1/2 at its threshold."""

    displacement: Float[Array, ""] = _number(3.0)
    """Least distance of each track from the primary vertex, in standard deviations."""
    vertex: Float[Array, ""] = _number(3.0)
    """Largest distance of the tracks from each other, in standard deviations."""
    pointing: Float[Array, ""] = _number(4.0)
    """Largest distance by which the momentum misses the primary vertex, likewise."""
    flight: Float[Array, ""] = _number(5.0)
    """Least flight, likewise."""
    mass_window: Float[Array, " hypotheses"] = eqx.field(
        default_factory=lambda: jnp.asarray([0.02, 0.008, 0.008, 0.03])
    )
    """Largest distance of the mass from that of the hypothesis, in GeV."""
    softness: Float[Array, ""] = _number(0.2)
    """Width of the steps, as a part of the squares of the thresholds."""

    @property
    def nominal(self) -> Float[Array, " hypotheses"]:
        """The masses of the hypotheses, in GeV."""
        return jnp.asarray(_PARENT, self.mass_window.dtype)


def invariant_masses(
    momenta: Float[Array, "2 3"],
) -> Float[Array, " hypotheses"]:
    """The mass of two particles by each hypothesis.

    Args:
        momenta: Momenta, in GeV; of the positive track first.

    Returns:
        Masses, in GeV.
    """
    first, second = momenta
    square_1, square_2 = jnp.sum(first**2), jnp.sum(second**2)
    one = jnp.square(jnp.asarray(_POSITIVE, momenta.dtype))
    other = jnp.square(jnp.asarray(_NEGATIVE, momenta.dtype))
    energies = jnp.sqrt(square_1 + one) * jnp.sqrt(square_2 + other)
    return safe_sqrt(one + other + 2 * (energies - jnp.sum(first * second)))


def v0_weight(
    cut: V0Cut,
    *,
    displacement: Float[Array, "candidates 2"],
    chi2: Float[Array, " candidates"],
    miss: Float[Array, " candidates"],
    flight: Float[Array, " candidates"],
    mass: Float[Array, "candidates hypotheses"],
) -> Float[Array, "candidates hypotheses"]:
    """How well candidates pass the selection.

    Args:
        cut: The selection.
        displacement: Squared distance of each track from the primary vertex, in
            standard deviations.
        chi2: Chi-squared of the vertex.
        miss: Chi-squared of coming from the primary vertex.
        flight: Flight, in standard deviations; negative against the momentum.
        mass: Mass by each hypothesis, in GeV.

    Returns:
        Weights, 0 to 1.
    """
    quality = (
        jnp.prod(_step(displacement / cut.displacement**2 - 1, cut), axis=1)
        * _step(1 - chi2 / cut.vertex**2, cut)
        * _step(1 - miss / cut.pointing**2, cut)
        * _step(flight / cut.flight - 1, cut)
    )
    off = (mass - cut.nominal[None, :]) / cut.mass_window[None, :]
    return quality[:, None] * _step(1 - off**2, cut)


def _step(x: Float[Array, "*shape"], cut: V0Cut) -> Float[Array, "*shape"]:
    return jax.nn.sigmoid(x / cut.softness)
