"""How far apart pseudojets are, and what they weigh: of hadron and lepton colliders."""

import abc
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..numerics import safe_sqrt
from ._distance import coordinates_of, largest_distance, plane_distance2


class Coordinates(NamedTuple):
    """Where a pseudojet is, and what it weighs."""

    place: tuple[Array, ...]
    weight: Array


class AbstractMetric(eqx.Module):
    r"""In which coordinates a generalised-kt algorithm works.

    With all distances multiplied by the square of the radius (or what stands for it),
    that of a pair is $\min(w_i, w_j) \Delta^2_{ij}$, and that to the beam $w_i$ times
    that square. Arrays of any shape; elementwise but for the axis of components.
    """

    @abc.abstractmethod
    def coordinates(
        self, momentum: Float[Array, "4 *shape"], power: Float[Array, "*#shape"]
    ) -> Coordinates:
        """The coordinates of pseudojets.

        Args:
            momentum: Four-momenta (px, py, pz, E), in GeV.
            power: The power p of the algorithm.

        Returns:
            Their places, and their weights (size to the power 2p, in GeV^2p).
        """

    @abc.abstractmethod
    def apart2(
        self, first: tuple[Array, ...], second: tuple[Array, ...]
    ) -> Float[Array, "..."]:
        """The squared distance of two places.

        Args:
            first: Places of pseudojets.
            second: Places of others.

        Returns:
            The distances, squared.
        """

    @abc.abstractmethod
    def reach2(self, radius: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """The squared distance from which on the beam is nearer.

        Args:
            radius: The jet radius R.

        Returns:
            The square.
        """

    @abc.abstractmethod
    def size(self, momentum: Float[Array, "4 *shape"]) -> Float[Array, "*shape"]:
        """What jets are sorted by.

        Args:
            momentum: Four-momenta (px, py, pz, E), in GeV.

        Returns:
            Transverse momenta or energies, in GeV.
        """


class RapidityAzimuth(AbstractMetric):
    r"""Hadron colliders: $\Delta y^2 + \Delta\phi^2$, and transverse momenta.

    Cacciari, Salam, Soyez, arXiv 0802.1189, equation 1.
    """

    def coordinates(
        self, momentum: Float[Array, "4 *shape"], power: Float[Array, "*#shape"]
    ) -> Coordinates:
        """Rapidity and azimuth (in rad); the transverse momentum's power."""
        rapidity, azimuth, weight = coordinates_of(momentum, power)
        return Coordinates((rapidity, azimuth), weight)

    def apart2(
        self, first: tuple[Array, ...], second: tuple[Array, ...]
    ) -> Float[Array, "..."]:
        """The squared distance in the plane."""
        return plane_distance2(first, second)

    def reach2(self, radius: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """The square of the radius."""
        return radius**2

    def size(self, momentum: Float[Array, "4 *shape"]) -> Float[Array, "*shape"]:
        """The transverse momentum."""
        return safe_sqrt(momentum[0] ** 2 + momentum[1] ** 2)


class EnergyAngle(AbstractMetric):
    r"""Lepton colliders: $2 (1 - \cos\theta)$, and energies.

    The e+e- algorithms of fastjet (Cacciari, Salam, Soyez, arXiv 1111.6097, section
    4.5), with the radius an angle in rad. With a power of 1 and an infinite radius it
    is Durham's (Catani et al., Phys. Lett. B 269 (1991) 432): no pair is farther apart
    than the beam, and the jets are what is left when the clustering is stopped
    (`exclusive_jets`).
    """

    def coordinates(
        self, momentum: Float[Array, "4 *shape"], power: Float[Array, "*#shape"]
    ) -> Coordinates:
        """The three components of the direction; the energy's power."""
        px, py, pz, energy = momentum
        square = px**2 + py**2 + pz**2
        # At rest there is no direction: fastjet takes that of the beam.
        rest = square <= 0
        length = jnp.sqrt(jnp.where(rest, 1.0, square))
        place = (px / length, py / length, jnp.where(rest, 1.0, pz / length))
        tiny = jnp.finfo(square.dtype).tiny
        empty = energy**2 <= tiny
        log = jnp.log(jnp.where(empty, tiny, energy**2))
        # No distance may exceed what stands for none at all.
        most = largest_distance(square) / 100
        return Coordinates(place, jnp.minimum(jnp.exp(power * log), most))

    def apart2(
        self, first: tuple[Array, ...], second: tuple[Array, ...]
    ) -> Float[Array, "..."]:
        """Two minus twice the cosine of the angle between, without cancellation."""
        x, y, z = (a - b for a, b in zip(first, second, strict=True))
        return x**2 + y**2 + z**2

    def reach2(self, radius: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Two minus twice the cosine; beyond pi, above all distances, as in fastjet."""
        endless = radius == jnp.inf
        angle = jnp.where(endless, 0.0, radius)
        wide = 2 * (3 + jnp.cos(angle))
        # A difference of cosines would lose the digits of a small radius.
        square = jnp.where(angle > jnp.pi, wide, 4 * jnp.sin(angle / 2) ** 2)
        return jnp.where(endless, 16.0, square)

    def size(self, momentum: Float[Array, "4 *shape"]) -> Float[Array, "*shape"]:
        """The energy."""
        return momentum[3]
