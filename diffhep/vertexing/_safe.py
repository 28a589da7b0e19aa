import jax.numpy as jnp

from ..event import Vertices
from ..numerics import sanitise


def safe_vertices(vertices: Vertices) -> Vertices:
    """The vertices with dead slots made safe to compute with.

    Args:
        vertices: Vertices; dead slots may hold anything.

    Returns:
        The same, where dead slots lie at the origin, with a covariance of 1 mm^2, and
        without tracks.
    """
    clean = sanitise(vertices, vertices.mask)
    unit = jnp.eye(3, dtype=vertices.covariance.dtype)[None, :, :]
    return Vertices(
        position=clean.position,
        covariance=jnp.where(vertices.mask[:, None, None], clean.covariance, unit),
        track_weight=clean.track_weight,
        chi2=clean.chi2,
        ndf=clean.ndf,
        mask=vertices.mask,
    )
