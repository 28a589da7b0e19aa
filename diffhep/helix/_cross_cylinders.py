import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..geometry import Cylinders
from ._crossings import Crossings, assemble_jacobian, broadcast_track
from ._cylinder import transverse_crossing, transverse_slopes, within_reach


def cross_cylinders(
    parameters: Float[Array, " 5"], cylinders: Cylinders, field: Float[Array, ""]
) -> Crossings:
    """The first crossings with cylinders after the perigee, outwards.

    Args:
        parameters: Track parameters about the z axis.
        cylinders: The layers.
        field: Magnetic field along z, in T.

    Returns:
        The crossings, with derivatives in closed form.
    """
    radii = cylinders.radii
    d0, z0, phi, omega, sine, cotangent, bend = broadcast_track(
        parameters, field, radii
    )
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
    jacobian = assemble_jacobian(
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


def _within(
    z: Float[Array, " layers"], half_length: Float[Array, " layers"] | None
) -> Float[Array, " layers"]:
    if half_length is None:
        return jnp.full_like(z, jnp.inf)
    return half_length - jnp.abs(z)


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
