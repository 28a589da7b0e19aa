"""Energy correlations between the constituents of a jet."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ..numerics import matmul, safe_norm, sanitise
from ._alive import alive_momentum
from ._declustering import separation


class EnergyCorrelations(eqx.Module):
    """Normalised energy correlation functions of a jet, or of several."""

    two: Float[Array, "*jets"]
    """e2, over pairs of constituents."""
    three: Float[Array, "*jets"]
    """e3, over triples."""

    @property
    def c2(self) -> Float[Array, "*jets"]:
        """C2 = e3 / e2^2 (arXiv 1305.0007, equation 11); zero for a lone particle."""
        return _ratio(self.three, self.two**2)

    @property
    def d2(self) -> Float[Array, "*jets"]:
        """D2 = e3 / e2^3 (arXiv 1409.6298, equation 5); zero for a lone particle."""
        return _ratio(self.three, self.two**3)


def energy_correlations(
    momentum: Float[Array, "constituents 4"],
    mask: Bool[Array, " constituents"],
    *,
    beta: float | Float[Array, ""] = 1.0,
) -> EnergyCorrelations:
    r"""The energy correlation functions of a jet (Larkoski, Salam, Thaler, 1305.0007).

    $$e_2 = \sum_{i<j} z_i z_j R_{ij}^\beta, \quad
      e_3 = \sum_{i<j<k} z_i z_j z_k (R_{ij} R_{jk} R_{ki})^\beta,$$

    with $z$ the shares of the constituents in the scalar sum of transverse momenta.
    Differentiable in momenta and `beta`.

    Args:
        momentum: Four-momenta of the constituents of one jet (px, py, pz, E), in GeV.
            Dead slots may hold anything.
        mask: Which slots hold a constituent.
        beta: Power of the angles, positive.

    Returns:
        Both functions.
    """
    share = _shares(momentum, mask)
    safe = alive_momentum(momentum, mask)
    angle = separation(safe[:, None], safe[None])
    # The derivative of a power at zero may diverge; one direction has no angle.
    apart = angle > 0
    power = jnp.where(apart, jnp.where(apart, angle, 1.0) ** beta, 0.0)
    # As a matrix product: the sum over triples is the trace of a third power.
    weighted = share[:, None] * power
    square = matmul(weighted, weighted)
    return EnergyCorrelations(
        two=jnp.sum(weighted * share[None]) / 2,
        three=jnp.sum(square * weighted.T) / 6,
    )


def _shares(
    momentum: Float[Array, "constituents 4"], mask: Bool[Array, " constituents"]
) -> Float[Array, " constituents"]:
    pt = safe_norm(sanitise(momentum, mask)[:, :2])
    return _ratio(pt, jnp.sum(pt))


def _ratio(top: Float[Array, "*shape"], bottom: Float[Array, "*#shape"]) -> Array:
    some = bottom > 0
    return jnp.where(some, top / jnp.where(some, bottom, 1.0), 0.0)
