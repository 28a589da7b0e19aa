"""Where two tracks cross, in closed form: where to begin to look for their vertex."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ._impact import TrackState, impact_at, select_tracks


# Curvature, in 1/mm, below which two tracks are straight lines to one another.
_STRAIGHT = 1e-9
# No vertex is sought farther from the origin than this, in mm.
_REACH = 1500.0
# Transverse flight of a strange particle, in mm: 27 (K_S) or 79 (Lambda) times pT / m.
_FLIGHT = 150.0


class CrossingPoint(eqx.Module):
    """Where two tracks come closest."""

    position: Float[Array, "pairs 3"]
    """The point (x, y, z), in mm; the origin if there is none within 1.5 m."""
    chi2: Float[Array, " pairs"]
    """Squared distance of the tracks there, in standard deviations; infinite if there
    is no point."""


def crossing_point(
    state: TrackState, first: Int[Array, " pairs"], second: Int[Array, " pairs"]
) -> CrossingPoint:
    """Where pairs of tracks cross, seen along the field.

    Two circles cross twice. Of the two crossings it is the one where the tracks are
    closer along z, or if both are as close, the one nearer to the beam; where they do
    not cross, a point between them.

    Args:
        state: The tracks.
        first: Slot of one track of each pair.
        second: Slot of the other.

    Returns:
        The points, to begin a fit with: derivatives are those of no choice.
    """
    one, other = select_tracks(state, first), select_tracks(state, second)
    near, far = (_closeness(one, other, *point) for point in _crossings(one, other))
    # Where the distances do not tell, strange particles rarely fly far.
    swap = far.chi2 + _rarity(far) < near.chi2 + _rarity(near)
    return CrossingPoint(
        position=jnp.where(swap[:, None], far.position, near.position),
        chi2=jnp.where(swap, far.chi2, near.chi2),
    )


def _rarity(point: CrossingPoint) -> Float[Array, " pairs"]:
    x, y = point.position[:, 0], point.position[:, 1]
    return 2 * jnp.sqrt(x**2 + y**2) / _FLIGHT


def _closeness(
    one: TrackState,
    other: TrackState,
    x: Float[Array, " pairs"],
    y: Float[Array, " pairs"],
    valid: Bool[Array, " pairs"],
) -> CrossingPoint:
    valid = valid & (x**2 + y**2 < _REACH**2)
    x, y = (jnp.where(valid, coordinate, 0.0) for coordinate in (x, y))
    point = jnp.stack([x, y, jnp.zeros_like(x)])
    a, b = impact_at(one, point), impact_at(other, point)
    along = (a.z0 - b.z0) ** 2 / (a.variance_z0 + b.variance_z0)
    across = a.d0**2 / a.variance_d0 + b.d0**2 / b.variance_d0
    z = (a.z0 * b.variance_z0 + b.z0 * a.variance_z0) / (a.variance_z0 + b.variance_z0)
    position = jnp.stack([x, y, z], axis=1)
    return CrossingPoint(
        position=jnp.where(valid[:, None], position, 0.0),
        chi2=jnp.where(valid, along + across, jnp.inf),
    )


_Points = tuple[Float[Array, " pairs"], Float[Array, " pairs"], Bool[Array, " pairs"]]


def _crossings(one: TrackState, other: TrackState) -> tuple[_Points, _Points]:
    # A circle is constant = normal . v + omega v^2 / 2, regular for straight lines. The
    # difference of two, with v^2 eliminated, is the line through both crossings.
    (ax, ay, a), (bx, by, b) = _circle(one), _circle(other)
    nx, ny = other.omega * ax - one.omega * bx, other.omega * ay - one.omega * by
    offset = other.omega * a - one.omega * b
    square = nx**2 + ny**2
    curved = square > _STRAIGHT**2
    square = jnp.where(curved, square, 1.0)
    size = jnp.sqrt(square)
    # The line: its foot, and its direction.
    foot_x, foot_y = offset * nx / square, offset * ny / square
    way_x, way_y = -ny / size, nx / size
    # Along it, on the circle that bends more.
    bends = jnp.abs(one.omega) > jnp.abs(other.omega)
    cx, cy, c = (jnp.where(bends, p, q) for p, q in ((ax, bx), (ay, by), (a, b)))
    half = jnp.where(bends, one.omega, other.omega) / 2
    half = jnp.where(curved, half, 1.0)
    linear = cx * way_x + cy * way_y
    constant = half * (foot_x**2 + foot_y**2) + cx * foot_x + cy * foot_y - c
    # Where the circles miss each other, between them.
    root = jnp.sqrt(jnp.maximum(linear**2 - 4 * half * constant, 0.0))
    larger = -(linear + jnp.where(linear < 0, -root, root)) / 2
    both_zero = larger == 0
    steps = (
        jnp.where(
            root > 0, constant / jnp.where(both_zero, 1.0, larger), larger / half
        ),
        larger / half,
    )
    straight = ax * by - ay * bx
    crosses = jnp.abs(straight) > 0
    denominator = jnp.where(crosses, straight, 1.0)
    line_x, line_y = (a * by - b * ay) / denominator, (ax * b - bx * a) / denominator
    near, far = (
        (
            jnp.where(curved, foot_x + step * way_x, line_x),
            jnp.where(curved, foot_y + step * way_y, line_y),
            curved | crosses,
        )
        for step in steps
    )
    return near, far


def _circle(
    track: TrackState,
) -> tuple[Float[Array, " pairs"], Float[Array, " pairs"], Float[Array, " pairs"]]:
    inner = 1 - track.omega * track.d0
    constant = track.d0 * (1 - track.omega * track.d0 / 2)
    return -inner * track.sine, inner * track.cosine, constant
