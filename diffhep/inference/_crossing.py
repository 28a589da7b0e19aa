"""Where a function that is known with errors at a few points falls to a level."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def last_crossing(
    points: Float[Array, " points"],
    values: Float[Array, " points"],
    errors: Float[Array, " points"],
    level: float,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The end of the last stretch on which a function is above a level.

    On the straight line between the last point above and its successor.

    Args:
        points: In the order of the search: the last one is where it ends.
        values: The function.
        errors: Its statistical errors, independent from point to point.
        level: The level.

    Returns:
        The end and its statistical error; NaN where no point is above, where the last
        one is, or where one after it is NaN.
    """
    size = points.shape[0]
    last = jnp.max(jnp.where(values > level, jnp.arange(size), -1))
    # What is not known may be above.
    unknown = jnp.isnan(values) & (jnp.arange(size) > last)
    found = (last >= 0) & (last < size - 1) & ~jnp.any(unknown)
    inner = jnp.clip(last, 0, size - 2)
    x, y, error = (
        jnp.stack([a[inner], a[inner + 1]]) for a in (points, values, errors)
    )
    above, below = y[0] - level, level - y[1]
    drop = jnp.where(found, y[0] - y[1], 1.0)
    step = x[1] - x[0]
    end = x[0] + step * above / drop
    spread = jnp.abs(step) * jnp.hypot(below * error[0], above * error[1]) / drop**2
    return jnp.where(found, end, jnp.nan), jnp.where(found, spread, jnp.nan)
