from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ..estimators import Gradient
from ..event import Event, Towers
from ..pipeline import AbstractStage
from ._calorimeter import smear_energy


class MeasureTowers(AbstractStage):
    """Stage: neutral `particles` in, `towers` out.

    A tower points where the particle flies, from the origin and without a mass: the
    displacement of a vertex by millimetres is nothing against metres of lever arm.
    Charged particles leave none: their energy is measured by their tracks.
    """

    stochastic: Float[Array, ""] = eqx.field(default_factory=lambda: jnp.asarray(0.2))
    """Stochastic term of the energy resolution, in sqrt(GeV), positive. The default
    lies between those of photons (0.1) and neutral hadrons (0.5): one for both."""
    constant: Float[Array, ""] = eqx.field(default_factory=lambda: jnp.asarray(0.02))
    """Constant term of the relative energy resolution."""

    reads: ClassVar[frozenset[str]] = frozenset({"particles"})
    writes: ClassVar[frozenset[str]] = frozenset({"towers"})

    @property
    def gradient(self) -> Gradient:
        """Exact: the energies are pathwise in the resolution."""
        return Gradient.EXACT

    def __call__(self, event: Event, *, key: PRNGKeyArray) -> Event:
        """The event with its towers."""
        particles = event.particles
        if particles is None:
            raise ValueError("The event lacks `particles`; load events first.")
        mask = particles.mask & (particles.charge == 0)
        canned = jnp.asarray([1.0, 0.0, 0.0, 1.0], particles.momentum.dtype)
        momentum = jnp.where(mask[:, None], particles.momentum, canned[None, :])
        noise = jax.random.normal(key, mask.shape, momentum.dtype)
        energy = jax.vmap(smear_energy, in_axes=(0, None, None, 0))(
            momentum[:, 3], self.stochastic, self.constant, noise
        )
        direction = momentum[:, :3]
        length = jnp.sqrt(jnp.sum(direction**2, axis=1))
        flight = direction * (energy / length)[:, None]
        towers = jnp.concatenate([flight, energy[:, None]], axis=1)
        return event.replace(towers=Towers(momentum=towers, mask=mask))
