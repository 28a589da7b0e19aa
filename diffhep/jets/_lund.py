"""The Lund plane of a jet."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ..numerics import safe_norm
from ._declustering import Splittings, separation


class LundPlane(eqx.Module):
    """The coordinates of splittings, one per step of the history."""

    angle: Float[Array, " steps"]
    """Distance Delta of the two branches."""
    kt: Float[Array, " steps"]
    """Transverse momentum of the softer branch about the harder, in GeV."""
    fraction: Float[Array, " steps"]
    """Share z of the softer branch in the sum of their transverse momenta."""
    mask: Bool[Array, " steps"]
    """Which steps hold a splitting of the primary plane."""


def lund_plane(splittings: Splittings) -> LundPlane:
    """The primary Lund plane (Dreyer, Salam, Soyez, arXiv 1807.04758, equation 2.2).

    Of a history found with Cambridge/Aachen, whose splittings are ordered in angle.
    Pathwise in the momenta, for a fixed history.

    Args:
        splittings: The splittings of one jet or of several.

    Returns:
        The coordinates; zero in steps without a primary splitting.
    """
    valid = splittings.mask & splittings.primary
    softer, harder = (
        safe_norm(p[:, :2]) for p in (splittings.softer, splittings.harder)
    )
    angle = separation(splittings.harder, splittings.softer)
    total = jnp.where(valid, softer + harder, 1.0)
    return LundPlane(
        angle=jnp.where(valid, angle, 0.0),
        kt=jnp.where(valid, softer * angle, 0.0),
        fraction=jnp.where(valid, softer / total, 0.0),
        mask=valid,
    )
