import jax.numpy as jnp
from jaxtyping import Array, Float

from ..numerics import sinc, sinc_defect
from ._constants import KAPPA
from ._parameters import curvature


def kick_response(
    parameters: Float[Array, " 5"],
    arc: Float[Array, " points"],
    field: Float[Array, ""],
) -> Float[Array, "points 5 3"]:
    r"""The change of the track parameters when a track is deflected on its way.

    The helix after a kick passes through the same point $x_k$. With the circle's
    centre at $(d_0 - 1/\omega) n_0 = x_k - n_k/\omega$, the turn $\Delta = \omega s$,
    $u = 1 - \omega d_0$, $A = \sin\Delta/\omega$ and $B = (1-\cos\Delta)/\omega^2$

    $$\delta d_0 = -A\,\delta\phi - B\,\delta\omega,\qquad
      u\,\delta\phi_0 = \cos\Delta\,\delta\phi + A\,\delta\omega$$

    and the arc length follows from $s = (\phi_0 - \phi)/\omega$. Nothing is singular at
    $\omega = 0$.

    Args:
        parameters: Track parameters.
        arc: Transverse arc lengths from the perigee at which kicks happen, in mm.
        field: Magnetic field along z, in T.

    Returns:
        Derivative of (d0 [mm], z0 [mm], phi [rad], theta [rad], q/p [1/GeV]) of the
        deflected helix to changes of phi, theta and q/p at the point.
    """
    theta = parameters[3]
    sine = jnp.sin(theta)
    # Broadcast once: in reverse mode each broadcast is a sum.
    d0, omega, cotangent, inverse_square, to_charge = (
        jnp.broadcast_to(x, arc.shape)
        for x in (
            parameters[0],
            curvature(parameters, field),
            jnp.cos(theta) / sine,
            1 / sine**2,
            KAPPA * field / sine,
        )
    )
    turn = omega * arc
    ratio, cosine = sinc(turn / 2), jnp.cos(turn / 2)
    across = arc * ratio * cosine
    bulge = (arc * ratio) ** 2 / 2
    shrink = 1 - omega * d0
    zero, one = jnp.zeros_like(arc), jnp.ones_like(arc)
    # To the curvature, without that of theta and q/p itself.
    way = (d0 * arc - omega * arc**3 * sinc_defect(turn)) / shrink
    d0_omega, z0_omega, phi_omega = -bulge, -cotangent * way, across / shrink
    to_theta = -omega * cotangent
    # One row per parameter: to phi, theta and q/p.
    rows = [
        [-across, to_theta * d0_omega, to_charge * d0_omega],
        [
            -cotangent * (d0 - omega * bulge) / shrink,
            to_theta * z0_omega + arc * inverse_square,
            to_charge * z0_omega,
        ],
        [
            (1 - omega**2 * bulge) / shrink,
            to_theta * phi_omega,
            to_charge * phi_omega,
        ],
        [zero, one, zero],
        [zero, zero, one],
    ]
    # Stacked with the points last and then transposed: faster on a CPU.
    stacked = jnp.stack([entry for row in rows for entry in row])
    return jnp.transpose(jnp.reshape(stacked, (5, 3, -1)), (2, 0, 1))
