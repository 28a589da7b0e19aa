"""Events of ZH with H to b bbar at 14 TeV, and the mass of their two leading jets."""

import functools

import jax.numpy as jnp
import numpy as np
from jax.lax import stop_gradient
from jaxtyping import Array, Bool, Float

from diffhep.event import MergeHistory
from diffhep.generator import (
    GeneratorConfig,
    Process,
    default_cache,
    generate_events,
    load_events,
)
from diffhep.jets import jets_from_history


MASS = 125.0
"""Of the Higgs boson, in GeV."""
WINDOW = 15.0
"""Half the width of the mass window, in GeV."""
_MIN_PT, _MAX_RAPIDITY = 20.0, 2.5
_LEADING = 6


@functools.cache
def load(
    number: int, *, seed: int, min_pt: float, max_eta: float, slots: int
) -> tuple[np.ndarray, np.ndarray]:
    """Momenta and masks of visible particles.

    Args:
        number: How many events.
        seed: Of the generator; another one, other events.
        min_pt: Least transverse momentum, in GeV.
        max_eta: Largest absolute pseudorapidity.
        slots: How many particles there is room for; the hardest are kept.

    Returns:
        Arrays of shape (events, slots, 4), in GeV, and (events, slots).
    """
    process = Process(
        name="zh_nunubb_inclusive",
        label=1,
        commands=(
            "HiggsSM:ffbar2HZ=on",
            "23:onMode=off",
            "23:onIfAny=12 14 16",
            "25:onMode=off",
            "25:onIfMatch=5 -5",
        ),
        num_tried=number,
        chunk_size=max(number // 4, 1),
    )
    config = GeneratorConfig(
        name="higgs-jets",
        processes=(process,),
        min_pt=min_pt,
        max_eta=max_eta,
        seed=seed,
    )
    folder = generate_events(config, cache=default_cache())
    particles = load_events(folder, capacity=slots).events.particles
    return np.asarray(particles.momentum), np.asarray(particles.mask)


def dijet_mass(
    history: MergeHistory,
    momentum: Float[Array, "constituents 4"],
    mask: Bool[Array, " constituents"],
) -> Float[Array, ""]:
    """The mass of the two leading jets above 20 GeV within |y| < 2.5; zero without two.

    Args:
        history: Which pseudojets merged.
        momentum: Four-momenta, in GeV.
        mask: Which slots hold a particle.

    Returns:
        The mass, in GeV; pathwise in the momenta.
    """
    jets, _ = jets_from_history(
        history, momentum, mask, num_jets=_LEADING, threshold=0.0, width=1.0
    )
    p = jnp.where(
        jets.mask[:, None],
        jets.momentum,
        jnp.asarray([0.0, 0.0, 0.0, 1.0], jets.momentum.dtype),
    )
    px, py, pz, energy = stop_gradient(p).T
    rapidity = jnp.arctanh(jnp.clip(pz / energy, -0.999999, 0.999999))
    good = jets.mask & (jnp.hypot(px, py) > _MIN_PT)
    good &= jnp.abs(rapidity) < _MAX_RAPIDITY
    rank = jnp.cumsum(good)
    total = jnp.sum(jnp.where((good & (rank <= 2))[:, None], p, 0.0), axis=0)
    mass2 = total[3] ** 2 - jnp.sum(total[:3] ** 2)
    two = jnp.sum(good) >= 2
    return jnp.where(two, jnp.sqrt(jnp.where(two & (mass2 > 0), mass2, 1.0)), 0.0)
