import equinox as eqx
import jax
import jax.numpy as jnp
import optimistix as optx
from jaxtyping import Array, Bool, Float

from ..geometry import AbstractDetector
from ..helix import Ionisation
from ..numerics import inverse_spd, matmul, matvec, safe_sqrt
from ._fit import TrackFit, fit_hits
from ._information import LinearTrack, states_at_layers
from ._measurement import linearise, prepare
from ._prior import TrackPrior, prior_information


class SmoothedTrack(eqx.Module):
    """A fitted track, and where it passed each layer given all hits."""

    fit: TrackFit
    """The track at its perigee."""
    parameters: Float[Array, "layers 5"]
    """The helix on which the track arrives at each layer, described at its perigee:
    (d0 [mm], z0 [mm], phi [rad], theta [rad], q/p [1/GeV]). In the order of the
    layers, like all that follows."""
    covariance: Float[Array, "layers 5 5"]
    """Covariance of each."""
    residual: Float[Array, "layers 2"]
    """Measured minus smoothed position, in the units of the layer; zero without hit."""
    residual_covariance: Float[Array, "layers 2 2"]
    """Covariance of the residual: that of the measurement minus that of the smoothed
    position. The unit matrix without hit."""
    chi2: Float[Array, " layers"]
    """By how much the hit raises chi-squared, 2 degrees of freedom; zero without hit,
    and where the others do not determine the track."""

    @property
    def pull(self) -> Float[Array, "*batch layers 2"]:
        """Residual over its standard deviation: standard normal for good hits."""
        variance = jnp.diagonal(self.residual_covariance, axis1=-2, axis2=-1)
        width = safe_sqrt(variance)
        return jnp.where(width > 0, self.residual, 0.0) / jnp.where(
            width > 0, width, 1.0
        )


def smooth_track(
    position: Float[Array, "layers 2"],
    mask: Bool[Array, " layers"],
    detector: AbstractDetector,
    *,
    weight: Float[Array, " layers"] | None = None,
    seed: Float[Array, " 5"] | None = None,
    prior: TrackPrior | None = None,
    ionisation: Ionisation | None = None,
    num_steps: int = 5,
    adjoint: optx.AbstractAdjoint | None = None,
) -> SmoothedTrack:
    """A track by an iterated extended Kalman filter, with the smoother.

    In the two-filter form (Fraser and Potter, IEEE Trans. Autom. Control 14 (1969)
    387): what the hits further out say and what those further in say, each by an
    information filter, are added at every layer. At the perigee it is `fit_track`.

    Args:
        position: What was measured on each layer, in rad or mm; see the layers. Dead
            entries may hold anything.
        mask: Which hits were found. Layers without a hit scatter all the same.
        detector: The detector.
        weight: How much each hit counts; see `fit_track`.
        seed: Parameters to start from; see `fit_track`.
        prior: What is known besides; see `fit_track`.
        ionisation: How much energy a pion loses in the material; none unless given.
        num_steps: How often the filter runs, each time about the last result.
        adjoint: How the gradient crosses the iteration; implicit unless given.

    Returns:
        The track at its perigee and at all layers. It is not `found` with less than 3
        hits.
    """
    hits, found = prepare(
        position,
        mask,
        detector,
        weight=weight,
        seed=seed,
        prior=prior,
        ionisation=ionisation,
    )
    parameters, fit = fit_hits(hits, found, num_steps=num_steps, adjoint=adjoint)
    track = linearise(parameters, hits)
    known = None if prior is None else prior_information(parameters, prior)
    forms = states_at_layers(track, known)
    covariance = jax.vmap(inverse_spd)(forms[:, :5, :5])
    shift = jax.vmap(matvec)(covariance, forms[:, :5, 5])
    smoothed = parameters[None, :] + shift
    if hits.errors.drift is not None:
        smoothed = smoothed + hits.errors.drift
    residual, spread, chi2 = jax.vmap(_compare)(track, covariance, shift)
    layers = (smoothed, covariance, residual, spread, chi2)
    if hits.errors.order is not None:
        back = jnp.argsort(hits.errors.order)
        layers = jax.tree.map(lambda x: x[back], layers)
    return SmoothedTrack(fit, *layers)


def _compare(
    layer: LinearTrack, covariance: Float[Array, "5 5"], shift: Float[Array, " 5"]
) -> tuple[Float[Array, " 2"], Float[Array, "2 2"], Float[Array, ""]]:
    # The residual to the smoothed position, its covariance and its chi-squared.
    alive = layer.weight > 0
    jacobian = layer.rows[:, :5]
    residual = jnp.where(alive, layer.rows[:, 5] - matvec(jacobian, shift), 0.0)
    variance = jnp.where(alive, 1 / jnp.where(alive, layer.weight, 1.0), 1.0)
    smoothed = matmul(jacobian, matmul(covariance, jacobian.T))
    spread = jnp.eye(2, dtype=variance.dtype) * variance[:, None] - smoothed
    # In units of the measurement: what is left if the hit is needed is rounding.
    scale = 1 / jnp.sqrt(variance)
    share = spread * scale[:, None] * scale[None, :]
    determinant = share[0, 0] * share[1, 1] - share[0, 1] * share[1, 0]
    tested = determinant > jnp.sqrt(jnp.finfo(variance.dtype).eps)
    identity = jnp.eye(2, dtype=variance.dtype)
    weight = inverse_spd(jnp.where(tested & alive[0], share, identity))
    pulls = residual * scale
    chi2 = jnp.sum(pulls * matvec(weight, pulls))
    return residual, spread, jnp.where(tested, chi2, 0.0)
