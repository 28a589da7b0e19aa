import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import optimistix as optx
import pytest

from diffhep.optimise import train
from diffhep.tagging import (
    BOTTOM,
    LIGHT,
    FittedVertex,
    FlavourTagger,
    NoVertex,
    TrackChoice,
    adjusted_tracks,
    tagger_loss,
)
from diffhep.testing import check_gradient


SIZE = {"width": 8, "num_heads": 2, "num_blocks": 1}
JETS = 8
# Many, for the unrolled derivative converges like the solution.
FIT = FittedVertex(num_steps=16)


def _tagger(vertexing=FIT, key=0):
    """A small tagger whose every head has an effect."""
    tagger = FlavourTagger.init(vertexing=vertexing, **SIZE, key=jax.random.key(key))
    keys = iter(jax.random.split(jax.random.key(key + 1), 99))
    return jax.tree.map(
        lambda x: (
            x + 0.1 * jax.random.normal(next(keys), x.shape)
            if eqx.is_inexact_array(x)
            else x
        ),
        tagger,
    )


@eqx.filter_jit
def _loss(tagger, jets, truths):
    def one(jet, truth):
        return tagger_loss(tagger(jet), jet.mask, truth).total()

    return jnp.mean(jax.vmap(one)(jets, truths))


_apply = eqx.filter_jit(lambda tagger, jets: jax.vmap(tagger)(jets))
_gradient = eqx.filter_jit(
    eqx.filter_value_and_grad(lambda both, truths: _loss(*both, truths))
)


def test_gradient_equals_finite_differences(toy_jets):
    jets, truths = toy_jets(jax.random.key(1), JETS)
    dynamic, static = eqx.partition(_tagger(), eqx.is_inexact_array)

    def loss(dynamic, shift, stretch, beam):
        # A covariance is scaled as a whole.
        moved = dataclasses.replace(
            jets,
            parameters=jets.parameters + shift * 0.01,
            covariance=jets.covariance * stretch[:, :, None, None],
            primary_covariance=jets.primary_covariance * beam[:, None, None],
        )
        return _loss(eqx.combine(dynamic, static), moved, truths)

    shift = jnp.full(jets.parameters.shape, 0.1)
    arguments = (dynamic, shift, jnp.ones(jets.mask.shape), jnp.ones(JETS))
    check_gradient(loss, arguments, rtol=1e-7, eps=1e-4, forward=False)


def test_implicit_equals_unrolled_gradient(toy_jets):
    jets, truths = toy_jets(jax.random.key(2), JETS)
    found = [
        _gradient((_tagger(FittedVertex(num_steps=16, adjoint=adjoint)), jets), truths)
        for adjoint in (None, optx.RecursiveCheckpointAdjoint())
    ]
    (one, ours), (other, theirs) = found
    np.testing.assert_allclose(one, other, rtol=1e-12)
    # What the fit is made of, and the network before it.
    for where in (
        lambda g: g[1].parameters,
        lambda g: g[1].covariance,
        lambda g: g[0].choose.weight,
        lambda g: g[0].embed.layers[0].weight,
        lambda g: g[0].vertexing.log_prior_width,
        lambda g: g[0].vertexing.log_cutoff,
    ):
        scale = float(jnp.max(jnp.abs(where(theirs))))
        assert scale > 0
        np.testing.assert_allclose(where(ours), where(theirs), atol=1e-9 * scale)


def test_padding_is_inert(toy_jets):
    jets, truths = toy_jets(jax.random.key(3), JETS)
    dead = ~jets.mask

    def poisoned(value):
        dirty = dataclasses.replace(
            jets,
            parameters=jnp.where(dead[:, :, None], value, jets.parameters),
            covariance=jnp.where(dead[:, :, None, None], value, jets.covariance),
        )
        return _gradient((_tagger(), dirty), truths)

    clean = poisoned(0.0)
    assert bool(jnp.any(dead))
    assert np.all(np.asarray(clean[1][1].parameters)[dead] == 0)
    for value in (jnp.nan, jnp.inf, 1e30):
        for a, b in zip(
            jax.tree.leaves(clean), jax.tree.leaves(poisoned(value)), strict=True
        ):
            np.testing.assert_array_equal(a, b)


def test_the_order_of_the_tracks_does_not_matter(toy_jets):
    jets, _ = toy_jets(jax.random.key(4), JETS)
    order = jnp.asarray([3, 1, 7, 0, 2, 6, 5, 4])
    shuffled = dataclasses.replace(
        jets,
        parameters=jets.parameters[:, order],
        covariance=jets.covariance[:, order],
        mask=jets.mask[:, order],
    )
    one, other = _apply(_tagger(), jets), _apply(_tagger(), shuffled)
    np.testing.assert_allclose(one.flavour, other.flavour, rtol=1e-9, atol=1e-11)
    alive = np.asarray(shuffled.mask)
    np.testing.assert_allclose(
        np.asarray(one.origin[:, order])[alive],
        np.asarray(other.origin)[alive],
        rtol=1e-9,
        atol=1e-11,
    )
    pairs = one.pair[:, order][:, :, order]
    both = alive[:, :, None] & alive[:, None]
    np.testing.assert_allclose(
        np.asarray(pairs)[both], np.asarray(other.pair)[both], rtol=1e-9, atol=1e-11
    )


@pytest.mark.parametrize("number", [0, 1])
def test_a_jet_of_few_tracks_is_defined(toy_jets, number):
    jets, truths = toy_jets(jax.random.key(5), JETS)
    jets = dataclasses.replace(jets, mask=jets.mask & (jnp.arange(8) < number)[None])
    value, gradient = _gradient((_tagger(), jets), truths)
    assert bool(jnp.isfinite(value))
    leaves = jax.tree.leaves(eqx.filter(gradient, eqx.is_inexact_array))
    assert all(bool(jnp.isfinite(x).all()) for x in leaves)


def test_networks_may_be_in_single_precision(toy_jets):
    jets, _ = toy_jets(jax.random.key(6), JETS)
    tagger = _tagger()
    single = jax.tree.map(
        lambda x: x.astype("float32") if eqx.is_inexact_array(x) else x, tagger
    )
    one, other = _apply(tagger, jets), _apply(single, jets)
    assert other.flavour.dtype == jnp.float32
    assert other.vertex.flight.dtype == jnp.float64
    np.testing.assert_allclose(one.flavour, other.flavour, atol=1e-4)


def test_the_size_does_not_depend_on_the_vertexing():
    trees = [
        FlavourTagger.init(vertexing=v, **SIZE, key=jax.random.key(0))
        for v in (NoVertex(), FittedVertex())
    ]
    networks = [dataclasses.replace(tree, vertexing=NoVertex()) for tree in trees]
    for a, b in zip(*map(jax.tree.leaves, networks), strict=True):
        if eqx.is_array(a):
            np.testing.assert_array_equal(a, b)


def test_corrections_move_and_stretch_the_tracks(toy_jets):
    jets, _ = toy_jets(jax.random.key(7), JETS)
    jet = jax.tree.map(lambda x: x[0], jets)
    zero = jnp.zeros_like(jet.parameters)
    choice = TrackChoice(zero[:, 0], zero + jnp.log(2.0), zero + 1.0)
    parameters, covariance = adjusted_tracks(jet, choice)
    alive = np.asarray(jet.mask)
    error = jnp.sqrt(jnp.diagonal(jet.covariance, axis1=1, axis2=2))
    moved = jet.parameters + error
    np.testing.assert_allclose(parameters[alive], moved[alive], rtol=1e-12)
    np.testing.assert_allclose(covariance[alive], 4 * jet.covariance[alive], rtol=1e-12)


def test_a_width_that_the_heads_do_not_divide_is_refused():
    with pytest.raises(ValueError, match="multiple of the number of heads"):
        FlavourTagger.init(width=10, num_heads=4, key=jax.random.key(0))


class _Loss(eqx.Module):
    jets: object
    truths: object

    def __call__(self, tagger, key, step):
        del step
        place = jax.random.randint(key, (64,), 0, self.truths.flavour.shape[0])
        # As users run it: networks of Equinox and optax mix types and ranks.
        with (
            jax.numpy_dtype_promotion("standard"),
            jax.numpy_rank_promotion("allow"),
        ):
            batch = jax.tree.map(lambda x: x[place], (self.jets, self.truths))
            return _loss(tagger, *batch)


def test_training_tells_bottom_from_light(toy_jets):
    start = _tagger()
    result = train(
        _Loss(*toy_jets(jax.random.key(8), 2000)),
        start,
        optimiser=optax.adamw(1e-2),
        num_steps=60,
        key=jax.random.key(9),
    )
    jets, truths = toy_jets(jax.random.key(10), 2000)
    assert {int(x) for x in np.unique(truths.flavour)} == {LIGHT, BOTTOM}
    before, after = (
        jnp.mean(jnp.argmax(_apply(tagger, jets).flavour, axis=1) == truths.flavour)
        for tagger in (start, result.params)
    )
    # A fair coin has one half, with an error of 0.011.
    assert before < 0.6
    assert after > 0.9
