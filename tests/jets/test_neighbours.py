import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffhep.jets import (
    CompiledEngine,
    JaxEngine,
    NearestNeighbours,
    NearestOnly,
    RadiusInPt,
    RadiusInRapidity,
    history_log_prob,
    sample_history,
)


def _name(value):
    return type(value).__name__


@eqx.filter_jit
def _sample_among(candidates, engine, settings, *events):
    def one(momentum, mask, key):
        return sample_history(
            momentum, mask, **settings, candidates=candidates, engine=engine, key=key
        )

    return jax.vmap(one)(*events)


@eqx.filter_jit
def _replay_among(candidates, momentum, settings, history, mask):
    def one(momentum, settings, history, mask):
        return history_log_prob(
            history, momentum, mask, **settings, candidates=candidates
        )

    slopes = jax.value_and_grad(one, (0, 1))
    return jax.vmap(slopes, (0, None, 0, 0))(momentum, settings, history, mask)


def _assert_close(value, expected, rtol):
    value, expected = np.asarray(value), np.asarray(expected)
    np.testing.assert_allclose(value, expected, atol=rtol * np.abs(expected).max())


@pytest.fixture
def events(toys):
    """Momenta with NaN in dead slots, masks with holes, and keys."""
    return toys.events


@pytest.mark.parametrize("candidates", [NearestNeighbours(), NearestOnly()], ids=_name)
@pytest.mark.parametrize("power", [-1.0, 1.0])
@pytest.mark.parametrize("radius", ["constant", "in pt", "in rapidity"])
@pytest.mark.parametrize("engine", [JaxEngine(), CompiledEngine()], ids=_name)
def test_score_among_neighbours_is_the_derivative_of_the_replay(
    events, candidates, power, radius, engine
):
    momentum, mask, keys = events
    reach = {
        "constant": jnp.asarray(0.6),
        "in pt": RadiusInPt(jnp.asarray([0.9, 0.6, 0.4]), (2.0, 10.0, 30.0)),
        "in rapidity": RadiusInRapidity(jnp.asarray([0.4, 0.8]), (0.0, 1.5)),
    }[radius]
    settings = {"radius": reach, "power": power, "sharpness": 2.0}
    settings = jax.tree.map(lambda x: jnp.asarray(x, float), settings)
    history, log_prob, score = _sample_among(
        candidates, engine, settings, momentum, mask, keys
    )
    value, (to_momentum, to_settings) = _replay_among(
        candidates, momentum, settings, history, mask
    )
    _assert_close(log_prob, value, 1e-12)
    assert np.isfinite(value).all()
    _assert_close(score.momentum, to_momentum, 1e-10)
    for name in ("radius", "power", "sharpness"):
        for one, other in zip(
            jax.tree.leaves(getattr(score, name)),
            jax.tree.leaves(to_settings[name]),
            strict=True,
        ):
            # That to the power is zero where both candidates have the same weight.
            atol = 1e-10 * max(1, np.abs(other).max())
            np.testing.assert_allclose(one, other, rtol=1e-10, atol=atol)
    assert np.abs(jax.tree.leaves(score.radius)[0]).max() > 0.1
