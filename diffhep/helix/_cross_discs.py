import jax.numpy as jnp
from jaxtyping import Array, Float

from ..geometry import Discs
from ..numerics import sinc, sinc_defect
from ._crossings import Crossings, broadcast_track, displacement, layers_first


def cross_discs(
    parameters: Float[Array, " 5"], discs: Discs, field: Float[Array, ""]
) -> Crossings:
    """The crossings with discs ahead of the perigee, less than half a turn away.

    Args:
        parameters: Track parameters about the z axis.
        discs: The layers.
        field: Magnetic field along z, in T.

    Returns:
        The crossings, with derivatives in closed form.
    """
    track = broadcast_track(parameters, field, discs.z)
    d0, z0, phi, omega, sine, cotangent, bend = track
    cosine = cotangent * sine
    distance = discs.z - z0
    # Forwards, less than half a turn away, and not along the disc.
    usable = distance * cosine > 0
    cosine = jnp.where(usable, cosine, 1.0)
    tangent = sine / cosine
    arc = distance * tangent
    reached = usable & (jnp.abs(omega * arc) < jnp.pi)
    # Out of reach a straight track stands whose arc is the disc's distance.
    arc = jnp.where(reached, arc, jnp.abs(discs.z) + 1.0)
    omegas = jnp.where(reached, omega, 0.0)
    half = omegas * arc / 2
    ratio = sinc(half)
    chord = arc * ratio
    # In the frame that is turned to the mean direction.
    x, y = chord + d0 * jnp.sin(-half), d0 * jnp.cos(half)
    radius = jnp.sqrt(x**2 + y**2 + 1e-12)
    azimuth = phi - half + jnp.arctan2(y, x)
    # Direction of the track and its left, seen from the point's azimuth.
    cosine_in = (x * jnp.cos(half) - y * jnp.sin(half)) / radius
    sine_in = -(x * jnp.sin(half) + y * jnp.cos(half)) / radius
    across, along = displacement(
        d0,
        omegas,
        chord * jnp.cos(half),
        chord**2 / 2,
        arc**2 * 2 * half * sinc_defect(2 * half),
    )
    # A disc fixes z, and so the arc: its derivatives to z0 and theta.
    further = (
        jnp.where(reached, -tangent, 0.0),
        jnp.where(reached, arc / sine / cosine, 0.0),
    )
    outwards = [t * cosine_in - a * sine_in for a, t in zip(across, along, strict=True)]
    around = [
        (t * sine_in + a * cosine_in) / radius
        for a, t in zip(across, along, strict=True)
    ]
    slopes = [(around, sine_in / radius), (outwards, cosine_in)]
    return Crossings(
        position=jnp.stack([azimuth, radius], axis=1),
        jacobian=layers_first(_rows(slopes, further, -omega * cotangent, bend)),
        arc=arc,
        incidence=jnp.abs(cosine),
        scale=radius,
        inside=jnp.minimum(radius - discs.inner, discs.outer - radius),
        reached=reached,
    )


def _rows(
    slopes: list[tuple[list[Float[Array, " layers"]], Float[Array, " layers"]]],
    further: tuple[Float[Array, " layers"], Float[Array, " layers"]],
    to_theta: Float[Array, " layers"],
    bend: Float[Array, " layers"],
) -> list[Float[Array, " layers"]]:
    # The Jacobian's entries from derivatives at a given arc, and along it.
    rows = []
    for fixed, forwards in slopes:
        rows += [
            fixed[0],
            forwards * further[0],
            fixed[1],
            to_theta * fixed[2] + forwards * further[1],
            bend * fixed[2],
        ]
    return rows
