import equinox as eqx
from jaxtyping import Array, Bool


class VertexStatus(eqx.Enumeration):
    """How the fit of a vertex ended."""

    good = "The vertex is fitted."
    no_tracks = "No track has a weight: the vertex is the prior."
    singular_track = (
        "The covariance of a track is not positive definite: it was left out, and the "
        "others are fitted. Give each parameter a variance, however small or large."
    )
    undetermined = (
        "Tracks and prior leave a direction open, within rounding, or a track is not "
        "finite: the covariance is the prior's. Fit in double precision, or choose a "
        "narrower prior."
    )
    not_converged = (
        "The fit did not reach its solution: the start may be far away, or more steps "
        "are needed (`num_steps`)."
    )


def vertex_status(
    *,
    empty: Bool[Array, ""],
    dropped: Bool[Array, ""],
    regular: Bool[Array, ""],
    close: Bool[Array, ""],
) -> VertexStatus:
    """How a fit ended: the worst of what happened to it.

    Args:
        empty: Whether no track has a weight.
        dropped: Whether a track was left out.
        regular: Whether the position is determined.
        close: Whether the solution was reached.

    Returns:
        The status.
    """
    status = VertexStatus.where(empty, VertexStatus.no_tracks, VertexStatus.good)
    status = VertexStatus.where(dropped, VertexStatus.singular_track, status)
    status = VertexStatus.where(close, status, VertexStatus.not_converged)
    return VertexStatus.where(regular, status, VertexStatus.undetermined)
