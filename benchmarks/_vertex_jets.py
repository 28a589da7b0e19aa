"""Jets with one vertex each, for the benchmark of vertex fits."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffhep.helix import perigee_from_point


FIELD = 2.0
TRACKS = 15
# d0 and z0 in mm, phi and theta; q/p has 1 %.
_WIDTHS = (0.02, 0.03, 4e-4, 4e-4)


class VertexJets(NamedTuple):
    """Measured tracks of jets, and where they come from; in double precision."""

    parameters: np.ndarray
    """Track parameters about the origin, of shape (jets, tracks, 5)."""
    covariance: np.ndarray
    """Their covariance, with correlations."""
    weight: np.ndarray
    """Weights from 0.2 to 1, for the gradients."""
    vertex: np.ndarray
    """The true vertices, 1 to 9 mm from the beam line, of shape (jets, 3)."""


def draw_jets(number: int, *, displaced: bool = True) -> VertexJets:
    """Jets with all tracks from one vertex.

    Axes are central, tracks lie within 0.15 (one standard deviation) of them, momenta
    are from 1 to 30 GeV.

    Args:
        number: How many.
        displaced: Whether they start millimetres away from the beam line, or within 10
            micrometres.

    Returns:
        The jets.
    """
    random = np.random.default_rng(1)
    shape = (number, TRACKS)
    azimuth = random.uniform(-3.1, 3.1, (number, 1))
    polar = np.pi / 2 + random.uniform(-0.7, 0.7, (number, 1))
    phi = azimuth + random.normal(0, 0.15, shape)
    theta = polar + random.normal(0, 0.15, shape)
    momentum = np.exp(random.uniform(0, np.log(30), shape))
    charge = random.choice([-1.0, 1.0], shape)
    length = random.uniform(2.0, 9.0, (number, 1))
    axis = [np.sin(polar) * np.cos(azimuth), np.sin(polar) * np.sin(azimuth)]
    vertex = length * np.concatenate([*axis, np.cos(polar)], axis=1)
    if not displaced:
        vertex = random.normal(0, [0.01, 0.01, 5.0], (number, 3))
    exact = jax.jit(
        jax.vmap(
            jax.vmap(perigee_from_point, (None, 0, 0, 0, None)), (0, 0, 0, 0, None)
        )
    )(*map(jnp.asarray, (vertex, phi, theta, charge / momentum)), jnp.asarray(FIELD))
    width = np.broadcast_to([*_WIDTHS, 1.0], (*shape, 5)).copy()
    width[..., 4] = 0.01 / momentum
    mixing = 0.3 * np.tril(random.normal(size=(*shape, 5, 5)), -1)
    root = width[..., None] * (np.eye(5) + mixing)
    noise = random.normal(size=(*shape, 5))
    measured = np.asarray(exact) + np.einsum("jtab,jtb->jta", root, noise)
    covariance = root @ np.swapaxes(root, -1, -2)
    return VertexJets(measured, covariance, random.uniform(0.2, 1, shape), vertex)
