"""Where along the beam collisions took place, before any fit."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ._impact import Impact


# Steps by which a seed climbs from a track to the top of the density.
_CLIMBS = 3


class Seeds(eqx.Module):
    """Where to begin to look for vertices."""

    position: Float[Array, "vertices 3"]
    """Positions (x, y, z), in mm; dead slots hold a finite one."""
    mask: Bool[Array, " vertices"]
    """Which slots hold a seed."""
    overflow: Bool[Array, ""]
    """Whether there were more seeds than slots."""


class _Peaks(eqx.Module):
    """The density of each track along the beam, a Gaussian."""

    height: Float[Array, " tracks"]
    width: Float[Array, " tracks"]
    amplitude: Float[Array, " tracks"]

    def at(self, z: Float[Array, ""]) -> Float[Array, " tracks"]:
        """The density of each track at a point of the beam."""
        return self.amplitude * jnp.exp(-(self.distance(z) ** 2) / 2)

    def distance(self, z: Float[Array, ""]) -> Float[Array, " tracks"]:
        """How far a point is from each track, in standard deviations."""
        return (z - self.height) / self.width


def seed_along_beam(
    impact: Impact,
    mask: Bool[Array, " tracks"],
    *,
    num_vertices: int,
    cutoff: Float[Array, ""],
) -> Seeds:
    """Seeds where tracks are densest along the beam, one after another.

    Each track is a Gaussian along the beam, given its distance from the beam, and
    counts by the inverse of its width and by how well it agrees with the beam, as in
    the Gaussian track density of ACTS (GaussianTrackDensity.hpp). The highest point is
    a seed; the tracks about it are taken away, and so on until no two tracks agree.

    Args:
        impact: Impact parameters about the centre of the beam spot, whose transverse
            width is in the covariance.
        mask: Which tracks are alive.
        num_vertices: Slots for seeds.
        cutoff: Distance, in standard deviations, up to which tracks agree with each
            other, with the beam, and with a seed, which takes them away.

    Returns:
        The seeds, densest first; on the beam.
    """
    slope = impact.covariance / impact.variance_d0
    width = jnp.sqrt(impact.variance_z0 - slope * impact.covariance)
    off_beam = impact.d0**2 / impact.variance_d0
    peaks = _Peaks(
        height=impact.z0 - slope * impact.d0,
        width=width,
        amplitude=jnp.exp(-off_beam / 2) / width,
    )
    density = jax.vmap(peaks.at)(peaks.height)
    apart = (peaks.height[:, None] - peaks.height[None, :]) ** 2
    both = width[:, None] ** 2 + width[None, :] ** 2
    on_beam = off_beam < cutoff**2
    agree = (apart < cutoff**2 * both) & on_beam[None, :] & on_beam[:, None]
    agree = agree.astype(density.dtype)

    def candidates(left: Bool[Array, " tracks"]) -> Bool[Array, " tracks"]:
        # Itself and another.
        return left & (agree @ left.astype(density.dtype) > 1.5)

    def take(
        left: Bool[Array, " tracks"], _: None
    ) -> tuple[Bool[Array, " tracks"], tuple[Float[Array, ""], Bool[Array, ""]]]:
        good = candidates(left)
        score = density @ left.astype(density.dtype)
        best = jnp.argmax(jnp.where(good, score, -jnp.inf))
        z = _climb(peaks, left, peaks.height[best])
        near = jnp.abs(peaks.distance(z)) < cutoff
        # The best itself goes in any case: no seed is found twice.
        near = near | (jnp.arange(left.shape[0]) == best)
        return left & ~near, (z, jnp.any(good))

    left, (z, found) = jax.lax.scan(take, mask, length=num_vertices)
    zero = jnp.zeros_like(z)
    return Seeds(
        position=jnp.stack([zero, zero, z], axis=1),
        mask=found,
        overflow=jnp.any(candidates(left)),
    )


def _climb(
    peaks: _Peaks, left: Bool[Array, " tracks"], z: Float[Array, ""]
) -> Float[Array, ""]:
    for _ in range(_CLIMBS):
        weight = jnp.where(left, peaks.at(z) / peaks.width**2, 0.0)
        total = jnp.sum(weight)
        mean = jnp.sum(weight * peaks.height) / jnp.where(total > 0, total, 1.0)
        z = jnp.where(total > 0, mean, z)
    return z
