import jax
import jax.numpy as jnp
import numpy as np

from diffhep.event import Jets, Particles, Tracks, Vertices
from diffhep.helix import perigee_at, perigee_from_point
from diffhep.tagging import (
    AMBIGUOUS,
    BOTTOM,
    CHARM,
    DISPLACED,
    FROM_BOTTOM,
    FROM_CHARM,
    LIGHT,
    PRIMARY,
    jet_tracks,
    jet_truth,
)


SLOTS, JETS = 6, 3
FIELD = jnp.asarray(2.0)
VERTEX = jnp.asarray([0.01, -0.02, 30.0])
# Transverse momenta: the jets' tracks are not in their order.
CHARGE_OVER_MOMENTUM = jnp.asarray([0.5, -0.1, 0.2, -1.0, 0.4, 0.3])
MASK = jnp.asarray([True, True, True, True, True, False])


def _event(dead=jnp.nan):
    phi = jnp.linspace(-0.2, 0.2, SLOTS)
    exact = jax.vmap(perigee_from_point, (None, 0, None, 0, None))(
        VERTEX, phi, jnp.asarray(1.3), CHARGE_OVER_MOMENTUM, FIELD
    )
    spread = jnp.broadcast_to(1e-4 * jnp.eye(5), (SLOTS, 5, 5))
    tracks = Tracks(
        parameters=jnp.where(MASK[:, None], exact, dead),
        covariance=jnp.where(MASK[:, None, None], spread, dead),
        chi2=jnp.ones(SLOTS),
        ndf=jnp.ones(SLOTS),
        mask=MASK,
    )
    first, second = [True] * 4 + [False, True], [False] * 4 + [True, False]
    member = jnp.asarray([first, second, [True] * SLOTS])
    jets = Jets(
        momentum=jnp.tile(jnp.asarray([[40.0, 0, 10, 42]]), (JETS, 1)),
        membership=member,
        weight=jnp.asarray([1.0, 1.0, 0.0]),
        mask=jnp.asarray([True, True, False]),
    )
    primary = Vertices(
        position=VERTEX[None],
        covariance=1e-4 * jnp.eye(3)[None],
        track_weight=jnp.ones((1, SLOTS)),
        chi2=jnp.ones(1),
        ndf=jnp.ones(1),
        mask=jnp.ones(1, bool),
    )
    return tracks, jets, primary


def test_jets_have_their_hardest_tracks_about_the_primary_vertex():
    tracks, jets, primary = _event()
    found, place, overflow = _collect(tracks, jets, primary, FIELD, num_tracks=3)
    np.testing.assert_array_equal(
        found.mask, [[True] * 3, [True, False, False], [False] * 3]
    )
    np.testing.assert_array_equal(place[0], [1, 2, 0])
    assert place[1, 0] == 4
    np.testing.assert_array_equal(overflow, [True, False, False])
    moved = perigee_at(tracks.parameters[1], VERTEX, FIELD)
    np.testing.assert_allclose(found.parameters[0, 0], moved, atol=1e-12)
    # They were made there.
    np.testing.assert_allclose(found.parameters[0, :, :2], 0, atol=1e-9)
    assert bool(jnp.isfinite(found.parameters).all())
    assert bool(jnp.isfinite(found.covariance).all())


def test_slots_beyond_the_event_are_empty():
    tracks, jets, primary = _event()
    found, _, overflow = _collect(tracks, jets, primary, FIELD, num_tracks=9)
    assert found.parameters.shape == (JETS, 9, 5)
    assert int(found.mask[0].sum()) == 4
    assert not bool(overflow.any())


_collect = jax.jit(jet_tracks, static_argnames="num_tracks")
_label = jax.jit(jet_truth)


def _truth(energy, origin, vertex):
    """The truth about a jet of all six particles, and of none."""
    momentum = jnp.stack([energy, jnp.zeros(SLOTS), jnp.zeros(SLOTS), energy], axis=1)
    particles = Particles(
        momentum=jnp.where(MASK[:, None], momentum, jnp.nan),
        vertex=jnp.where(MASK[:, None], VERTEX[None] + vertex, jnp.nan),
        charge=jnp.asarray([1.0, -1, 1, 0, 1, 1]),
        pdg_id=jnp.full(SLOTS, 211),
        origin=jnp.asarray(origin),
        mask=MASK,
    )
    member = jnp.stack([jnp.ones(SLOTS, bool), jnp.zeros(SLOTS, bool)])
    jets = Jets(
        momentum=jnp.ones((2, 4)),
        membership=member,
        weight=jnp.ones(2),
        mask=jnp.ones(2, bool),
    )
    place = jnp.broadcast_to(jnp.arange(SLOTS)[None], (2, SLOTS))
    return jax.tree.map(
        lambda x: np.asarray(x)[0], _label(particles, VERTEX, jets, place)
    )


def test_truth_about_tracks_and_the_first_decay():
    vertex = jnp.zeros((SLOTS, 3)).at[:, 0].set(jnp.asarray([0, 2, 1, 0.5, 5, 7.0]))
    truth = _truth(jnp.full(SLOTS, 4.0), [0, 5, 5, 5, 0, 5], vertex)
    np.testing.assert_array_equal(
        truth.origin[:5], [PRIMARY, FROM_BOTTOM, FROM_BOTTOM, FROM_BOTTOM, DISPLACED]
    )
    # The nearest is neutral: it left no track.
    np.testing.assert_allclose(truth.flight, [1, 0, 0], atol=1e-12)
    np.testing.assert_allclose(truth.vertex[:5, 0], [0, 2, 1, 0.5, 5], atol=1e-12)


def test_flavour_is_that_of_the_heaviest_hadron_with_energy():
    none = jnp.zeros((SLOTS, 3))
    for energies, origin, flavour in (
        ([9, 9, 9, 9, 9, 9.0], [0, 0, 0, 0, 0, 5], LIGHT),
        ([9, 3, 9, 9, 9, 9.0], [0, 4, 4, 0, 0, 5], CHARM),
        ([9, 3, 9, 9, 9, 9.0], [0, 5, 4, 5, 0, 5], BOTTOM),
        ([9, 3, 9, 9, 9, 9.0], [0, 5, 4, 4, 0, 5], AMBIGUOUS),
        ([9, 3, 9, 9, 9, 9.0], [0, 4, 0, 0, 0, 5], AMBIGUOUS),
    ):
        truth = _truth(jnp.asarray(energies), origin, none)
        assert truth.flavour == flavour, (energies, origin)
    assert _truth(jnp.ones(SLOTS), [4] * 6, none).origin[0] == FROM_CHARM
