import jax.numpy as jnp
from jaxtyping import Array, Float

from ..geometry import Planes
from ..numerics import arcsine_ratio
from ._crossings import Crossings, assemble_jacobian, broadcast_track, displacement


def cross_planes(
    parameters: Float[Array, " 5"], planes: Planes, field: Float[Array, ""]
) -> Crossings:
    r"""The first crossings with planes after the perigee, towards their normal.

    In the frame in which the plane is at $x = c$: with
    $\sin\alpha = \sin\phi - \omega X$ and $X = c + d_0\sin\phi$ the track has the
    direction $\alpha$ there, and the chord from the perigee has the slope
    $(\sin\phi + \sin\alpha) / (\cos\phi + \cos\alpha)$.

    Args:
        parameters: Track parameters about the z axis.
        planes: The layers.
        field: Magnetic field along z, in T.

    Returns:
        The crossings, with derivatives in closed form.
    """
    d0, z0, phi, omega, sine_theta, cotangent, bend = broadcast_track(
        parameters, field, planes.distance
    )
    sine, cosine = jnp.sin(phi - planes.azimuth), jnp.cos(phi - planes.azimuth)
    depth = planes.distance + d0 * sine
    there = sine - omega * depth
    # It must fly towards the plane, and get there before it turns back.
    reached = (jnp.abs(there) < 1) & (cosine > 0) & (depth > 0)
    sine = jnp.where(reached, sine, 0.0)
    cosine = jnp.where(reached, cosine, 1.0)
    depth = jnp.where(reached, depth, planes.distance)
    there = jnp.where(reached, there, 0.0)
    straight = jnp.where(reached, omega, 0.0)
    cosine_there = jnp.sqrt(1 - there**2)
    slope = (sine + there) / (cosine + cosine_there)
    chord = depth * jnp.sqrt(1 + slope**2)
    half = straight * chord / 2
    ratio, half_cosine = arcsine_ratio(half), jnp.sqrt(1 - half**2)
    arc = chord * ratio
    excess = chord**2 / 2 * _arcsine_excess(half, ratio, half_cosine)
    across, along = displacement(
        d0, straight, chord * half_cosine, chord**2 / 2, excess
    )
    offset = tuple(a / cosine_there for a in across)
    way = tuple(
        s * there / cosine_there - t for s, t in zip(across, along, strict=True)
    )
    z = z0 + arc * cotangent
    jacobian = assemble_jacobian(offset, way, arc, (omega, sine_theta, cotangent, bend))
    return Crossings(
        position=jnp.stack([d0 * cosine + depth * slope, z], axis=1),
        jacobian=jacobian,
        arc=arc,
        incidence=sine_theta * cosine_there,
        scale=jnp.ones_like(arc),
        inside=jnp.full_like(arc, jnp.inf),
        reached=reached,
    )


def _arcsine_excess(
    x: Float[Array, " layers"],
    ratio: Float[Array, " layers"],
    cosine: Float[Array, " layers"],
) -> Float[Array, " layers"]:
    # (arcsin(x) / x - cos(arcsin(x))) / x, smooth at zero.
    small = jnp.abs(x) < 3e-2
    y = jnp.where(small, x, 0.0) ** 2
    series = 2 / 3 + y * (1 / 5 + y * (3 / 28 + y * (5 / 72 + y * 35 / 704)))
    return jnp.where(small, x * series, (ratio - cosine) / jnp.where(small, 1.0, x))
