import math

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float


ELECTRON_MASS = 0.51099895e-3
"""Mass of the electron, in GeV (Particle Data Group 2024)."""

_K = 0.307075e-3
"""Coefficient of the Bethe formula, in GeV cm^2 / mol."""


class Ionisation(eqx.Module):
    """How much energy a charged particle loses in a material; silicon by default.

    All material of a layer, services included, is taken to be of this kind.

    Constants of silicon and of its density effect: Particle Data Group, Atomic and
    Nuclear Properties of Materials (Sternheimer, Berger and Seltzer, At. Data Nucl.
    Data Tables 30 (1984) 261).
    """

    radiation_length: float = 21.82
    """Radiation length, in g/cm^2."""
    charge_per_mass: float = 0.49848
    """Atomic number over molar mass, in mol/g."""
    excitation: float = 173e-9
    """Mean excitation energy, in GeV."""
    plasma: float = 31.05e-9
    """Plasma energy, in GeV."""
    density_start: float = 0.2015
    """Where the density effect begins, as a decimal logarithm of beta gamma."""
    density_end: float = 2.8716
    """Where it reaches its asymptote."""
    density_factor: float = 0.14921
    """Factor of the power in between."""
    density_power: float = 3.2546
    """That power."""

    def mean(
        self,
        thickness: Float[Array, "*shape"],
        momentum: Float[Array, ""],
        mass: Float[Array, ""] | float,
    ) -> Float[Array, "*shape"]:
        """The mean energy loss of a particle of unit charge.

        The Bethe formula (Review of Particle Physics, eq. 34.5) for particles heavier
        than the electron, without radiation.

        Args:
            thickness: Material along the path, in radiation lengths.
            momentum: Momentum, in GeV.
            mass: Mass, in GeV.

        Returns:
            The mean loss, in GeV.
        """
        gamma = jnp.sqrt(1 + (momentum / mass) ** 2)
        square = (momentum / mass) ** 2
        beta2 = square / (1 + square)
        ratio = ELECTRON_MASS / mass
        most = 2 * ELECTRON_MASS * square / (1 + 2 * gamma * ratio + ratio**2)
        logarithm = jnp.log(2 * ELECTRON_MASS * square * most / self.excitation**2) / 2
        bracket = logarithm - beta2 - self._density_effect(square) / 2
        return self._scale(thickness) * bracket / beta2

    def width(
        self,
        thickness: Float[Array, "*shape"],
        momentum: Float[Array, ""],
        mass: Float[Array, ""] | float,
    ) -> Float[Array, "*shape"]:
        """The width of the loss: that of a Gaussian as wide as Landau's distribution.

        Args:
            thickness: Material along the path, in radiation lengths.
            momentum: Momentum, in GeV.
            mass: Mass, in GeV.

        Returns:
            The standard deviation, in GeV: Landau's full width at half maximum, four
            times his parameter, over 2.355, as in ACTS.
        """
        square = (momentum / mass) ** 2
        landau = self._scale(thickness) / 2 * (1 + square) / square
        return 4 * landau / (2 * math.sqrt(2 * math.log(2)))

    def _scale(self, thickness: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return _K * self.charge_per_mass * self.radiation_length * thickness

    def _density_effect(self, square: Float[Array, ""]) -> Float[Array, ""]:
        # Sternheimer's parametrisation of delta, with the plasma energy in place of C.
        place = jnp.log10(square) / 2
        constant = 1 + 2 * math.log(self.excitation / self.plasma)
        high = jnp.log(square) - constant
        rest = jnp.clip(self.density_end - place, 0.0, None)
        between = high + self.density_factor * rest**self.density_power
        return jnp.where(place > self.density_start, between, 0.0)


def lose_energy(
    charge_over_momentum: Float[Array, "*shape"],
    loss: Float[Array, "*shape"],
    mass: Float[Array, ""] | float,
) -> Float[Array, "*shape"]:
    """Charge over momentum after a loss of energy.

    Args:
        charge_over_momentum: That before, in 1/GeV.
        loss: The loss, in GeV. At most nine tenths of the momentum are lost.
        mass: Mass of the particle, in GeV.

    Returns:
        That after, in 1/GeV.
    """
    # No track has more than a million GeV.
    momentum = 1 / jnp.maximum(jnp.abs(charge_over_momentum), 1e-6)
    energy = jnp.sqrt(momentum**2 + mass**2)
    loss = jnp.minimum(loss, energy - jnp.sqrt(momentum**2 / 100 + mass**2))
    left = jnp.sqrt(momentum**2 - loss * (2 * energy - loss))
    return charge_over_momentum * momentum / left
