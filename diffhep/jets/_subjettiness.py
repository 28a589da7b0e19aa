"""N-subjettiness: how well a jet is described by so many directions."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ..numerics import safe_norm, sanitise
from ._alive import alive_momentum
from ._declustering import separation
from ._engine import AbstractEngine, cluster
from ._exclusive import exclusive_momenta
from ._scheme import AbstractScheme


_WHOLE = 1000.0


def n_subjettiness(
    momentum: Float[Array, "constituents 4"],
    mask: Bool[Array, " constituents"],
    axes: Float[Array, "axes 4"],
    *,
    beta: float | Float[Array, ""] = 1.0,
    radius: float = 0.8,
) -> Float[Array, ""]:
    r"""The N-subjettiness of a jet (Thaler, Van Tilburg, arXiv 1011.2268).

    $$\tau_N = \frac{\sum_i p_{T,i} \min_k \Delta R_{ik}^\beta}
      {\sum_i p_{T,i} R_0^\beta}$$

    Differentiable in momenta, axes and `beta`.

    Args:
        momentum: Four-momenta of the constituents of one jet (px, py, pz, E), in GeV.
            Dead slots may hold anything.
        mask: Which slots hold a constituent.
        axes: Four-momenta along the N axes, `kt_axes` for example. One of zero, which
            stands for a missing subjet, counts for nothing.
        beta: Power of the angles, positive.
        radius: Radius R_0 of the jet.

    Returns:
        The N-subjettiness; zero for no constituents.
    """
    pt = safe_norm(sanitise(momentum, mask)[:, :2])
    safe = alive_momentum(momentum, mask)
    exists = jnp.any(axes != 0, axis=1)
    angle = separation(safe[:, None], alive_momentum(axes, exists)[None])
    nearest = jnp.min(jnp.where(exists[None], angle, jnp.inf), axis=1)
    # The derivative of a power at zero may diverge.
    apart = (nearest > 0) & (nearest < jnp.inf)
    power = jnp.where(apart, jnp.where(apart, nearest, 1.0) ** beta, 0.0)
    total = jnp.sum(pt) * radius**beta
    some = total > 0
    return jnp.where(some, jnp.sum(pt * power) / jnp.where(some, total, 1.0), 0.0)


def kt_axes(
    momentum: Float[Array, "constituents 4"],
    mask: Bool[Array, " constituents"],
    *,
    num_axes: int,
    scheme: AbstractScheme | None = None,
    engine: AbstractEngine | None = None,
) -> Float[Array, "axes 4"]:
    """The momenta of the exclusive kt subjets of a jet, as axes of N-subjettiness.

    Args:
        momentum: Four-momenta of the constituents of one jet (px, py, pz, E), in GeV.
            Dead slots may hold anything.
        mask: Which slots hold a constituent.
        num_axes: How many.
        scheme: How momenta are recombined; by `EScheme` unless given. With
            `WinnerTakeAllPt` axes are not moved by soft radiation.
        engine: How the history is found; by `JaxEngine` unless given.

    Returns:
        Four-momenta, pathwise in those of the constituents; zero where there are
        fewer constituents than axes.
    """
    settings = (jnp.asarray(x, momentum.dtype) for x in (_WHOLE, 1.0))
    names = dict(zip(("radius", "power"), settings, strict=True))
    history = cluster(momentum, mask, **names, scheme=scheme, engine=engine)
    return exclusive_momenta(history, momentum, mask, num_jets=num_axes, scheme=scheme)
