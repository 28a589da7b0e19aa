import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ..geometry import AbstractDetector
from ..helix import KAPPA, transverse_crossing, within_reach
from ._model import hit_points


_LEAST = 1e-4


def seed_track(
    position: Float[Array, "layers 2"],
    mask: Bool[Array, " layers"],
    detector: AbstractDetector,
    *,
    weight: Float[Array, " layers"] | None = None,
) -> Float[Array, " 5"]:
    r"""Track parameters from hits in closed form, without truth.

    In the frame that is turned to the first hit found, the condition that a circle
    crosses radius $r$ at $(x', y')$ is linear in three numbers,
    $y' = D + t x' - W r^2 / 2$, with $t$ the tangent of the direction: one linear
    least-squares problem, exact for hits without errors. Then z is linear in the arc
    length. Errors are those of the pixels alone.

    Args:
        position: What was measured on each layer. Dead entries must be finite.
        mask: Which hits were found, at least 3.
        detector: The detector.
        weight: How much each hit counts, from 0 to 1; 1 unless given.

    Returns:
        Track parameters.
    """
    share = jnp.ones_like(position[:, 0]) if weight is None else weight
    inverse = jnp.where(mask, share, 0.0)[:, None] / detector.pitch**2
    radii, azimuth, z = hit_points(position, detector)
    first = mask & (jnp.cumsum(mask) == 1)
    reference = jnp.sum(jnp.where(first, azimuth, 0.0))
    opening = azimuth - reference
    # In units of the outermost radius, for the conditioning.
    size = jnp.max(jnp.where(mask, radii, 0.0))
    relative = radii / size
    basis = jnp.stack(
        [jnp.ones_like(relative), relative * jnp.cos(opening), -(relative**2) / 2]
    )
    across = relative * jnp.sin(opening)
    inverse = inverse * size**2
    offset, tangent, bend = _least_squares(basis, across, inverse[:, 0])
    cosine = 1 / jnp.sqrt(1 + tangent**2)
    phi = reference + jnp.arctan(tangent)
    offset, bend = offset * cosine, bend * cosine
    # offset = d0 (1 - omega d0 / 2) / (1 - omega d0), bend = omega / (1 - omega d0).
    # No circle has a root of zero; points at random may.
    root = jnp.sqrt(jnp.maximum(1 + 2 * offset * bend, _LEAST))
    d0, omega = 2 * offset / (1 + root) * size, bend / root / size

    d0s, omegas = (
        jnp.broadcast_to(d0, radii.shape),
        jnp.broadcast_to(omega, radii.shape),
    )
    reached = within_reach(d0s, omegas, radii)
    _, arc = transverse_crossing(
        jnp.where(reached, d0s, 0.0), jnp.where(reached, omegas, 0.0), radii
    )
    basis = jnp.stack([jnp.ones_like(arc), arc / size])
    z0, cotangent = _least_squares(basis, z, inverse[:, 1])
    cotangent = cotangent / size
    theta = jnp.pi / 2 - jnp.arctan(cotangent)
    charge_over_momentum = omega * jnp.sin(theta) / (KAPPA * detector.field)
    return jnp.stack([d0, z0, phi, theta, charge_over_momentum])


def _least_squares(
    basis: Float[Array, "functions layers"],
    values: Float[Array, " layers"],
    weight: Float[Array, " layers"],
) -> list[Float[Array, ""]]:
    # By Gram and Schmidt: three neighbouring hits of unequal weight determine a circle
    # in single precision, too, where the normal equations would not.
    tiny = jnp.finfo(values.dtype).tiny
    rest, rows, coefficients = list(basis), [], []
    while rest:
        first, *rest = rest
        norm = jnp.maximum(jnp.sum(weight * first**2), tiny)
        dual = weight * first / norm
        row = [jnp.sum(dual * other) for other in rest]
        rest = [other - r * first for other, r in zip(rest, row, strict=True)]
        rows.append(row)
        coefficients.append(jnp.sum(dual * values))
        values = values - coefficients[-1] * first
    for k in reversed(range(len(rows))):
        for r, later in zip(rows[k], coefficients[k + 1 :], strict=True):
            coefficients[k] = coefficients[k] - r * later
    return coefficients
