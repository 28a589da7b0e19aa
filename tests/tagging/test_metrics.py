import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffhep.tagging import (
    AMBIGUOUS,
    BOTTOM,
    CHARM,
    LIGHT,
    JetTruth,
    JetVertex,
    TaggerOutput,
    discriminant,
    rejection,
    roc_curve,
    same_vertex,
    tagger_loss,
)


def _normal_scores(key, number):
    """Scores of standard normal light jets, and of bottom jets 2 above."""
    bottom = jnp.arange(number) % 2 == 0
    scores = jax.random.normal(key, (number,)) + jnp.where(bottom, 2.0, 0.0)
    return scores, jnp.where(bottom, BOTTOM, LIGHT)


# Half of the bottom jets lie above 2, where a normal distribution has 0.0227501.
EXACT = 1 / 0.0227501319


def test_rejection_and_its_error_over_toys():
    toys = 500

    @jax.jit
    @jax.vmap
    def toy(key):
        scores, flavours = _normal_scores(key, 4000)
        found = rejection(scores, flavours, efficiency=0.5)
        return found.value, found.error

    value, error = toy(jax.random.split(jax.random.key(0), toys))
    pulls = (np.log(value) - np.log(EXACT)) / (error / value)
    # Three standard errors; the logarithm of a fluctuating count is biased by half of
    # its relative variance, half of the error of one toy.
    bias = np.mean(error / value) / 2
    assert abs(pulls.mean() - bias) < 3 / np.sqrt(toys)
    # The errors themselves fluctuate by some per cent.
    assert abs(pulls.std() - 1) < 3 / np.sqrt(2 * toys) + 0.03


def test_roc_curve_is_the_inverse_rejection():
    scores, flavours = _normal_scores(jax.random.key(1), 4000)
    points = jnp.asarray([0.1, 0.5, 0.9])
    curve = roc_curve(scores, flavours, efficiencies=points)
    for efficiency, fraction in zip((0.1, 0.5, 0.9), curve, strict=True):
        found = rejection(scores, flavours, efficiency=efficiency)
        np.testing.assert_allclose(fraction, 1 / found.value, rtol=1e-12)
    assert np.all(np.diff(curve) > 0)


def test_rejection_counts_jets():
    # Bottom jets at 1, 2, 3, 4; light jets between.
    scores = jnp.asarray([1.0, 2, 3, 4, 0.5, 1.5, 2.5, 3.5])
    flavours = jnp.asarray([BOTTOM] * 4 + [LIGHT] * 4)
    for efficiency, passed in ((0.25, 1), (0.5, 2), (0.75, 3)):
        found = rejection(scores, flavours, efficiency=efficiency)
        np.testing.assert_allclose(found.value, 4 / passed, rtol=1e-12)
    none = rejection(scores, flavours, efficiency=0.5, background=CHARM)
    assert not jnp.isfinite(none.error)


def test_discriminant_is_the_logarithm_of_the_ratio():
    logits = jax.random.normal(jax.random.key(2), (5, 3))
    p = jax.nn.softmax(logits, axis=1)
    background = 0.2 * p[:, CHARM] + 0.8 * p[:, LIGHT]
    found = discriminant(logits, charm_fraction=0.2)
    np.testing.assert_allclose(found, jnp.log(p[:, BOTTOM] / background), rtol=1e-12)


def test_what_is_no_fraction_is_refused():
    scores, flavours = _normal_scores(jax.random.key(3), 10)
    with pytest.raises(ValueError, match="between 0 and 1"):
        rejection(scores, flavours, efficiency=70.0)
    with pytest.raises(ValueError, match="between 0 and 1"):
        discriminant(jnp.zeros((2, 3)), charm_fraction=0.0)


def _output(slots=4):
    keys = jax.random.split(jax.random.key(4), 3)
    pair = jax.random.normal(keys[2], (slots, slots))
    return TaggerOutput(
        flavour=jax.random.normal(keys[0], (3,)),
        origin=jax.random.normal(keys[1], (slots, 4)),
        pair=pair + pair.T,
        vertex=JetVertex(
            flight=jnp.zeros(3),
            covariance=jnp.eye(3),
            weight=jnp.zeros(slots),
            chi2=jnp.zeros(()),
            ndf=jnp.zeros(()),
            converged=jnp.asarray(True),
        ),
    )


def test_losses_are_mean_cross_entropies():
    truth = JetTruth(
        flavour=jnp.asarray(CHARM),
        origin=jnp.asarray([0, 2, 2, 1]),
        vertex=jnp.asarray([[0.0, 0, 0], [1, 0, 0], [1, 0, 0.001], [9, 9, 9]]),
        flight=jnp.asarray([1.0, 0, 0]),
    )
    mask = jnp.asarray([True, True, True, False])
    output = _output()
    found = tagger_loss(output, mask, truth)
    log_p = jax.nn.log_softmax(output.flavour)
    np.testing.assert_allclose(found.flavour, -log_p[CHARM], rtol=1e-12)
    log_p = jax.nn.log_softmax(output.origin, axis=1)
    expected = -(log_p[0, 0] + log_p[1, 2] + log_p[2, 2]) / 3
    np.testing.assert_allclose(found.origin, expected, rtol=1e-12)
    chance = jax.nn.sigmoid(output.pair)
    each = jnp.log(jnp.stack([1 - chance[0, 1], 1 - chance[0, 2], chance[1, 2]]))
    np.testing.assert_allclose(found.pair, -each.mean(), rtol=1e-12)
    total = found.flavour + 0.5 * found.origin + 1.5 * found.pair
    np.testing.assert_allclose(found.total(), total, rtol=1e-12)


def test_an_ambiguous_jet_without_tracks_loses_nothing():
    slots = jnp.zeros(4, int)
    truth = JetTruth(
        jnp.asarray(AMBIGUOUS), slots, jnp.full((4, 3), jnp.nan), jnp.zeros(3)
    )
    mask = jnp.zeros(4, bool)
    assert tagger_loss(_output(), mask, truth).total() == 0
    _, pairs = same_vertex(truth, mask)
    assert not bool(jnp.any(pairs))
