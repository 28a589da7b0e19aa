"""A vectorised Gauss-Newton track fit in NumPy: the peer that one would write by hand.

All tracks at once, as arrays [tracks, ...]; the model is the textbook one (crossings of
cylinders, Jacobian by central differences, full covariance of scattering from ours).
"""

import numpy as np


KAPPA = 0.299792458e-3


def hits(parameters: np.ndarray, radii: np.ndarray, field: float) -> np.ndarray:
    """Azimuth and z on cylinders.

    Args:
        parameters: (d0, z0, phi, theta, q/p), shape [tracks, 5], in mm, rad, 1/GeV.
        radii: Radii, shape [layers], in mm.
        field: Field along z, in T.

    Returns:
        Shape [tracks, 2 layers]: azimuths, then z.
    """
    d0, z0, phi, theta, charge = (parameters[:, [i]] for i in range(5))
    omega = KAPPA * charge * field / np.sin(theta)
    shrink = 1 - omega * d0
    normal = (d0 - omega * (radii**2 + d0**2) / 2) / shrink
    chord = np.sqrt((radii**2 - d0**2) / shrink)
    arc = 2 / omega * np.arcsin(omega * chord / 2)
    azimuth = phi + np.arcsin(normal / radii)
    return np.concatenate([azimuth, z0 + arc / np.tan(theta)], axis=1)


def fit(
    measured: np.ndarray,
    weight: np.ndarray,
    start: np.ndarray,
    *,
    radii: np.ndarray,
    field: float,
    steps: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Gauss-Newton steps for all tracks.

    Args:
        measured: Azimuths, then z, shape [tracks, 2 layers].
        weight: Inverse covariance of the hits, shape [tracks, 2 layers, 2 layers].
        start: Where to begin, shape [tracks, 5].
        radii: Radii, in mm.
        field: Field along z, in T.
        steps: How many.

    Returns:
        Parameters [tracks, 5] and their covariance [tracks, 5, 5].
    """
    parameters, layers = start, len(radii)
    step = np.array([1e-4, 1e-3, 1e-6, 1e-6, 1e-6])
    covariance = np.empty((len(start), 5, 5))
    for _ in range(steps):
        residual = measured - hits(parameters, radii, field)
        turns = residual[:, :layers]
        residual[:, :layers] = (turns + np.pi) % (2 * np.pi) - np.pi
        columns = []
        for i in range(5):
            move = np.zeros(5)
            move[i] = step[i]
            up, down = (hits(parameters + s * move, radii, field) for s in (1, -1))
            columns.append((up - down) / (2 * step[i]))
        jacobian = np.stack(columns, axis=2)
        weighted = weight @ jacobian
        covariance = np.linalg.inv(np.swapaxes(jacobian, 1, 2) @ weighted)
        gradient = np.einsum("thi,th->ti", weighted, residual)
        parameters = parameters + np.einsum("tij,tj->ti", covariance, gradient)
    return parameters, covariance
