"""A helix in a uniform field of any direction, from Cartesian coordinates."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from ._constants import KAPPA


def helix_step(
    position: Float[Array, " 3"],
    direction: Float[Array, " 3"],
    charge_over_momentum: Float[Array, ""],
    field: Float[Array, " 3"],
    path: Float[Array, ""],
) -> tuple[Float[Array, " 3"], Float[Array, " 3"]]:
    r"""Position and direction after a path length, in closed form.

    The direction turns about $w = -\kappa_0 (q/p) B$ by $|w|s$ (Rodrigues), and its
    integral is the position:

    $$r(s) = r_0 + s\,t_0 + \tfrac{1-\cos\theta}{\theta^2}s^2\,w\times t_0
      + \tfrac{\theta-\sin\theta}{\theta^3}s^3\,w\times(w\times t_0),\quad
      \theta = |w|s.$$

    The fractions are smooth functions of $\theta^2$: nothing is singular without a
    field or along it. In float32 the position after 5 m is good to 1e-6 of the path.

    Args:
        position: Where it starts (x, y, z), in mm.
        direction: Unit vector along the momentum there.
        charge_over_momentum: Charge over momentum, in 1/GeV.
        field: Magnetic field (Bx, By, Bz), in T.
        path: Path length, in mm; negative is backwards.

    Returns:
        The position, in mm, and the unit vector along the momentum there.
    """
    turn = -KAPPA * charge_over_momentum * field * path
    first, second, third = _turning(jnp.sum(turn**2))
    across = jnp.cross(turn, direction)
    inwards = jnp.cross(turn, across)
    moved = path * (direction + second * across + third * inwards)
    return position + moved, direction + first * across + second * inwards


def helix_step_jacobian(
    position: Float[Array, " 3"],
    direction: Float[Array, " 3"],
    charge_over_momentum: Float[Array, ""],
    field: Float[Array, " 3"],
    path: Float[Array, ""],
) -> Float[Array, "7 7"]:
    r"""The derivative of `helix_step` at a given path length, in closed form.

    That to the direction is what multiplies it, without regard to its length. That to
    $q/p$ follows from the product $(q/p)s$ in $t(s)$:

    $$\frac{\partial t}{\partial(q/p)} = s\,c\times t(s),\qquad
      \frac{\partial r}{\partial(q/p)} = \frac{s\,t(s) - (r(s) - r_0)}{q/p},
      \qquad c = -\kappa_0 B,$$

    the second of which is regular at $q/p = 0$ once written out. A surface adds the
    derivative along the path: the direction, and $w\times t(s)$.

    Args:
        position: Where it starts (x, y, z), in mm.
        direction: Unit vector along the momentum there.
        charge_over_momentum: Charge over momentum, in 1/GeV.
        field: Magnetic field (Bx, By, Bz), in T.
        path: Path length, in mm.

    Returns:
        The derivative of position [mm], direction and q/p [1/GeV] (rows) to those at
        the start (columns).
    """
    _, end = helix_step(position, direction, charge_over_momentum, field, path)
    turn = -KAPPA * charge_over_momentum * field * path
    first, second, third = _turning(jnp.sum(turn**2))
    unit = jnp.eye(3, dtype=position.dtype)
    once = _cross_matrix(turn)
    # w x (w x t) = w (w t) - t w^2.
    twice = turn[:, None] * turn[None, :] - jnp.sum(turn**2) * unit
    # The turn per charge over momentum.
    rate = -KAPPA * field * path
    across = jnp.cross(rate, direction)
    inwards = jnp.cross(turn, across)
    bend = path * ((first - second) * across + (second - third) * inwards)
    column = jnp.concatenate([bend, jnp.cross(rate, end), jnp.ones_like(path)[None]])
    zero = jnp.zeros_like(unit)
    moved = path * (unit + second * once + third * twice)
    turned = unit + first * once + second * twice
    last = jnp.zeros((1, 6), position.dtype)
    left = jnp.block([[unit, moved], [zero, turned], [last[:, :3], last[:, 3:]]])
    return jnp.concatenate([left, column[:, None]], axis=1)


def _turning(
    square: Float[Array, ""],
) -> tuple[Float[Array, ""], Float[Array, ""], Float[Array, ""]]:
    # sin(x) / x, (1 - cos(x)) / x^2 and (x - sin(x)) / x^3 as functions of x^2. Below
    # the switch the next terms of the series are under one part in 1e18.
    small = square < 1
    angle = jnp.sqrt(jnp.where(small, 1.0, square))
    y = jnp.where(small, square, 0.0)
    half = jnp.sin(angle / 2) / angle
    sine = jnp.sin(angle) / angle
    exact = (sine, 2 * half**2, (1 - sine) / angle**2)
    # The n-th one is the sum of (-y)^k / (2 k + n)!.
    series = [jnp.zeros_like(square)] * 3
    for k in range(9, 0, -1):
        series = [
            (1 + term) * -y / ((2 * k + n) * (2 * k + n - 1))
            for n, term in enumerate(series, start=1)
        ]
    first = [(1 + term) / n for n, term in zip((1, 2, 6), series, strict=True)]
    one, two, three = (
        jnp.where(small, a, b) for a, b in zip(first, exact, strict=True)
    )
    return one, two, three


def _cross_matrix(vector: Float[Array, " 3"]) -> Float[Array, "3 3"]:
    x, y, z = vector
    zero = jnp.zeros_like(x)
    rows = [[zero, -z, y], [z, zero, -x], [-y, x, zero]]
    return jnp.stack([jnp.stack(row) for row in rows])
