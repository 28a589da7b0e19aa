import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffhep.event import Event, Jets, Tracks, Vertices
from diffhep.geometry import default_barrel
from diffhep.helix import PION_MASS, momentum, perigee_from_point
from diffhep.tagging import (
    FEATURES,
    NUM_FEATURES,
    TagJets,
    features_of_jets,
    track_momenta,
)
from diffhep.testing import check_gradient


SLOTS, JETS = 6, 3
PRIMARY = jnp.asarray([0.0, 0.0, 5.0])
AXIS = jnp.asarray([0.6, 0.7, 0.2])
WIDTHS = jnp.asarray([0.02, 0.05, 1e-3, 1e-3, 1e-3])


def _event(flight=2.0):
    """A jet of five tracks from a vertex on its axis, one without tracks, no third."""
    direction = AXIS / jnp.linalg.norm(AXIS)
    vertex = PRIMARY + flight * direction
    swing = jnp.linspace(-0.3, 0.3, SLOTS)
    phi = jnp.arctan2(AXIS[1], AXIS[0]) + swing
    theta = jnp.arccos(direction[2]) + 0.7 * swing**2 - 0.1
    bend = jnp.where(jnp.arange(SLOTS) % 2 == 0, 0.1, -0.2)
    field = default_barrel().field
    exact = jax.vmap(perigee_from_point, (None, 0, 0, 0, None))(
        vertex, phi, theta, bend, field
    )
    mask = jnp.arange(SLOTS) < SLOTS - 1
    tracks = Tracks(
        parameters=exact,
        covariance=jnp.broadcast_to(jnp.diag(WIDTHS**2), (SLOTS, 5, 5)),
        chi2=jnp.ones(SLOTS),
        ndf=jnp.ones(SLOTS),
        mask=mask,
    )
    none = jnp.zeros(SLOTS, bool)
    jets = Jets(
        momentum=jnp.asarray([[36.0, 42, 12, 58], [-30, 0, 0, 30.0], [0, 0, 0, 0]]),
        membership=jnp.stack([jnp.ones_like(mask), none, none]),
        weight=jnp.asarray([0.8, 1.0, 0.0]),
        mask=jnp.asarray([True, True, False]),
    )
    secondary = Vertices(
        position=jnp.stack([vertex, PRIMARY, PRIMARY]),
        covariance=jnp.broadcast_to(0.01 * jnp.eye(3), (JETS, 3, 3)),
        track_weight=jnp.stack([jnp.where(mask, w, 0.0) for w in (0.9, 0.0, 0.0)]),
        chi2=jnp.asarray([6.0, 0, 0]),
        ndf=jnp.asarray([5.0, 0, 0]),
        mask=jets.mask,
    )
    primary = Vertices(
        position=PRIMARY[None, :],
        covariance=1e-4 * jnp.eye(3)[None, :, :],
        track_weight=jnp.zeros((1, SLOTS)),
        chi2=jnp.ones(1),
        ndf=jnp.ones(1),
        mask=jnp.ones(1, bool),
    )
    return Event(
        tracks=tracks,
        jets=jets,
        primary_vertex=primary,
        secondary_vertices=secondary,
        detector=default_barrel(),
    )


def _features(event):
    return features_of_jets(
        event.tracks,
        event.jets,
        event.primary_vertex,
        event.secondary_vertices,
        event.detector.field,
    )


features = eqx.filter_jit(_features)


def _named(event):
    return dict(zip(FEATURES, np.asarray(features(event))[0], strict=True))


def _poison(event):
    def spoil(collection):
        return jax.tree.map(
            lambda x: (
                jnp.where(
                    jnp.reshape(collection.mask, (-1,) + (1,) * (x.ndim - 1)),
                    x,
                    jnp.nan,
                )
                if eqx.is_inexact_array(x)
                else x
            ),
            collection,
        )

    return event.replace(
        tracks=spoil(event.tracks),
        jets=spoil(event.jets),
        secondary_vertices=spoil(event.secondary_vertices),
    )


def test_names_and_numbers():
    values = features(_event())
    assert values.shape == (JETS, NUM_FEATURES)
    assert len(FEATURES) == len(set(FEATURES)) == NUM_FEATURES
    assert np.all(np.isfinite(values))
    assert np.all(np.abs(values) < 10)


def test_features_mean_what_they_say():
    named = _named(_event())
    event = _event()
    jet = np.asarray(event.jets.momentum)[0]
    transverse = np.hypot(jet[0], jet[1])
    mass = np.sqrt(jet[3] ** 2 - (jet[:3] ** 2).sum())
    assert named["log pt"] == pytest.approx(np.log(transverse / 50))
    assert named["log mass over pt"] - 2 == pytest.approx(
        np.log((mass / transverse) ** 2 + 1e-4) / 2
    )
    assert named["flight along the jet"] * 3 == pytest.approx(
        np.arcsinh(2.0 * np.dot(jet[:3], AXIS) / np.linalg.norm(jet[:3]) / 0.943398),
        rel=1e-5,
    )
    assert np.expm1(5 * named["flight significance"]) == pytest.approx(4 / 0.0101)
    assert np.expm1(named["displaced tracks"]) == pytest.approx(5 * 0.9)
    assert np.expm1(2 * named["tracks"]) == pytest.approx(5)
    alive = np.asarray(event.tracks.parameters)[:5]
    each = np.asarray(jax.vmap(momentum)(jnp.asarray(alive)))
    energy = np.sqrt((each**2).sum(1) + PION_MASS**2)
    total = 0.9 * np.concatenate([each, energy[:, None]], axis=1).sum(0)
    assert np.expm1(2 * named["vertex mass"]) == pytest.approx(
        total[3] ** 2 - (total[:3] ** 2).sum(), rel=1e-5
    )
    assert named["vertex energy fraction"] == pytest.approx(
        total[3] / (energy.sum() + 1), rel=1e-6
    )


def test_lifetime_sign_tells_upstream_from_downstream():
    ahead, behind = _named(_event(2.0)), _named(_event(-2.0))
    for name in FEATURES[-8:]:
        assert ahead[name] > behind[name]
    assert ahead["tracks with d0 significance above 4"] > np.log(2.5)
    assert behind["tracks with d0 significance above 4"] < 0.1


def test_counts_fall_with_the_threshold():
    named = _named(_event())
    for kind in ("d0", "z0"):
        counts = [v for n, v in named.items() if f"with {kind}" in n]
        assert np.all(np.diff(counts) < 0)


def test_straight_tracks_have_finite_momenta():
    parameters = jnp.asarray([[0.0, 0, 1, 1, 0.0]])
    gradient = jax.jacobian(lambda p: jnp.stack(track_momenta(p)))(parameters)
    assert np.all(np.isfinite(gradient))


def test_padding_is_inert_and_gradients_are_finite():
    # The loss sees live jets alone; the gradient goes to everything.
    def loss(event):
        values = _features(event)
        return jnp.sum(jnp.where(event.jets.mask[:, None], jnp.sin(values), 0.0))

    gradient = eqx.filter_jit(eqx.filter_value_and_grad(loss))
    clean_value, clean = gradient(_event())
    dirty_value, dirty = gradient(_poison(_event()))
    assert clean_value == dirty_value
    for a, b in zip(jax.tree.leaves(clean), jax.tree.leaves(dirty), strict=True):
        assert np.all(np.isfinite(a))
        np.testing.assert_array_equal(a, b)
    assert np.all(np.asarray(dirty.tracks.parameters)[-1] == 0)
    assert np.all(np.asarray(dirty.jets.momentum)[-1] == 0)


def test_gradient_equals_finite_differences():
    event = _event()

    def function(parameters, jets, primary, secondary, field):
        tracks = dataclasses.replace(event.tracks, parameters=parameters)
        where = dataclasses.replace
        moved = event.replace(
            tracks=tracks,
            jets=where(event.jets, momentum=event.jets.momentum.at[:2].set(jets)),
            primary_vertex=where(event.primary_vertex, position=primary),
            secondary_vertices=where(event.secondary_vertices, position=secondary),
            detector=where(event.detector, field=field),
        )
        return _features(moved)[:2]

    args = (
        event.tracks.parameters,
        # Heavy enough that no direction makes it lighter than its momentum.
        event.jets.momentum[:2].at[:, 3].multiply(1.2),
        event.primary_vertex.position,
        event.secondary_vertices.position,
        event.detector.field,
    )
    check_gradient(function, args, rtol=1e-7, eps=1e-5)


def test_dead_and_weightless_jets_have_no_tags():
    stage = TagJets.init(num_tags=3, width=8, key=jax.random.key(0))
    event = _poison(_event())
    weight = event.jets.weight.at[1].set(0.0)
    faded = event.replace(jets=dataclasses.replace(event.jets, weight=weight))
    call = eqx.filter_jit(lambda e: stage(e, key=jax.random.key(0)).tags)
    tags, gone = call(event), call(faded)
    assert tags.shape == (JETS, 3)
    assert np.all(np.asarray(tags)[2] == 0)
    assert np.all(np.asarray(tags)[:2] != 0)
    assert np.all(np.asarray(gone)[1:] == 0)
    np.testing.assert_array_equal(tags[0], gone[0])


def test_missing_inputs_are_named():
    stage = TagJets.init(key=jax.random.key(0))
    with pytest.raises(ValueError, match="secondary_vertices"):
        stage(Event(detector=default_barrel()), key=jax.random.key(0))
