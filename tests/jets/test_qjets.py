import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffhep.jets import mass_volatility, prune, sample_qjet
from diffhep.testing import check_unbiased


SAMPLES = 20_000


@pytest.fixture(scope="module")
def jet(toys):
    """Three constituents: nine outcomes of two steps, of which three are distinct."""
    rng = np.random.default_rng(3)
    momentum = toys.momenta(rng, (5,), num_axes=1)
    mask = np.array([True, False, True, True, False])
    return jnp.asarray(np.where(mask[:, None], momentum, np.nan)), jnp.asarray(mask)


def _mass(p):
    return jnp.sqrt(p[3] ** 2 - jnp.sum(p[:3] ** 2))


def _pair_log_probs(momentum, rigidity, exp_min):
    # By hand: the three pairs of the first step; the second has one candidate only.
    def distance(a, b):
        pt = [jnp.hypot(p[0], p[1]) for p in (a, b)]
        y = [jnp.arctanh(p[2] / p[3]) for p in (a, b)]
        phi = jnp.arctan2(a[1], a[0]) - jnp.arctan2(b[1], b[0])
        phi = (phi + jnp.pi) % (2 * jnp.pi) - jnp.pi
        return jnp.minimum(*pt) ** exp_min * ((y[0] - y[1]) ** 2 + phi**2)

    pairs = [(0, 2), (0, 3), (2, 3)]
    d = jnp.stack([distance(momentum[a], momentum[b]) for a, b in pairs])
    return jax.nn.log_softmax(-rigidity * (d - jnp.min(d)) / jnp.min(d))


@pytest.mark.parametrize(("exp_min", "rigidity"), [(0.0, 0.3), (2.0, 0.05)])
def test_probabilities_and_score_are_those_by_hand(jet, exp_min, rigidity):
    momentum, mask = jet

    def log_prob(momentum, rigidity, key):
        # Nothing is pruned: the angle is beyond all.
        return sample_qjet(
            momentum,
            mask,
            rigidity=rigidity,
            exp_min=exp_min,
            dcut_factor=100.0,
            key=key,
        ).log_prob

    both = jax.jit(jax.vmap(jax.value_and_grad(log_prob, (0, 1)), (None, None, 0)))
    rigidity = jnp.asarray(rigidity)
    keys = jax.random.split(jax.random.key(1), SAMPLES)
    values, (to_momentum, to_rigidity) = both(momentum, rigidity, keys)
    expected = _pair_log_probs(momentum, rigidity, exp_min)
    slopes = jax.jacfwd(_pair_log_probs, (0, 1))(momentum, rigidity, exp_min)
    which = np.argmin(np.abs(np.asarray(values)[:, None] - np.asarray(expected)), 1)
    np.testing.assert_allclose(values, expected[which], rtol=1e-12)
    np.testing.assert_allclose(to_rigidity, slopes[1][which], rtol=1e-10)
    close = {"rtol": 1e-9, "atol": 1e-12}
    np.testing.assert_allclose(to_momentum[:, mask], slopes[0][which][:, mask], **close)
    assert (to_momentum[:, ~mask] == 0).all()
    for k in range(3):
        check_unbiased(np.asarray(which == k, float), np.exp(expected[k]))


def test_the_limit_of_large_rigidity_is_pruning(toys):
    rng = np.random.default_rng(8)
    momentum = jnp.asarray(toys.momenta(rng, (40, 12), num_axes=2))
    mask = jnp.asarray(rng.random((40, 12)) < 0.8)
    keys = jax.random.split(jax.random.key(2), 40)

    def draw(p, m, key):
        return sample_qjet(p, m, rigidity=jnp.asarray(1e9), key=key)

    found = jax.jit(jax.vmap(draw))(momentum, mask, keys)
    expected = jax.jit(jax.vmap(prune))(momentum, mask)
    np.testing.assert_array_equal(found.membership, expected.membership)
    np.testing.assert_allclose(found.log_prob, 0.0, atol=1e-6)
    assert (np.asarray(found.membership).sum(1) < np.asarray(mask).sum(1)).any()


def test_truncation_leaves_out_the_unlikely(jet):
    momentum, mask = jet
    rigidity = jnp.asarray(0.3)
    full = np.exp(np.sort(_pair_log_probs(momentum, rigidity, 0.0))[::-1])
    # Below this the third pair is looked at, above not; the second always is.
    limit = full[1] / (full[0] + full[1])

    def log_prob(truncation, key):
        return sample_qjet(
            momentum,
            mask,
            rigidity=rigidity,
            truncation=truncation,
            dcut_factor=100.0,
            key=key,
        ).log_prob

    keys = jax.random.split(jax.random.key(1), 2000)
    for truncation, number in ((0.9 * limit, 3), (1.1 * limit, 2)):
        values = jax.vmap(lambda key, t=truncation: log_prob(float(t), key))(keys)
        left = full[:number] / full[:number].sum()
        found = np.unique(np.round(np.exp(values), 9))
        np.testing.assert_allclose(found, np.sort(left), rtol=1e-6)
    with pytest.raises(ValueError, match="truncation"):
        log_prob(1.0, keys[0])


def test_few_constituents_and_volatility(jet):
    momentum, mask = jet
    keys = jax.random.split(jax.random.key(4), 500)

    def mass(alive, key):
        found = sample_qjet(momentum, alive, rigidity=jnp.asarray(0.1), key=key)
        return found.log_prob, _mass(found.momentum)

    for alive in (mask & False, mask & (jnp.arange(5) == 2)):
        log_prob, _ = mass(alive, keys[0])
        assert float(log_prob) == 0.0
    _, masses = jax.vmap(mass, (None, 0))(mask, keys)
    expected = np.std(masses) / np.mean(masses)
    np.testing.assert_allclose(mass_volatility(masses), expected, rtol=1e-12)
    half = jnp.where(jnp.arange(500) < 250, 1.0, 0.0)
    expected = np.std(masses[:250]) / np.mean(masses[:250])
    np.testing.assert_allclose(mass_volatility(masses, half), expected, rtol=1e-12)
