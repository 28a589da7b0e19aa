import enum

from jaxtyping import Array, Int


class Status(enum.IntFlag):
    """What went wrong in an event. Bits, so that stages can add theirs."""

    OK = 0
    PARTICLE_OVERFLOW = 1
    JET_OVERFLOW = 2
    TRACK_FIT_FAILED = 4
    VERTEX_FIT_FAILED = 8
    NOISE_OVERFLOW = 16
    VERTEX_OVERFLOW = 32
    TRACK_LEFT_OUT = 64
    TRACK_OVERFLOW = 128


_SENTENCES = {
    Status.PARTICLE_OVERFLOW: (
        "more particles passed the acceptance than the capacity holds, and the softest "
        "were left out; raise `particles` in the capacities"
    ),
    Status.JET_OVERFLOW: (
        "more jets lie above the threshold than the capacity holds, and the softest "
        "were left out; raise `num_jets` of `ClusterJets`"
    ),
    Status.TRACK_FIT_FAILED: (
        "a track fit did not converge and its track was dropped; look at the hits of "
        "the event, or raise `num_steps` of `FitTracks`"
    ),
    Status.VERTEX_FIT_FAILED: (
        "a vertex fit did not converge and its vertex was masked; raise `num_steps`"
    ),
    Status.NOISE_OVERFLOW: (
        "more noise hits were drawn on a layer than the capacity holds, and the rest "
        "were left out; raise `capacity` of `AddNoise`, or lower its `occupancy`"
    ),
    Status.VERTEX_OVERFLOW: (
        "more collisions were seen along the beam than the capacity holds, and those "
        "where tracks are least dense were left out; raise `num_vertices` of "
        "`FindPrimaryVertices`"
    ),
    Status.TRACK_LEFT_OUT: (
        "the covariance of a track was not positive definite, and the vertex fits left "
        "it out; give each of its parameters a variance"
    ),
    Status.TRACK_OVERFLOW: (
        "a jet has more tracks than the capacity holds, and the softest were left out; "
        "raise `num_tracks` of `TagFlavours`"
    ),
}


def explain_status(status: Int[Array, " events"]) -> dict[str, int]:
    """How many events carry each problem, in sentences with a remedy.

    Args:
        status: The `status` of a batch of events.

    Returns:
        From sentence to number of events; empty if all went well.
    """
    counts = {
        sentence: int(((status & int(flag)) != 0).sum())
        for flag, sentence in _SENTENCES.items()
    }
    return {sentence: number for sentence, number in counts.items() if number}
