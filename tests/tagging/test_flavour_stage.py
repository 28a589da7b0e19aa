import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffhep.event import Event, Jets, Status, Tracks, Vertices, explain_status
from diffhep.geometry import default_barrel
from diffhep.helix import perigee_from_point
from diffhep.tagging import TagFlavours


SLOTS = 7
PRIMARY = np.array([0.02, -0.01, 5.0])
AXIS = np.array([0.6, 0.7, 0.2])
FLIGHT = 3.0 * AXIS / np.linalg.norm(AXIS)
WIDTHS = jnp.asarray([0.01, 0.02, 1e-3, 1e-3, 1e-3])


def _event():
    """A jet of five tracks from one vertex, one without tracks, one without weight."""
    swing = jnp.linspace(-0.3, 0.3, SLOTS)
    phi = float(np.arctan2(AXIS[1], AXIS[0])) + swing
    theta = float(np.arccos(AXIS[2] / np.linalg.norm(AXIS))) + 0.7 * swing**2
    field = default_barrel().field
    parameters = jax.vmap(perigee_from_point, (None, 0, 0, 0, None))(
        jnp.asarray(PRIMARY + FLIGHT), phi, theta, 0.1 + 0.1 * swing**2, field
    )
    covariance = jnp.broadcast_to(jnp.diag(WIDTHS**2), (SLOTS, 5, 5))
    mask = jnp.arange(SLOTS) != 2
    in_jet = jnp.arange(SLOTS) < SLOTS - 1
    none = jnp.zeros(SLOTS, bool)
    return Event(
        detector=default_barrel(),
        tracks=Tracks(parameters, covariance, jnp.ones(SLOTS), jnp.ones(SLOTS), mask),
        jets=Jets(
            momentum=jnp.asarray([[36.0, 42, 12, 58], [-30, 0, 0, 30.0], [0, 0, 0, 0]]),
            membership=jnp.stack([in_jet, none, none]),
            weight=jnp.asarray([0.8, 1.0, 0.0]),
            mask=jnp.asarray([True, True, True]),
        ),
        primary_vertex=Vertices(
            position=jnp.asarray(PRIMARY)[None],
            covariance=1e-4 * jnp.eye(3)[None],
            track_weight=jnp.zeros((1, SLOTS)),
            chi2=jnp.zeros(1),
            ndf=jnp.ones(1),
            mask=jnp.asarray([True]),
        ),
    )


def _tag(num_tracks):
    size = {"width": 4, "num_heads": 1, "num_blocks": 1}
    stage = TagFlavours.init(num_tracks=num_tracks, **size, key=jax.random.key(0))
    return stage(_event(), key=jax.random.key(1))


@pytest.fixture(scope="module")
def tagged():
    return _tag(6)


def test_the_vertex_is_where_the_tracks_meet(tagged):
    vertices = tagged.secondary_vertices
    np.testing.assert_allclose(vertices.position[0], PRIMARY + FLIGHT, atol=0.05)
    # Tracks count in the slots of the event, dead ones and those of no jet not at all.
    weight = np.asarray(vertices.track_weight)
    assert np.all(weight[0, [0, 1, 3, 4, 5]] > 0.1)
    assert not weight[0, [2, 6]].any()
    assert not weight[1:].any()
    np.testing.assert_array_equal(vertices.mask, [True, False, False])
    assert np.linalg.eigvalsh(vertices.covariance[0]).min() > 0
    assert tagged.status == 0


def test_tags_fade_with_the_weight_of_the_jet(tagged):
    tags = np.asarray(tagged.tags)
    assert tags.shape == (3, 3)
    assert np.all(np.abs(tags[:2]).max(axis=1) > 0)
    assert not tags[2].any()
    np.testing.assert_allclose(tags.sum(axis=1), 0.0, atol=1e-12)


def test_the_softest_tracks_are_left_out_and_that_is_said():
    event = _tag(3)
    assert event.status == Status.TRACK_OVERFLOW
    assert "num_tracks" in next(iter(explain_status(event.status[None])))
    used = np.asarray(event.secondary_vertices.track_weight[0]) > 0
    # The swing bends the soft ones: the hardest are in the middle.
    assert used.sum() == 3
    assert used[3]


def test_missing_inputs_are_named():
    stage = TagFlavours.init(width=4, key=jax.random.key(0))
    with pytest.raises(ValueError, match="primary_vertex"):
        stage(Event(detector=default_barrel()), key=jax.random.key(0))
