from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optimistix as optx
from jaxtyping import PRNGKeyArray

from ..estimators import Gradient
from ..event import Event, Status, Tracks
from ..geometry import detector_of
from ..helix import Ionisation
from ..pipeline import AbstractStage
from ._fit import fit_track


class FitTracks(AbstractStage):
    """Stage: `hits` and `detector` in, `tracks` out.

    Each particle's hits are known to belong together. A track needs 3 hits. A fit that
    does not converge is dropped and sets `Status.TRACK_FIT_FAILED`.
    """

    ionisation: Ionisation | None = None
    """How much energy a pion loses in the material; none if None."""
    num_steps: int = eqx.field(static=True, default=5)
    """Gauss-Newton steps from a seed in closed form."""
    adjoint: optx.AbstractAdjoint = optx.ImplicitAdjoint()
    """How the gradient crosses the fit."""

    reads: ClassVar[frozenset[str]] = frozenset({"hits", "detector"})
    writes: ClassVar[frozenset[str]] = frozenset({"tracks"})

    @property
    def gradient(self) -> Gradient:
        """Exact, for given hits."""
        return Gradient.EXACT

    def __call__(self, event: Event, *, key: PRNGKeyArray) -> Event:
        """The event with its tracks."""
        del key
        hits, detector = event.hits, detector_of(event.detector)
        if hits is None:
            raise ValueError("The event lacks `hits`; run `SimulateHits` before.")

        def fit(position, mask):
            return fit_track(
                position,
                mask,
                detector,
                ionisation=self.ionisation,
                num_steps=self.num_steps,
                adjoint=self.adjoint,
            )

        fits = jax.vmap(fit)(hits.position, hits.mask)
        tracks = Tracks(
            parameters=fits.parameters,
            covariance=fits.covariance,
            chi2=fits.chi2,
            ndf=fits.ndf,
            mask=fits.found & fits.converged,
        )
        failed = jnp.any(fits.found & ~fits.converged)
        return event.replace(tracks=tracks).flag(Status.TRACK_FIT_FAILED, failed)
