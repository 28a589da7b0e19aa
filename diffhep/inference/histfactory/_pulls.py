"""Where a fit moves the parameters, and how little freedom it leaves them."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from ...numerics import safe_sqrt
from .._newton import FitResult, standard_deviations
from ._model import HistFactoryData, HistFactoryModel
from ._prepare import find_places, prepare


class Pulls(eqx.Module):
    """Of each parameter with a constraint; NaN for all others."""

    shift: Float[Array, " parameters"]
    """Fitted value less the auxiliary measurement, over this one's standard deviation:
    the convention of most plots."""
    significance: Float[Array, " parameters"]
    r"""The same difference over its own standard deviation, $\sqrt{\sigma_0^2 -
    \hat\sigma^2}$: normally distributed if the model is true. NaN where the fit leaves
    the parameter all its freedom."""
    constraint: Float[Array, " parameters"]
    """Standard deviation after the fit, over that before."""


def pulls(model: HistFactoryModel, data: HistFactoryData, best: FitResult) -> Pulls:
    """Pulls and constraints of the nuisance parameters, in both conventions.

    Args:
        model: The model.
        data: What was fitted.
        best: The fit.

    Returns:
        The pulls. A Poisson constraint counts with the standard deviation that it has
        at the observed number of events.
    """
    prepared, places = prepare(model), find_places(model.layout)
    empty = jnp.full_like(best.parameters, jnp.nan)
    events = data.auxiliary[places.poisson_slot]
    centre = empty.at[places.normal].set(data.auxiliary[places.normal_slot])
    centre = centre.at[places.poisson].set(events / prepared.strength)
    width = empty.at[places.normal].set(prepared.width)
    width = width.at[places.poisson].set(safe_sqrt(events) / prepared.strength)
    after = standard_deviations(best)
    moved = best.parameters - centre
    spread = safe_sqrt(width**2 - after**2)
    safe = jnp.where(spread > 0, spread, 1.0)
    significance = jnp.where(spread > 0, moved / safe, jnp.nan)
    return Pulls(moved / width, significance, after / width)
