from collections.abc import Callable, Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from ._differences import (
    finite_difference,
    inner_product,
    random_direction,
    rounding_error,
)


def check_gradient(
    function: Callable[..., PyTree],
    args: tuple[Any, ...],
    *,
    rtol: float = 1e-6,
    eps: float = 1e-4,
    num_directions: int = 2,
    forward: bool = True,
    reverse: bool = True,
    separately: bool = False,
    order: int = 4,
    condition: float = 1.0,
    seed: int = 0,
) -> float:
    """How far forward and reverse mode lie from finite differences along directions.

    The directions are random and scaled to the arguments, element by element (a zero
    counts as one), so that parameters in mm and in 1/GeV may stand side by side. What
    is not finite is not moved; a covariance is only scaled as a whole.

    Args:
        function: From `args` to arrays. Its floating-point outputs are compared.
        args: Where to compare. Every floating-point array in them is varied.
        rtol: Allowed difference, relative to the largest derivative in an output
            array. The rounding error of the differences is allowed on top.
        eps: Step, relative to each argument.
        num_directions: How many directions to try.
        forward: Whether forward mode is compared.
        reverse: Whether reverse mode is compared.
        separately: Whether each element of `args` is moved on its own, so that none
            hides behind another on which more depends.
        order: Order of the differences in `eps`, 4 or 8. The higher one allows a larger
            step, where rounding limits.
        condition: By how much the function amplifies the rounding of its arguments: the
            condition of what it solves, say. As many times more rounding is allowed.
        seed: Seed of the directions.

    Returns:
        The largest difference found, relative to the largest derivative.

    Raises:
        AssertionError: A mode disagrees with the finite differences.
        ValueError: The arguments hold no float64 arrays, or others as well; or there
            are no differences of that order.
    """
    point, static = eqx.partition(args, eqx.is_inexact_array)
    _require_float64(point)

    @jax.jit
    def value(point: PyTree) -> list[jax.Array]:
        outputs = function(*eqx.combine(point, static))
        return jax.tree.leaves(eqx.filter(outputs, eqx.is_inexact_array))

    push = jax.jit(lambda x, t: jax.jvp(value, (x,), (t,))[1])
    pull = jax.jit(lambda x, w: jax.vjp(value, x)[1](w)[0])
    noise = rounding_error(value(point), eps=eps / condition)
    generator = np.random.default_rng(seed)
    worst = 0.0
    for direction in _directions(point, generator, num_directions, separately):
        wanted = finite_difference(value, point, direction, eps=eps, order=order)
        if forward:
            for f, w, n in zip(push(point, direction), wanted, noise, strict=True):
                scale = float(np.max(np.abs(w), initial=0.0))
                worst = max(worst, _compare("Forward", f, w, scale, n, rtol=rtol))
        if reverse:
            weights = [jnp.asarray(generator.normal(size=w.shape)) for w in wanted]
            found = inner_product(pull(point, weights), direction)
            total = inner_product(weights, wanted)
            # The sum may cancel: measure against the sum of the absolute values.
            sizes = [np.abs(np.asarray(w)) for w in weights]
            scale = inner_product(sizes, [np.abs(w) for w in wanted])
            bound = sum(float(s.sum()) * n for s, n in zip(sizes, noise, strict=True))
            worst = max(
                worst, _compare("Reverse", found, total, scale, bound, rtol=rtol)
            )
    return worst


def _directions(
    point: tuple, generator: np.random.Generator, number: int, separately: bool
) -> Iterator[tuple]:
    for _ in range(number):
        together = random_direction(point, generator)
        if not separately:
            yield together
            continue
        none = jax.tree.map(jnp.zeros_like, together)
        for place, alone in enumerate(together):
            if jax.tree.leaves(alone):
                yield (*none[:place], alone, *none[place + 1 :])


def _require_float64(point: PyTree) -> None:
    dtypes = sorted({str(leaf.dtype) for leaf in jax.tree.leaves(point)})
    if dtypes != ["float64"]:
        raise ValueError(
            "Finite differences need float64 arguments, but these hold "
            f"{' and '.join(dtypes) or 'no floating-point array'}; enable "
            "`jax_enable_x64` and pass float64 arrays."
        )


def _compare(
    mode: str, found: Any, wanted: Any, scale: float, noise: float, *, rtol: float
) -> float:
    distance = np.max(np.abs(np.asarray(found) - wanted), initial=0.0)
    # `not <=` and not `>`: NaN must fail.
    if not distance <= rtol * scale + noise:
        raise AssertionError(
            f"{mode} mode is {distance:.3g} away from finite differences, where the "
            f"largest derivative is {scale:.3g}; {rtol:g} of it plus {noise:.1g} of "
            "rounding is allowed."
        )
    # Below the rounding error nothing can be said about the relative distance.
    return float(distance / scale) if scale > noise / max(rtol, 1e-300) else 0.0
