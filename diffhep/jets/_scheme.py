"""Recombination schemes: the four-momentum of two pseudojets that merge."""

import abc

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..numerics import safe_sqrt, wrap_angle


class AbstractScheme(eqx.Module):
    """How four-momenta are recombined. Elementwise but for the axis of components."""

    @abc.abstractmethod
    def prepare(self, momentum: Float[Array, "4 *shape"]) -> Float[Array, "4 *shape"]:
        """What constituents are taken for.

        Args:
            momentum: Four-momenta (px, py, pz, E), in GeV.

        Returns:
            Four-momenta.
        """

    @abc.abstractmethod
    def merge(
        self, first: Float[Array, "4 *shape"], second: Float[Array, "4 *shape"]
    ) -> Float[Array, "4 *shape"]:
        """What two pseudojets become.

        Args:
            first: Four-momenta (px, py, pz, E), in GeV.
            second: Those that are merged with them.

        Returns:
            Four-momenta; differentiable but where the choice of a winner changes.
        """


class EScheme(AbstractScheme):
    """Sums of four-momenta."""

    def prepare(self, momentum: Float[Array, "4 *shape"]) -> Float[Array, "4 *shape"]:
        """The constituents themselves."""
        return momentum

    def merge(
        self, first: Float[Array, "4 *shape"], second: Float[Array, "4 *shape"]
    ) -> Float[Array, "4 *shape"]:
        """The sum."""
        return first + second


class PtScheme(AbstractScheme):
    """Massless: sums of transverse momenta, which weight rapidity and azimuth.

    fastjet's `pt_scheme` (Cacciari, Salam, Soyez, arXiv 1111.6097, section 3.4).
    """

    def prepare(self, momentum: Float[Array, "4 *shape"]) -> Float[Array, "4 *shape"]:
        """The constituents with the energy of a massless one."""
        px, py, pz, _ = momentum
        return jnp.stack([px, py, pz, safe_sqrt(px**2 + py**2 + pz**2)])

    def merge(
        self, first: Float[Array, "4 *shape"], second: Float[Array, "4 *shape"]
    ) -> Float[Array, "4 *shape"]:
        """A massless momentum in between."""
        pt, other = _pt(first), _pt(second)
        total = pt + other
        # Without transverse momenta it is zero, as in fastjet.
        some = total > 0
        safe = jnp.where(some, total, 1.0)
        (y, phi), (y_other, phi_other) = (_massless(p) for p in (first, second))
        rapidity = jnp.where(some, (pt * y + other * y_other) / safe, 0.0)
        azimuth = phi + other / safe * wrap_angle(phi_other - phi)
        plane = [total * jnp.cos(azimuth), total * jnp.sin(azimuth)]
        along = [total * jnp.sinh(rapidity), total * jnp.cosh(rapidity)]
        return jnp.stack(plane + along)


class WinnerTakeAllPt(AbstractScheme):
    """Sums of transverse momenta, in the direction and with the mass of the harder one.

    fastjet's `WTA_pt_scheme` (Larkoski, Neill, Thaler, arXiv 1401.2158).
    """

    def prepare(self, momentum: Float[Array, "4 *shape"]) -> Float[Array, "4 *shape"]:
        """The constituents themselves."""
        return momentum

    def merge(
        self, first: Float[Array, "4 *shape"], second: Float[Array, "4 *shape"]
    ) -> Float[Array, "4 *shape"]:
        """The harder one, with the sum of both transverse momenta."""
        pt, other = _pt(first), _pt(second)
        hard = jnp.where((pt >= other)[None], first, second)
        most = jnp.maximum(pt, other)
        px, py, pz, energy = hard
        # Of a negative square fastjet takes the magnitude, but not for the rapidity.
        mass2 = (energy + pz) * (energy - pz) - (px**2 + py**2)
        some = most > 0
        # Rapidity and mass stay: both components along the beam grow with mT.
        across = (pt + other) / jnp.where(some, most, 1.0)
        mt2 = jnp.where(some, most**2 + jnp.maximum(mass2, 0.0), 1.0)
        along = safe_sqrt(((pt + other) ** 2 + jnp.abs(mass2)) / mt2)
        scaled = jnp.stack([px * across, py * across, pz * along, energy * along])
        return jnp.where(some[None], scaled, first + second)


class WinnerTakeAllMomentum(AbstractScheme):
    """Sums of momenta, in the direction and with the mass of the harder one: for e+e-.

    fastjet's `WTA_modp_scheme`.
    """

    def prepare(self, momentum: Float[Array, "4 *shape"]) -> Float[Array, "4 *shape"]:
        """The constituents themselves."""
        return momentum

    def merge(
        self, first: Float[Array, "4 *shape"], second: Float[Array, "4 *shape"]
    ) -> Float[Array, "4 *shape"]:
        """The one of larger momentum, with the sum of both magnitudes."""
        size, other = _magnitude(first), _magnitude(second)
        hard = jnp.where((size >= other)[None], first, second)
        most = jnp.maximum(size, other)
        some = most > 0
        factor = (size + other) / jnp.where(some, most, 1.0)
        # The mass stays.
        energy = safe_sqrt(hard[3] ** 2 + (size + other) ** 2 - most**2)
        scaled = jnp.concatenate([hard[:3] * factor[None], energy[None]])
        return jnp.where(some[None], scaled, hard)


def _massless(
    momentum: Float[Array, "4 *shape"],
) -> tuple[Float[Array, "*shape"], Float[Array, "*shape"]]:
    # Rapidity and azimuth, without the cancellation between energy and momentum.
    px, py, pz, _ = momentum
    flat = px**2 + py**2 <= 0
    pt = jnp.where(flat, 1.0, _pt(momentum))
    rapidity = jnp.where(flat, 0.0, jnp.arcsinh(pz / pt))
    return rapidity, jnp.arctan2(py, jnp.where(flat, 1.0, px))


def _pt(momentum: Float[Array, "4 *shape"]) -> Float[Array, "*shape"]:
    return safe_sqrt(momentum[0] ** 2 + momentum[1] ** 2)


def _magnitude(momentum: Float[Array, "4 *shape"]) -> Float[Array, "*shape"]:
    return safe_sqrt(momentum[0] ** 2 + momentum[1] ** 2 + momentum[2] ** 2)
