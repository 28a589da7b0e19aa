import numpy as np
from jaxtyping import Float

from ..helix import KAPPA
from ._style import AnyArray


def _transverse_curvature(parameters: np.ndarray, field: float) -> float:
    # omega = (q/p) B kappa / sin(theta): the azimuth falls by omega per mm.
    return KAPPA * field * parameters[4] / np.sin(parameters[3])


def helix_points(
    parameters: Float[AnyArray, " 5"], field: float, arcs: Float[AnyArray, " points"]
) -> Float[np.ndarray, "points 3"]:
    """Positions along a track.

    Args:
        parameters: (d0, z0, phi, theta, q/p) in mm, rad, 1/GeV: the perigee to the z
            axis in the convention of ACTS.
        field: Magnetic field along z, in T.
        arcs: Transverse arc lengths from the perigee, in mm. Negative is backwards.

    Returns:
        Coordinates (x, y, z), in mm.
    """
    track, s = np.asarray(parameters, float), np.asarray(arcs, float)
    d0, z0, phi, theta, _ = track
    half_turn = _transverse_curvature(track, field) * s / 2
    # numpy's sinc is sin(pi x) / (pi x), regular at zero.
    chord = s * np.sinc(half_turn / np.pi)
    heading = phi - half_turn
    x = -d0 * np.sin(phi) + chord * np.cos(heading)
    y = d0 * np.cos(phi) + chord * np.sin(heading)
    return np.stack([x, y, z0 + s / np.tan(theta)], axis=-1)


def arcs_to_radii(
    parameters: Float[AnyArray, " 5"], field: float, radii: Float[AnyArray, " radii"]
) -> Float[np.ndarray, " radii"]:
    """Transverse arc lengths from the perigee to cylinders about the z axis.

    With the chord c = (2 / omega) sin(omega s / 2) the radius obeys
    r^2 = d0^2 + c^2 (1 - omega d0).

    Args:
        parameters: (d0, z0, phi, theta, q/p) in mm, rad, 1/GeV.
        field: Magnetic field along z, in T.
        radii: Radii of the cylinders, in mm.

    Returns:
        Arc lengths, in mm; NaN where the track does not reach a cylinder.
    """
    track, radius = np.asarray(parameters, float), np.asarray(radii, float)
    omega = _transverse_curvature(track, field)
    chord2 = (radius**2 - track[0] ** 2) / (1 - omega * track[0])
    chord = np.sqrt(np.where(chord2 >= 0, chord2, np.nan))
    half_sine = omega * chord / 2
    reached = np.abs(half_sine) <= 1
    half_turn = np.arcsin(np.where(reached, half_sine, np.nan))
    return chord / np.sinc(half_turn / np.pi)


def covariance_ellipse(
    covariance: Float[AnyArray, "2 2"], num_sigma: float
) -> tuple[float, float, float]:
    """Semi-axes and direction of the contour of a bivariate Gaussian.

    Args:
        covariance: Covariance matrix, in mm^2.
        num_sigma: Mahalanobis distance of the contour.

    Returns:
        Long semi-axis and short semi-axis in mm, and the angle of the long one to the
        horizontal axis in rad.
    """
    matrix = np.asarray(covariance, float)
    variances, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    short, long = num_sigma * np.sqrt(np.maximum(variances, 0))
    return float(long), float(short), float(np.arctan2(vectors[1, 1], vectors[0, 1]))
