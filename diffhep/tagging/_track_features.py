import jax.numpy as jnp
from jaxtyping import Array, Float

from ..vertexing import Impact, impact_at, track_state, with_vertex_covariance
from ._features import lifetime_signs, track_momenta
from ._jet_tracks import JetTracks


TRACK_FEATURES = 10
JET_FEATURES = 3
# Lengths in mm, angles in rad: where a logarithm takes over from proportionality.
_LENGTH, _ANGLE = 0.05, 0.05


def track_features(
    jet: JetTracks,
) -> tuple[Float[Array, "tracks features"], Float[Array, " jet_features"]]:
    """What a network is told of each track of a jet, and of the jet.

    Numbers of order one by fixed scales: impact parameters with the lifetime sign, in
    standard deviations and in mm, their errors, the momentum, alone and relative to the
    jet's, and the direction relative to the jet's. Smooth in everything.

    Args:
        jet: The jet.

    Returns:
        `TRACK_FEATURES` numbers for each track, zero in dead slots; and `JET_FEATURES`
        for the jet.
    """
    zero = jnp.zeros_like(jet.momentum[:3])
    state = track_state(jet.parameters, jet.covariance, jet.mask, jet.field)
    impact = with_vertex_covariance(
        impact_at(state, zero[:, None]), jet.primary_covariance
    )
    clean = jnp.where(jet.mask[:, None], jet.parameters, 1.0)
    x, y, z, _ = track_momenta(clean)
    pt = jnp.sqrt(x**2 + y**2)
    across, along, _, _ = jet.momentum
    jet_pt = jnp.sqrt(across**2 + along**2)
    azimuth = (across * y - along * x) / (jet_pt * pt)
    rapidity = jnp.arcsinh(z / pt) - jnp.arcsinh(jet.momentum[2] / jet_pt)
    each = [
        *_displacement(impact, jet.momentum),
        jnp.log(pt) / 2,
        jnp.log(pt / jet_pt) / 2 + 1,
        jnp.arcsinh(azimuth / _ANGLE) / 2,
        jnp.arcsinh(rapidity / _ANGLE) / 2,
    ]
    number = jnp.sum(jet.mask.astype(pt.dtype))
    whole = [
        jnp.log(jet_pt / 50.0),
        jnp.arcsinh(jet.momentum[2] / jet_pt),
        jnp.log1p(number) / 2 - 1,
    ]
    stacked = jnp.where(jet.mask[:, None], jnp.stack(each, axis=1), 0.0)
    return stacked, jnp.stack(whole)


def _displacement(
    impact: Impact, momentum: Float[Array, " 4"]
) -> list[Float[Array, " tracks"]]:
    error_d0, error_z0 = jnp.sqrt(impact.variance_d0), jnp.sqrt(impact.variance_z0)
    sign_d0, sign_z0 = lifetime_signs(momentum, impact)
    d0, z0 = impact.d0 * sign_d0, impact.z0 * sign_z0
    return [
        jnp.arcsinh(d0 / error_d0) / 2,
        jnp.arcsinh(z0 / error_z0) / 2,
        jnp.arcsinh(d0 / _LENGTH) / 2,
        jnp.arcsinh(z0 / _LENGTH) / 2,
        jnp.log(error_d0 / _LENGTH) / 2,
        jnp.log(error_z0 / _LENGTH) / 2,
    ]
