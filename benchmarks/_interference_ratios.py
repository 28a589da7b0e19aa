"""The learnt density ratios of the benchmark `interference`: see there."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from diffhep.inference import mean_ratio

from ._interference_model import MASS, SHIFT, STRENGTHS, WINDOW, Table, sample


class Simulation(NamedTuple):
    """Events of each strength, positive samples all."""

    wide: tuple[np.ndarray, ...]
    """Somewhat beyond the window as well."""
    shifted: tuple[tuple[np.ndarray, ...], ...]
    """In the window: of each strength at alpha = 0, 1 and -1, the same events moved."""

    @property
    def reference(self) -> tuple[np.ndarray, np.ndarray]:
        """Events of all strengths together, and their shares, a third to each."""
        nominal = [x[0] for x in self.shifted]
        shares = [np.full(len(x), 1 / len(x) / len(nominal)) for x in nominal]
        return np.concatenate(nominal), np.concatenate(shares)


def simulate(number: int, rng: np.random.Generator) -> Simulation:
    """As many events of each strength, before those beyond the window are cut."""
    wide = tuple(sample(number, k, rng, margin=SHIFT) for k in STRENGTHS)
    steps = [np.asarray([shift * SHIFT, 0.0]) for shift in (0.0, 1.0, -1.0)]
    shifted = tuple(tuple(_inside(x + s) for s in steps) for x in wide)
    return Simulation(wide, shifted)


def _inside(x: np.ndarray) -> np.ndarray:
    return x[(x[:, 0] > WINDOW[0]) & (x[:, 0] < WINDOW[1])]


class Ratios(eqx.Module):
    """Ensembles of networks for the ratios, and their normalisation."""

    strength: Any
    """Networks with one output for each strength, softmaxed."""
    variation: Any
    """Networks with the logarithms of the ratios up and down for each strength."""
    scale: Any = None
    """Logarithms of the means by which ratios are divided, as the table: what they are
    over the simulation that they were trained on."""

    @eqx.filter_jit
    def __call__(self, x: Any) -> Any:
        """Logarithms of ratios, up and down, each (strengths, entries), in 64 bits."""
        x = _scaled(x).astype(jnp.float32)

        def outputs(members: Any) -> Any:
            each = [jax.vmap(n)(x).astype(float) for n in members]
            return jnp.moveaxis(jnp.stack(each), -1, 1)

        number = len(STRENGTHS)
        share = jax.nn.log_softmax(outputs(self.strength), axis=1)
        logs = mean_ratio(share + jnp.log(number))
        # Members are averaged as ratios: of a ratio to the sample's own density.
        both = mean_ratio(outputs(self.variation))
        found = jnp.stack([logs, both[:number], both[number:]])
        return found if self.scale is None else found - self.scale[:, :, None]


def _scaled(x: Any) -> Any:
    return (x - jnp.asarray([MASS, 0.0])) / jnp.asarray([40.0, 0.5])


def learnt_table(ratios: Callable, x: np.ndarray, *, block: int = 100_000) -> Table:
    """The table of events (*entries, 2) by the networks."""
    flat = x.reshape(-1, 2)
    padded = np.concatenate([flat, np.zeros((-len(flat) % block, 2))])
    parts = [
        np.asarray(ratios(part)) for part in np.split(padded, len(padded) // block)
    ]
    found = np.concatenate(parts, axis=-1)[..., : len(flat)]
    return Table(*found.reshape(*found.shape[:2], *x.shape[:-1]))


def learn(
    simulation: Simulation, settings: dict[str, Any], *, members: int, key: Any
) -> Ratios:
    """Train the ensembles and normalise them on the simulation."""
    options = {"batch": settings["batch"], "rate": settings["rate"]}
    keys = jax.random.split(key, (members, 2, 2))
    nominal = [jnp.asarray(x[0]) for x in simulation.shifted]
    wide = [jnp.asarray(x) for x in simulation.wide]
    number = len(STRENGTHS)
    strength, variation = [], []
    for one, two in keys:
        network = _network(2, number, settings["width"], one[0])
        steps = settings["steps"]
        strength.append(
            _train(strength_loss, network, nominal, steps=steps, key=one[1], **options)
        )
        network = _network(2, 2 * number, settings["width"], two[0])
        steps = settings["variation steps"]
        variation.append(
            _train(variation_loss, network, wide, steps=steps, key=two[1], **options)
        )
    return normalise(Ratios(tuple(strength), tuple(variation)), simulation)


def normalise(ratios: Ratios, simulation: Simulation) -> Ratios:
    """The same with means of one over the simulation's reference."""
    events, share = simulation.reference
    logs, up, down = learnt_table(ratios, events)
    first = np.log(np.exp(logs) @ share)
    rest = [np.log(np.exp(logs + x) @ share) - first for x in (up, down)]
    return Ratios(ratios.strength, ratios.variation, jnp.asarray([first, *rest]))


def _train(
    loss: Callable,
    network: Any,
    events: Sequence[Any],
    *,
    steps: int,
    batch: int,
    rate: float,
    key: Any,
) -> Any:
    """Adam on batches drawn from all events, with a cosine schedule.

    Args:
        loss: Of the network, a batch of each kind of events, and a random key.
        network: Where to begin.
        events: Arrays, one of each kind of events.
        steps: How many batches.
        batch: Events of each kind in one.
        rate: The first learning rate.
        key: Random key.

    Returns:
        The trained network.

    Raises:
        RuntimeError: The loss was not finite.
    """
    optimiser = optax.adam(optax.cosine_decay_schedule(rate, steps))
    arrays, static = eqx.partition(network, eqx.is_inexact_array)

    def step(carry: Any, key: Any) -> Any:
        arrays, state, events = carry
        keys = jax.random.split(key, len(events) + 1)
        drawn = tuple(
            x[jax.random.randint(k, (batch,), 0, len(x))]
            for x, k in zip(events, keys[:-1], strict=True)
        )
        value, gradient = eqx.filter_value_and_grad(loss)(
            eqx.combine(arrays, static), *drawn, keys[-1]
        )
        updates, state = optimiser.update(gradient, state)
        return (eqx.apply_updates(arrays, updates), state, events), value

    @jax.jit
    def run(arrays: Any, state: Any, events: Any, keys: Any) -> Any:
        (arrays, _, _), losses = jax.lax.scan(step, (arrays, state, events), keys)
        return arrays, losses

    keys = jax.random.split(key, steps)
    arrays, losses = run(arrays, optimiser.init(arrays), tuple(events), keys)
    if not np.isfinite(losses).all():
        raise RuntimeError("The training diverged.")
    return eqx.combine(arrays, static)


def _network(inputs: int, outputs: int, width: int, key: Any) -> Any:
    network = eqx.nn.MLP(inputs, outputs, width, 2, jax.nn.gelu, key=key)
    single = lambda x: x.astype(jnp.float32) if eqx.is_inexact_array(x) else x  # noqa: E731
    return jax.tree.map(single, network)


def strength_loss(network: Any, *batches: Any) -> Any:
    """Cross-entropy of the strengths, whose softmax is a ratio to their mean."""
    *events, _ = batches
    losses = [
        -jax.nn.log_softmax(_outputs(network, x), axis=1)[:, k]
        for k, x in enumerate(events)
    ]
    return jnp.mean(jnp.stack(losses))


def variation_loss(network: Any, *batches: Any) -> Any:
    """Cross-entropies of the nuisance parameter, up and down, for each strength.

    Both classes are the same events, moved, so that much of their noise cancels.
    """
    *events, _ = batches
    number = len(STRENGTHS)
    found = 0.0
    for k, x in enumerate(events):
        nominal, inside = _outputs(network, x), _window(x)
        for place, sign in ((k, 1.0), (number + k, -1.0)):
            moved = x + sign * jnp.asarray([SHIFT, 0.0])
            there, share = _outputs(network, moved)[:, place], _window(moved)
            found += jnp.sum(share * jax.nn.softplus(-there)) / jnp.sum(share)
            here = jax.nn.softplus(nominal[:, place])
            found += jnp.sum(inside * here) / jnp.sum(inside)
    return found


def _outputs(network: Any, x: Any) -> Any:
    return jax.vmap(network)(_scaled(x).astype(jnp.float32))


def _window(x: Any) -> Any:
    return ((x[:, 0] > WINDOW[0]) & (x[:, 0] < WINDOW[1])).astype(jnp.float32)


def single_ratio(
    samples: Sequence[np.ndarray], settings: dict[str, Any], *, key: Any
) -> Callable[[np.ndarray], np.ndarray]:
    """Learnt logarithms of ratios of samples of one number to their mean.

    For the null test: without nuisance parameter, and normalised likewise.
    """
    one, other = jax.random.split(key)
    network = _network(1, len(samples), settings["width"], one)

    def loss(network: Any, *batches: Any) -> Any:
        *events, _ = batches
        logs = [jax.nn.log_softmax(jax.vmap(network)(x), axis=1) for x in events]
        return -jnp.mean(jnp.stack([x[:, k] for k, x in enumerate(logs)]))

    def inputs(x: Any) -> Any:
        return ((x[:, None] - MASS) / 40.0).astype(jnp.float32)

    network = _train(
        loss,
        network,
        [jnp.asarray(inputs(x)) for x in samples],
        steps=settings["steps"],
        batch=settings["batch"],
        rate=settings["rate"],
        key=other,
    )

    @jax.jit
    def ratio(x: Any) -> Any:
        logs = jax.nn.log_softmax(jax.vmap(network)(inputs(x)).astype(float), axis=1)
        return logs.T + jnp.log(len(samples))

    means = [np.exp(np.asarray(ratio(x))).mean(axis=1) for x in samples]
    scale = np.log(np.mean(means, axis=0))
    return lambda x: (
        np.asarray(ratio(x.ravel())).reshape(-1, *x.shape)
        - scale.reshape(-1, *[1] * x.ndim)
    )
