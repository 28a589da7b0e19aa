import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx

from diffhep.event import Event, Jets
from diffhep.inference import (
    BinaryRatioLoss,
    EstimateRatio,
    FlaxNetwork,
    NetworkRatio,
    Standardisation,
    StoredEvents,
    jet_weight,
)


KEY = jax.random.key(3)
FEATURES = jnp.asarray(np.random.default_rng(0).normal(size=(64, 3)))


class _Linen(linen.Module):
    """Three layers, as `equinox.nn.MLP` of depth 2."""

    @linen.compact
    def __call__(self, x):
        for _ in range(2):
            x = linen.silu(linen.Dense(8, param_dtype=x.dtype)(x))
        return linen.Dense(1, param_dtype=x.dtype)(x)


class _Nnx(nnx.Module):
    def __init__(self, *, rngs):
        sizes = {"rngs": rngs, "param_dtype": jnp.float64}
        self.first, self.last = nnx.Linear(3, 8, **sizes), nnx.Linear(8, 1, **sizes)

    def __call__(self, x):
        return self.last(nnx.silu(self.first(x)))


class _Stateful(nnx.Module):
    def __init__(self, *, rngs):
        self.norm = nnx.BatchNorm(3, rngs=rngs)

    def __call__(self, x):
        return self.norm(x)


def _linen():
    variables = _Linen().init(KEY, FEATURES[0])
    return FlaxNetwork.from_linen(_Linen(), variables)


def _nnx():
    return FlaxNetwork.from_nnx(_Nnx(rngs=nnx.Rngs(0)))


def test_output_is_that_of_flax():
    module = _Nnx(rngs=nnx.Rngs(0))
    expected = module(FEATURES)
    network = FlaxNetwork.from_nnx(module)
    np.testing.assert_allclose(jax.vmap(network)(FEATURES), expected, rtol=1e-12)
    variables = _Linen().init(KEY, FEATURES[0])
    network = FlaxNetwork.from_linen(_Linen(), variables)
    expected = _Linen().apply(variables, FEATURES)
    np.testing.assert_allclose(jax.vmap(network)(FEATURES), expected, rtol=1e-12)


@pytest.mark.parametrize("make", [_linen, _nnx])
def test_network_is_trained_as_one_of_equinox(make):
    network, optimiser = make(), optax.sgd(0.1, momentum=0.9)
    target = jnp.sin(FEATURES[:, 0])

    def loss(network):
        return jnp.mean((jax.vmap(network)(FEATURES)[:, 0] - target) ** 2)

    @eqx.filter_jit
    def step(network, state):
        value, slope = eqx.filter_value_and_grad(loss)(network)
        updates, state = optimiser.update(slope, state)
        return eqx.apply_updates(network, updates), state, value

    state = optimiser.init(eqx.filter(network, eqx.is_inexact_array))
    values = []
    for _ in range(300):
        network, state, value = step(network, state)
        values.append(float(value))
    assert values[-1] < 0.1 * values[0], (values[0], values[-1])


def test_training_the_module_leaves_the_network_alone():
    module = _Nnx(rngs=nnx.Rngs(0))
    network = FlaxNetwork.from_nnx(module)
    before = network(FEATURES[0])
    module.last.kernel[...] = module.last.kernel[...] + 1.0
    np.testing.assert_array_equal(network(FEATURES[0]), before)
    assert abs(float((module(FEATURES[0]) - before)[0])) > 1e-3


def test_modules_with_a_state_are_refused():
    with pytest.raises(ValueError, match=r"state beside its parameters.*'mean'"):
        FlaxNetwork.from_nnx(_Stateful(rngs=nnx.Rngs(0)))
    with pytest.raises(ValueError, match="collections 'batch_stats', 'params'"):
        FlaxNetwork.from_linen(_Linen(), {"params": {}, "batch_stats": {}})


def _event():
    rng = np.random.default_rng(1)
    momentum = jnp.asarray(rng.uniform(20, 60, (4, 4)) + np.array([0, 0, 0, 200.0]))
    mask = jnp.arange(4) < 3
    weight = jet_weight(momentum, mask, threshold=15.0, width=10.0)
    return Event(
        jets=Jets(momentum, jnp.zeros((4, 2), bool), weight, mask),
        missing_momentum=jnp.asarray(rng.normal(0, 70.0, 2)),
        tags=jnp.asarray(rng.normal(size=(4, 2))),
    )


def test_ratio_of_a_flax_network_is_that_of_the_same_weights_in_equinox():
    stage = EstimateRatio.init(num_tags=2, width=8, key=KEY)
    parameters = {
        f"Dense_{k}": {"kernel": layer.weight.T, "bias": jnp.atleast_1d(layer.bias)}
        for k, layer in enumerate(stage.network.layers)
    }
    network = FlaxNetwork.from_linen(_Linen(), {"params": parameters})
    changed = eqx.tree_at(lambda s: s.network, stage, network)

    @eqx.filter_jit
    @eqx.filter_value_and_grad
    def call(stage, event):
        return jnp.sum(stage(event, key=KEY).log_ratio ** 2)

    (value, slope), (expected, exact) = call(changed, _event()), call(stage, _event())
    np.testing.assert_allclose(value, expected, rtol=1e-12)
    for k, layer in enumerate(exact.network.layers):
        found = slope.network.parameters[f"Dense_{k}"]["kernel"]
        np.testing.assert_allclose(found, layer.weight.T, rtol=1e-10, atol=1e-12)


def test_ratio_refuses_a_network_of_many_outputs():
    stage = EstimateRatio.init(num_tags=2, width=8, key=KEY)
    many = eqx.nn.MLP(stage.network.in_size, 2, 4, 1, key=KEY)
    stage = eqx.tree_at(lambda s: s.network, stage, many)
    with pytest.raises(ValueError, match=r"shape \(2,\), but a logit is one number"):
        stage(_event(), key=KEY)


def test_density_ratio_of_a_flax_network():
    # Trained as those of equinox: a gradient for each parameter.
    events = StoredEvents(FEATURES[:32]), StoredEvents(FEATURES[32:])
    loss = BinaryRatioLoss(*events, 8)
    ratio = NetworkRatio(_nnx(), Standardisation.of(FEATURES))
    gradient = jax.grad(loss)(ratio, KEY)
    sizes = [float(jnp.max(jnp.abs(x))) for x in jax.tree.leaves(gradient)]
    assert len(sizes) == 4
    assert min(sizes) > 0
