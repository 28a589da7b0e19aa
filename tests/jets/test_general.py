"""Probabilistic clustering of any algorithm, by exact enumeration of few particles."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffhep.event import Constituents, Event
from diffhep.jets import (
    AllPairs,
    ClusterJets,
    CompiledEngine,
    EnergyAngle,
    EScheme,
    NearestNeighbours,
    NearestOnly,
    PtScheme,
    RadiusInPt,
    RapidityAzimuth,
    WinnerTakeAllMomentum,
    WinnerTakeAllPt,
    cluster,
    enumerate_histories,
    history_log_prob,
    recombine,
    sample_history,
)
from diffhep.testing import check_unbiased


SAMPLES = 4_000
CASES = {
    "e+e-": (EnergyAngle(), EScheme(), 0.8, AllPairs()),
    "e+e- winner": (EnergyAngle(), WinnerTakeAllMomentum(), 0.8, AllPairs()),
    "e+e- neighbours": (EnergyAngle(), EScheme(), 0.8, NearestNeighbours()),
    "pt scheme": (RapidityAzimuth(), PtScheme(), 0.5, AllPairs()),
    "winner": (RapidityAzimuth(), WinnerTakeAllPt(), 0.5, AllPairs()),
    "function": (
        RapidityAzimuth(),
        EScheme(),
        RadiusInPt(jnp.asarray([0.7, 0.4]), (2.0, 20.0)),
        AllPairs(),
    ),
}


def _case(name):
    metric, scheme, radius, candidates = CASES[name]
    rules = {"metric": metric, "scheme": scheme, "candidates": candidates}
    settings = {"radius": radius, "power": -0.5, "sharpness": 0.4}
    settings = jax.tree.map(lambda x: jnp.asarray(x, float), settings)
    # Not far from one another, in any metric: all histories have a chance.
    space = np.array([[9.0, 1.0, 2.0], [8.0, 6.0, 0.5], [7.0, 2.0, 5.0]])
    energy = np.sqrt(np.sum(space**2, axis=1) + 4.0)
    momentum = np.concatenate([space, energy[:, None]], axis=1)
    return rules, settings, jnp.asarray(momentum), jnp.ones(3, bool)


def _log_probs(rules, settings, momentum, mask, histories):
    def one(history):
        return history_log_prob(history, momentum, mask, **settings, **rules)

    return jax.vmap(one)(histories)


_all_log_probs = eqx.filter_jit(_log_probs)


def _observable(history, momentum, mask, scheme):
    # Something of the outcome and of the momenta: no jet's momentum is alone.
    jets = recombine(history, momentum, mask, scheme=scheme)
    alive = jnp.any(
        (history.keep[:, None] == jnp.arange(len(mask), dtype=jnp.int32)[None])
        & (history.take == -1)[:, None],
        axis=0,
    )
    return jnp.sum(jnp.where(alive[:, None], jets, 0.0)[:, :3] ** 2) / 100


def _exact(settings, momentum, rules, mask, histories):
    log_prob = _log_probs(rules, settings, momentum, mask, histories)
    values = jax.vmap(lambda h: _observable(h, momentum, mask, rules["scheme"]))
    return jnp.sum(jnp.exp(log_prob) * values(histories))


@pytest.mark.parametrize("name", CASES)
def test_sampled_score_is_unbiased(name):
    rules, settings, momentum, mask = _case(name)
    histories = enumerate_histories(3)
    log_probs = _all_log_probs(rules, settings, momentum, mask, histories)
    probabilities = np.exp(log_probs)
    np.testing.assert_allclose(probabilities.sum(), 1.0, rtol=1e-12)
    assert np.sum(probabilities > 0.01) >= 5

    @eqx.filter_jit
    @jax.vmap
    def draw(key):
        history, log_prob, score = sample_history(
            momentum, mask, **settings, **rules, key=key
        )
        value, path = jax.value_and_grad(_observable, argnums=1)(
            history, momentum, mask, rules["scheme"]
        )
        replayed = history_log_prob(history, momentum, mask, **settings, **rules)
        to_momentum = path + value * score.momentum
        rest = (score.radius, score.power, score.sharpness)
        to_rest = jax.tree.map(lambda x: value * x, rest)
        return value, (to_momentum, to_rest), log_prob - replayed

    keys = jax.random.split(jax.random.key(7), SAMPLES)
    values, (to_momentum, to_rest), error = draw(keys)
    assert np.abs(error).max() < 1e-12
    arguments = (rules, mask, histories)
    slope = eqx.filter_jit(jax.value_and_grad(_exact, argnums=(0, 1)))
    exact, (to_exact, slopes) = slope(settings, momentum, *arguments)
    check_unbiased(values, exact)
    if isinstance(rules["candidates"], AllPairs):
        # Probabilities of neighbours jump with the momenta: see their docstring.
        check_unbiased(to_momentum, slopes)
    wanted = [to_exact[name] for name in ("radius", "power", "sharpness")]
    for found, slope in zip(*map(jax.tree.leaves, (to_rest, wanted)), strict=True):
        check_unbiased(found, slope)


@pytest.mark.parametrize("name", ["e+e-", "function"])
def test_second_derivatives(name):
    # Of the exact expectation, by autodiff twice and by differences of the slope.
    rules, settings, momentum, mask = _case(name)
    histories = enumerate_histories(3)
    flat, unravel = jax.flatten_util.ravel_pytree(settings)

    def value(flat):
        return _exact(unravel(flat), momentum, rules, mask, histories)

    slope = jax.jit(jax.grad(value))
    found = np.asarray(jax.jit(jax.hessian(value))(flat))
    step = 1e-4
    for k in range(len(flat)):
        up, down, up2, down2 = (
            np.asarray(slope(flat.at[k].add(n * step))) for n in (1, -1, 2, -2)
        )
        wanted = (8 * (up - down) - (up2 - down2)) / (12 * step)
        np.testing.assert_allclose(found[:, k], wanted, rtol=1e-6, atol=1e-6)
    assert np.abs(found).max() > 0.1


def test_limit_of_large_sharpness(toys):
    momentum, mask, keys = (x[:4] for x in toys.events)
    settings = toys.settings(0.8, 1.0)
    rules = {"metric": EnergyAngle(), "scheme": WinnerTakeAllMomentum()}
    for candidates in (AllPairs(), NearestNeighbours(), NearestOnly()):

        def one(p, m, key, candidates=candidates):
            certain = cluster(p, m, **settings, **rules)
            drawn, *_ = sample_history(
                p,
                m,
                **settings,
                **rules,
                sharpness=jnp.asarray(1e9),
                candidates=candidates,
                key=key,
            )
            return certain, drawn

        certain, drawn = jax.jit(jax.vmap(one))(momentum, mask, keys)
        np.testing.assert_array_equal(drawn.keep, certain.keep)
        np.testing.assert_array_equal(drawn.take, certain.take)


def test_what_the_compiled_engine_does_not_draw(toys):
    momentum, mask, keys = (x[0] for x in toys.events)
    settings = toys.settings(0.6, -1.0, 2.0)
    for rules in ({"metric": EnergyAngle()}, {"scheme": PtScheme()}, {}):
        candidates = NearestNeighbours() if rules else AllPairs()
        with pytest.raises(ValueError, match="use `JaxEngine`"):
            sample_history(
                momentum,
                mask,
                **settings,
                **rules,
                candidates=candidates,
                engine=CompiledEngine(),
                key=keys,
            )


def test_stage_with_another_algorithm(toys):
    stage = ClusterJets(
        jnp.asarray(0.9),
        jnp.asarray(1.0),
        jnp.asarray(3.0),
        threshold=2.0,
        width=1.0,
        metric=EnergyAngle(),
        scheme=WinnerTakeAllMomentum(),
    )
    momentum, mask, keys = (x[0] for x in toys.events)
    parts = Constituents(momentum, jnp.zeros_like(mask), mask)
    event = stage(Event(constituents=parts), key=keys)
    energies = np.asarray(event.jets.momentum)[np.asarray(event.jets.mask), 3]
    assert (np.diff(energies) <= 0).all()
    # Of a jet the magnitude is the sum of those of its constituents.
    members = np.asarray(event.jets.membership[0])
    sizes = np.linalg.norm(np.where(mask[:, None], momentum, 0.0)[:, :3], axis=1)
    whole = np.linalg.norm(event.jets.momentum[0, :3])
    np.testing.assert_allclose(sizes[members].sum(), whole, rtol=1e-12)
