import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ..geometry import Cylinders, Discs, Planes, Surfaces
from ..numerics import arcsine_ratio, sinc, sinc_defect
from ._constants import KAPPA
from ._cylinder import transverse_crossing, transverse_slopes, within_reach


class Crossings(eqx.Module):
    """Where a track crosses some layers, with the derivatives."""

    position: Float[Array, "layers 2"]
    """The two coordinates that the surface measures; see there."""
    jacobian: Float[Array, "layers 2 5"]
    """Derivative of `position` to the track parameters."""
    arc: Float[Array, " layers"]
    """Transverse arc length from the perigee, in mm."""
    incidence: Float[Array, " layers"]
    """Cosine of the angle between the track and the surface's normal, positive."""
    scale: Float[Array, " layers"]
    """Length of one unit of the first coordinate, in mm."""
    inside: Float[Array, " layers"]
    """Distance from the nearest edge of the layer, in mm: negative outside of it, and
    infinite where there is no edge."""
    reached: Bool[Array, " layers"]
    """Whether the surface is crossed at all: if not, the other fields are finite and
    mean nothing."""


def cross_layers(
    parameters: Float[Array, " 5"], surfaces: Surfaces, field: Float[Array, ""]
) -> Crossings:
    """The first crossings of some layers after the perigee, with their derivatives.

    Args:
        parameters: Track parameters about the z axis.
        surfaces: The layers.
        field: Magnetic field along z, in T.

    Returns:
        The crossings. The derivatives are in closed form, and may be differentiated
        again.
    """
    if isinstance(surfaces, Cylinders):
        return _cross_cylinders(parameters, surfaces, field)
    if isinstance(surfaces, Planes):
        return _cross_planes(parameters, surfaces, field)
    return _cross_discs(parameters, surfaces, field)


def _cross_cylinders(
    parameters: Float[Array, " 5"], cylinders: Cylinders, field: Float[Array, ""]
) -> Crossings:
    radii = cylinders.radii
    d0, z0, phi, omega, sine, cotangent, bend = _broadcast(parameters, field, radii)
    d0s, omegas = d0, omega
    reached = within_reach(d0s, omegas, radii)
    # Beyond reach a straight track through the axis takes over, before any arithmetic
    # that could fail.
    d0s, omegas = jnp.where(reached, d0s, 0.0), jnp.where(reached, omegas, 0.0)
    opening, arc, opening_d0, opening_omega, arc_d0, arc_omega = _on_cylinders(
        d0s, omegas, radii
    )
    rotation = jnp.ones_like(radii)
    z = z0 + arc * cotangent
    jacobian = _assemble(
        (opening_d0, rotation, opening_omega),
        (arc_d0, jnp.zeros_like(radii), arc_omega),
        arc,
        (omega, sine, cotangent, bend),
    )
    return Crossings(
        position=jnp.stack([phi + opening, z], axis=1),
        jacobian=jacobian,
        arc=arc,
        incidence=sine * jnp.cos(omegas * arc + opening),
        scale=radii,
        inside=_within(z, cylinders.half_length),
        reached=reached,
    )


def _broadcast(
    parameters: Float[Array, " 5"],
    field: Float[Array, ""],
    like: Float[Array, " layers"],
) -> tuple[Float[Array, " layers"], ...]:
    # d0, z0, phi, curvature, sin(theta), cot(theta) and curvature per q/p. Once: in
    # reverse mode each broadcast is a sum.
    d0, z0, phi, theta, charge_over_momentum = (parameters[i] for i in range(5))
    sine = jnp.sin(theta)
    bend = KAPPA * field / sine
    scalars = [
        d0,
        z0,
        phi,
        bend * charge_over_momentum,
        sine,
        jnp.cos(theta) / sine,
        bend,
    ]
    return tuple(jnp.broadcast_to(scalar, like.shape) for scalar in scalars)


def _within(
    z: Float[Array, " layers"], half_length: Float[Array, " layers"] | None
) -> Float[Array, " layers"]:
    if half_length is None:
        return jnp.full_like(z, jnp.inf)
    return half_length - jnp.abs(z)


def _assemble(
    first: tuple[Float[Array, " layers"], ...],
    way: tuple[Float[Array, " layers"], ...],
    arc: Float[Array, " layers"],
    slopes: tuple[Float[Array, " layers"], ...],
) -> Float[Array, "layers 2 5"]:
    # The derivatives of the first coordinate and of z, from those of the first
    # coordinate and of the arc to d0, phi and the curvature.
    omega, sine, cotangent, bend = slopes
    to_theta = -omega * cotangent
    zero, one = jnp.zeros_like(arc), jnp.ones_like(arc)
    rows = [
        first[0],
        zero,
        first[1],
        to_theta * first[2],
        bend * first[2],
        cotangent * way[0],
        one,
        cotangent * way[1],
        cotangent * to_theta * way[2] - arc / sine**2,
        cotangent * bend * way[2],
    ]
    return _layers_first(rows)


def _layers_first(rows: list[Float[Array, " layers"]]) -> Float[Array, "layers 2 5"]:
    # Stacked with the layers last and then transposed: a third faster on a CPU.
    return jnp.transpose(jnp.reshape(jnp.stack(rows), (2, 5, -1)), (2, 0, 1))


def _cross_planes(
    parameters: Float[Array, " 5"], planes: Planes, field: Float[Array, ""]
) -> Crossings:
    r"""In the frame in which the plane is at $x = c$.

    With $\sin\alpha = \sin\phi - \omega X$ and $X = c + d_0\sin\phi$ the track has the
    direction $\alpha$ there, and the chord from the perigee has the slope
    $(\sin\phi + \sin\alpha) / (\cos\phi + \cos\alpha)$.
    """
    d0, z0, phi, omega, sine_theta, cotangent, bend = _broadcast(
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
    across, along = _displacement(
        d0, straight, chord * half_cosine, chord**2 / 2, excess
    )
    offset = tuple(a / cosine_there for a in across)
    way = tuple(
        s * there / cosine_there - t for s, t in zip(across, along, strict=True)
    )
    z = z0 + arc * cotangent
    jacobian = _assemble(offset, way, arc, (omega, sine_theta, cotangent, bend))
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


def _displacement(
    d0: Float[Array, " layers"],
    omega: Float[Array, " layers"],
    across: Float[Array, " layers"],
    bulge: Float[Array, " layers"],
    excess: Float[Array, " layers"],
) -> tuple[tuple[Float[Array, " layers"], ...], tuple[Float[Array, " layers"], ...]]:
    r"""How a point at a given arc length moves with the helix.

    With the turn $\Delta$: $\sin\Delta/\omega$, $(1-\cos\Delta)/\omega^2$ and
    $(\Delta-\sin\Delta)/\omega^2$. Returned are the derivatives to $d_0$, $\phi$ and
    $\omega$, first to the left of the track, then along it.
    """
    cosine = 1 - omega**2 * bulge
    # The distance of the tangent there from the reference.
    lever = d0 * cosine + omega * bulge
    left = (cosine, across * (1 - omega * d0), -bulge)
    return left, (-omega * across, -lever, excess)


def _cross_discs(
    parameters: Float[Array, " 5"], discs: Discs, field: Float[Array, ""]
) -> Crossings:
    d0, z0, phi, omega, sine, cotangent, bend = _broadcast(parameters, field, discs.z)
    cosine = cotangent * sine
    distance = discs.z - z0
    # Forwards, less than half a turn away, and not along the disc.
    usable = distance * cosine > 0
    tangent = sine / jnp.where(usable, cosine, 1.0)
    arc = distance * tangent
    reached = usable & (jnp.abs(omega * arc) < jnp.pi)
    # Out of reach a straight track stands whose arc is the disc's distance.
    arc = jnp.where(reached, arc, jnp.abs(discs.z) + 1.0)
    omegas = jnp.where(reached, omega, 0.0)
    half = omegas * arc / 2
    chord = arc * sinc(half)
    # In the frame that is turned to the mean direction.
    x, y = chord + d0 * jnp.sin(-half), d0 * jnp.cos(half)
    radius = jnp.sqrt(x**2 + y**2 + 1e-12)
    azimuth = phi - half + jnp.arctan2(y, x)
    # Direction of the track and its left, seen from the point's azimuth.
    cosine_in, sine_in = (
        (x * jnp.cos(half) - y * jnp.sin(half)) / radius,
        -(x * jnp.sin(half) + y * jnp.cos(half)) / radius,
    )
    turn, ratio = 2 * half, sinc(half)
    across, along = _displacement(
        d0,
        omegas,
        arc * ratio * jnp.cos(half),
        (arc * ratio) ** 2 / 2,
        arc**2 * turn * sinc_defect(turn),
    )
    outwards = [t * cosine_in - a * sine_in for a, t in zip(across, along, strict=True)]
    around = [
        (t * sine_in + a * cosine_in) / radius
        for a, t in zip(across, along, strict=True)
    ]
    to_theta = -omega * cotangent
    further = (
        jnp.where(reached, -tangent, 0.0),
        jnp.where(reached, arc / sine / cosine, 0.0),
    )
    rows = []
    for to, forwards in ((around, sine_in / radius), (outwards, cosine_in)):
        rows += [
            to[0],
            forwards * further[0],
            to[1],
            to_theta * to[2] + forwards * further[1],
            bend * to[2],
        ]
    return Crossings(
        position=jnp.stack([azimuth, radius], axis=1),
        jacobian=_layers_first(rows),
        arc=arc,
        incidence=jnp.abs(cosine),
        scale=radius,
        inside=jnp.minimum(radius - discs.inner, discs.outer - radius),
        reached=reached,
    )


def _on_cylinders_plain(
    d0: Float[Array, " layers"],
    omega: Float[Array, " layers"],
    radii: Float[Array, " layers"],
) -> Float[Array, "6 layers"]:
    # Opening angle and arc, and their derivatives to d0 and the curvature.
    value = transverse_crossing(d0, omega, radii)
    return jnp.stack([*value, *transverse_slopes(d0, omega, radii)])


# The derivative as an explicit matrix: the implicit derivative of a fit takes five
# tangents and a transpose of this, which would each repeat the whole chain.
@jax.custom_jvp
def _on_cylinders(
    d0: Float[Array, " layers"],
    omega: Float[Array, " layers"],
    radii: Float[Array, " layers"],
) -> Float[Array, "6 layers"]:
    return _on_cylinders_plain(d0, omega, radii)


@_on_cylinders.defjvp
def _on_cylinders_jvp(
    primals: tuple[Array, Array, Array], tangents: tuple[Array, Array, Array]
) -> tuple[Float[Array, "6 layers"], Float[Array, "6 layers"]]:
    columns = _columns(*primals)
    terms = [c * t[None, :] for c, t in zip(columns, tangents, strict=True)]
    return _on_cylinders(*primals), terms[0] + terms[1] + terms[2]


# Jitted, as it appears several times: it is traced once.
@jax.jit
def _columns(
    d0: Float[Array, " layers"],
    omega: Float[Array, " layers"],
    radii: Float[Array, " layers"],
) -> tuple[
    Float[Array, "6 layers"], Float[Array, "6 layers"], Float[Array, "6 layers"]
]:
    _, along = jax.linearize(_on_cylinders_plain, d0, omega, radii)
    one, zero = jnp.ones_like(radii), jnp.zeros_like(radii)
    return along(one, zero, zero), along(zero, one, zero), along(zero, zero, one)
