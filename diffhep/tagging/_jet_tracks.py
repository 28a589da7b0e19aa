import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ..event import Jets, Particles, Tracks, Vertices
from ..helix import move_perigee
from ..numerics import sanitise
from ..vertexing import safe_vertices


PRIMARY = 0
"""Origin of a track: the collision itself."""
FROM_BOTTOM = 1
"""Origin of a track: a decay chain with a bottom hadron."""
FROM_CHARM = 2
"""Origin of a track: a decay chain with a charmed hadron and no bottom hadron."""
DISPLACED = 3
"""Origin of a track: another decay in flight, of a strange particle mostly."""
NUM_ORIGINS = 4
LIGHT = 0
"""Flavour of a jet: neither charm nor bottom."""
CHARM = 1
"""Flavour of a jet."""
BOTTOM = 2
"""Flavour of a jet."""
NUM_FLAVOURS = 3
AMBIGUOUS = -1
"""The flavour of a jet with a hadron of too little energy."""

# A production vertex further from the collision than this is displaced; two that are
# nearer to each other are one. In mm; single precision leaves 3 micrometres.
_APART = 0.01
_DISPLACED = 0.1
# Energy of what a heavy hadron leaves in a jet of its flavour, in GeV.
_LEAST_ENERGY = 5.0


class JetTracks(eqx.Module):
    """A jet and its tracks as a tagger sees them; with a leading axis, several."""

    parameters: Float[Array, "*jets tracks 5"]
    """Track parameters about the primary vertex."""
    covariance: Float[Array, "*jets tracks 5 5"]
    """Their covariance, without that of the vertex."""
    mask: Bool[Array, "*jets tracks"]
    """Which slots hold a track."""
    momentum: Float[Array, "*jets 4"]
    """Four-momentum of the jet (px, py, pz, E), in GeV."""
    primary_covariance: Float[Array, "*jets 3 3"]
    """Covariance of the primary vertex, in mm^2."""
    field: Float[Array, "*jets"]
    """Magnetic field along z, in T."""


class JetTruth(eqx.Module):
    """What a tagger is taught about a jet; with a leading axis, about several."""

    flavour: Int[Array, "*jets"]
    """`LIGHT`, `CHARM` or `BOTTOM`; `AMBIGUOUS` is neither."""
    origin: Int[Array, "*jets tracks"]
    """`PRIMARY`, `FROM_BOTTOM`, `FROM_CHARM` or `DISPLACED`."""
    vertex: Float[Array, "*jets tracks 3"]
    """Production vertex of each track from the true collision point, in mm."""
    flight: Float[Array, "*jets 3"]
    """From the collision to the first decay of a heavy hadron that left a track, in mm;
    zero without one."""


def jet_tracks(
    tracks: Tracks,
    jets: Jets,
    primary: Vertices,
    field: Float[Array, ""],
    *,
    num_tracks: int,
) -> tuple[JetTracks, Int[Array, "jets slots"], Bool[Array, " jets"]]:
    """The jets of an event, each with its hardest tracks about the primary vertex.

    Which tracks those are is decided by order and has no derivative; a track enters
    with the smallest momentum of all.

    Args:
        tracks: Tracks about the origin.
        jets: Jets, whose constituents' slots are those of the tracks.
        primary: The primary vertex, in one slot.
        field: Magnetic field along z, in T.
        num_tracks: Slots for the tracks of a jet.

    Returns:
        The jets; the slot of each of their tracks in the event; and which jets have
        more tracks than slots.
    """
    primary = safe_vertices(primary)
    safe = sanitise(tracks.parameters, tracks.mask, fill=1.0)
    unit = jnp.eye(5, dtype=safe.dtype)
    spread = jnp.where(tracks.mask[:, None, None], tracks.covariance, unit[None])
    parameters, covariance = jax.vmap(move_perigee, (0, 0, None, None))(
        safe, spread, primary.position[0], field
    )
    member = jets.membership & jets.mask[:, None] & tracks.mask[None, :]
    pt = jnp.sin(safe[:, 3]) / jnp.abs(safe[:, 4])
    order = jnp.where(member, jax.lax.stop_gradient(pt)[None, :], -1.0)
    hardest, place = jax.lax.top_k(order, min(num_tracks, order.shape[1]))
    missing = (0, 0), (0, num_tracks - place.shape[1])
    place = jnp.pad(place, missing)
    mask = jnp.pad(hardest, missing, constant_values=-1.0) > 0
    number = jets.mask.shape[0]
    found = JetTracks(
        parameters=parameters[place],
        covariance=covariance[place],
        mask=mask,
        momentum=jets.momentum,
        primary_covariance=jnp.broadcast_to(primary.covariance, (number, 3, 3)),
        field=jnp.broadcast_to(field, (number,)),
    )
    return found, place, jnp.sum(member, axis=1) > num_tracks


def jet_truth(
    particles: Particles,
    truth_vertex: Float[Array, " 3"],
    jets: Jets,
    place: Int[Array, "jets slots"],
) -> JetTruth:
    """The truth about the jets of an event and their tracks.

    The flavour is that of the heaviest hadron whose decay products bring at least 5 GeV
    into the jet, `LIGHT` if no heavy hadron brings anything, and else `AMBIGUOUS`.

    Args:
        particles: The particles, in the slots of the tracks.
        truth_vertex: The collision point, in mm.
        jets: The jets.
        place: The slot of each of their tracks, from `jet_tracks`.

    Returns:
        The truth.
    """
    clean = sanitise(particles, particles.mask)
    vertex = clean.vertex - truth_vertex[None, :]
    apart = jnp.sqrt(jnp.sum(vertex**2, axis=1))
    other = jnp.where(apart > _DISPLACED, DISPLACED, PRIMARY)
    origin = jnp.select(
        [clean.origin == 5, clean.origin == 4],
        [FROM_BOTTOM, FROM_CHARM],
        other,
    )
    member = jets.membership & jets.mask[:, None] & particles.mask[None, :]
    energy = jnp.where(member, clean.momentum[None, :, 3], 0.0)
    bottom = energy @ (origin == FROM_BOTTOM).astype(energy.dtype)
    charm = energy @ (origin == FROM_CHARM).astype(energy.dtype)
    flavour = jnp.select(
        [bottom > _LEAST_ENERGY, bottom > 0, charm > _LEAST_ENERGY, charm > 0],
        [BOTTOM, AMBIGUOUS, CHARM, AMBIGUOUS],
        LIGHT,
    )
    heavy = (origin == FROM_BOTTOM) | (origin == FROM_CHARM)
    charged = heavy & (particles.charge != 0)
    distance = jnp.where(member & charged[None, :], apart[None, :], jnp.inf)
    first = jnp.argmin(distance, axis=1)
    known = jnp.isfinite(jnp.min(distance, axis=1))
    return JetTruth(
        flavour=flavour,
        origin=origin[place],
        vertex=vertex[place],
        flight=jnp.where(known[:, None], vertex[first], 0.0),
    )


def same_vertex(
    truth: JetTruth, mask: Bool[Array, " tracks"]
) -> tuple[Bool[Array, "tracks tracks"], Bool[Array, "tracks tracks"]]:
    """Which pairs of a jet's tracks were produced at the same point.

    Args:
        truth: The truth about one jet.
        mask: Which of its slots hold a track.

    Returns:
        Whether they were; and which pairs there are, each once.
    """
    between = truth.vertex[:, None] - truth.vertex[None, :]
    together = jnp.sum(between**2, axis=-1) < _APART**2
    first = jnp.arange(mask.shape[0])
    pairs = mask[:, None] & mask[None, :] & (first[:, None] < first[None, :])
    return together, pairs
