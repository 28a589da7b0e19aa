"""Which jet a track belongs to: the nearest one, or the one that its ghost joins."""

import jax.numpy as jnp
from jax.lax import stop_gradient
from jaxtyping import Array, Bool, Float, Int

from ..event import Jets
from ._alive import alive_momentum
from ._declustering import separation


def nearest_jet(
    jets: Jets,
    momentum: Float[Array, "tracks 4"],
    mask: Bool[Array, " tracks"],
    *,
    max_angle: float = 0.4,
) -> Int[Array, " tracks"]:
    """The jet nearest to each track in the plane of rapidity and azimuth.

    Args:
        jets: The jets.
        momentum: Four-momenta of the tracks (px, py, pz, E), in GeV. Dead slots may
            hold anything.
        mask: Which slots hold a track.
        max_angle: How far away a jet may be.

    Returns:
        The slots of the jets; -1 for tracks without one, and for dead slots. A choice
        without gradient.
    """
    axes = alive_momentum(jets.momentum, jets.mask)
    tracks = alive_momentum(momentum, mask)
    angle = stop_gradient(separation(tracks[:, None], axes[None]))
    angle = jnp.where(jets.mask[None], angle, jnp.inf)
    found = mask & (jnp.min(angle, axis=1) < max_angle)
    return jnp.where(found, jnp.argmin(angle, axis=1).astype(jnp.int32), -1)


def add_ghosts(
    momentum: Float[Array, "constituents 4"],
    mask: Bool[Array, " constituents"],
    ghosts: Float[Array, "ghosts 4"],
    ghost_mask: Bool[Array, " ghosts"],
) -> tuple[Float[Array, "all 4"], Bool[Array, " all"]]:
    """Constituents, and after them ghosts that jets take in without being changed.

    Clustered together, `Jets.membership` says of each ghost which jet it is in: for
    tracks or b hadrons this is ghost association (Cacciari, Salam, arXiv 0707.1378);
    for a grid of directions (`ghost_grid`) their number is the jet's active area.

    Args:
        momentum: Four-momenta of the constituents (px, py, pz, E), in GeV. Dead slots
            may hold anything.
        mask: Which slots hold a constituent.
        ghosts: Four-momenta whose directions the ghosts shall have.
        ghost_mask: Which slots hold one.

    Returns:
        Momenta and mask of both, the ghosts last. Their transverse momentum is 1e-61
        GeV in double precision and 2e-8 GeV in single.
    """
    safe = alive_momentum(ghosts, ghost_mask)
    pt = jnp.sqrt(safe[:, 0] ** 2 + safe[:, 1] ** 2)
    least = jnp.finfo(momentum.dtype).tiny ** 0.2
    soft = safe * (least / jnp.where(pt > 0, pt, 1.0))[:, None]
    together = jnp.concatenate([alive_momentum(momentum, mask), soft])
    return together, jnp.concatenate([mask, ghost_mask])


def ghost_grid(*, max_rapidity: float, spacing: float) -> Float[Array, "ghosts 4"]:
    """Massless momenta of 1 GeV on a grid in rapidity and azimuth.

    Args:
        max_rapidity: The grid ends at plus and minus this.
        spacing: Distance of its points; of the next whole number of them.

    Returns:
        Four-momenta (px, py, pz, E), in GeV, each for the same area: 4 pi
        `max_rapidity` over their number.
    """
    rows = max(round(2 * max_rapidity / spacing), 1)
    columns = max(round(2 * jnp.pi / spacing), 1)
    edges = jnp.linspace(-max_rapidity, max_rapidity, rows + 1)
    turns = jnp.linspace(0.0, 2 * jnp.pi, columns + 1)
    centres = ((x[1:] + x[:-1]) / 2 for x in (edges, turns))
    y, phi = (jnp.ravel(x) for x in jnp.meshgrid(*centres))
    return jnp.stack([jnp.cos(phi), jnp.sin(phi), jnp.sinh(y), jnp.cosh(y)], axis=1)
