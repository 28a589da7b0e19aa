import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from ..event import Event, Particles
from ._constants import LUMINOUS_REGION, MAX_ETA, MIN_PT


# Particle Data Group, 2024: masses in GeV, mean decay length of b hadrons in mm.
_HIGGS_MASS = 125.0
_BOTTOM_MASS = 5.28
_PION_MASS = 0.1396
_BOTTOM_DECAY_LENGTH = 0.471
_EXPECTED = (10_000.0, 1_000.0)
"""Expected yields of background and signal."""


def toy_events(num_events: int, *, capacity: int = 96, key: PRNGKeyArray) -> Event:
    """A fast synthetic batch in the likeness of invisible Z with H to bb, or with jets.

    Two jets recoil against something invisible, in a soft underlying event. Signal
    (even `index`) has two b jets with a mass of about 125 GeV; background has a falling
    mass spectrum and b jets in every fourth event. A b jet holds one displaced decay.
    For tests and examples: no physics result comes from it. The multiplicity grows with
    the capacity, which is never exceeded. An event depends on `key` and
    its index alone.

    Args:
        num_events: Number of events.
        capacity: Slots for particles. With 96 about half of them are used.
        key: Random key.

    Returns:
        A batch with `particles` (by falling transverse momentum), `truth_vertex`,
        `label`, `log_weight` (10000 background and 1000 signal events are expected),
        `index` and `status` filled.

    Raises:
        ValueError: The number of events is not positive, or the capacity is below 4.
    """
    if num_events <= 0:
        raise ValueError(f"`num_events` must be positive, but is {num_events}.")
    if capacity < 4:
        raise ValueError(f"`capacity` must be at least 4, but is {capacity}; raise it.")
    return _batch(num_events, capacity, key)


@eqx.filter_jit
def _batch(num_events: int, capacity: int, key: PRNGKeyArray) -> Event:
    def one(index: Int[Array, ""]) -> Event:
        return _event(index, num_events, capacity, key=jax.random.fold_in(key, index))

    return jax.vmap(one)(jnp.arange(num_events, dtype=jnp.int32))


def _event(
    index: Int[Array, ""], num_events: int, capacity: int, *, key: PRNGKeyArray
) -> Event:
    keys = jax.random.split(key, 6)
    signal = index % 2 == 0
    vertex = jax.random.normal(keys[0], (3,))
    vertex = vertex * jnp.asarray(LUMINOUS_REGION, vertex.dtype)
    heavy = signal | jax.random.bernoulli(keys[1], 0.25)
    jets = _dijet(signal, key=keys[2])
    slots = capacity // 4
    parts = [
        _jet(jets[0], vertex, heavy, slots, key=keys[3]),
        _jet(jets[1], vertex, heavy, slots, key=keys[4]),
        _underlying(vertex, capacity - 2 * slots, key=keys[5]),
    ]
    particles = jax.tree.map(lambda *x: jnp.concatenate(x), *parts)
    number = jnp.where(signal, (num_events + 1) // 2, max(num_events // 2, 1))
    expected = jnp.where(signal, _EXPECTED[1], _EXPECTED[0])
    return Event(
        particles=_order(particles),
        truth_vertex=vertex,
        label=signal.astype(vertex.dtype),
        log_weight=jnp.log(expected / number.astype(vertex.dtype)).astype(vertex.dtype),
        index=index,
        status=jnp.zeros_like(index),
    )


def _dijet(signal: Bool[Array, ""], *, key: PRNGKeyArray) -> Float[Array, "2 3"]:
    # Momenta of the two massless partons of a system that recoils with 120 GeV or more.
    keys = jax.random.split(key, 5)
    pt = 120.0 + 50.0 * jax.random.exponential(keys[0])
    azimuth = jax.random.uniform(keys[1], (), minval=-jnp.pi, maxval=jnp.pi)
    rapidity = 0.6 * jax.random.normal(keys[2])
    falling = 20.0 + 60.0 * jax.random.exponential(keys[3])
    mass = jnp.where(signal, _HIGGS_MASS, falling)
    transverse_mass = jnp.sqrt(pt**2 + mass**2)
    momentum = jnp.stack(
        [
            pt * jnp.cos(azimuth),
            pt * jnp.sin(azimuth),
            transverse_mass * jnp.sinh(rapidity),
        ]
    )
    energy = transverse_mass * jnp.cosh(rapidity)
    direction = jax.random.normal(keys[4], (3,))
    rest = direction * (mass / 2) / jnp.sqrt(jnp.sum(direction**2))
    # The boost of a four-vector (mass / 2, rest) to the system's momentum.
    along = jnp.sum(rest * momentum) / (mass * (energy + mass))
    shift = momentum * along
    return jnp.stack([momentum / 2 + rest + shift, momentum / 2 - rest - shift])


def _jet(
    axis: Float[Array, " 3"],
    vertex: Float[Array, " 3"],
    heavy: Bool[Array, ""],
    slots: int,
    *,
    key: PRNGKeyArray,
) -> Particles:
    # The first third of the slots decays from a b hadron with 70 % of the momentum.
    keys = jax.random.split(key, 5)
    decay = (jnp.arange(slots) < max(slots // 3, 1)) & heavy
    used = jax.random.bernoulli(keys[0], 0.6, (slots,)) | (jnp.arange(slots) == 0)
    raw = jnp.where(used, jax.random.exponential(keys[1], (slots,)) + 0.1, 0.0)
    hard = jnp.where(decay, raw, 0.0)
    soft = jnp.where(decay, 0.0, raw)
    share_hard = jnp.where(heavy, 0.7, 0.0)
    fraction = share_hard * hard / jnp.maximum(jnp.sum(hard), 0.1)
    fraction += (1 - share_hard) * soft / jnp.maximum(jnp.sum(soft), 0.1)
    kick = 0.5 * jax.random.normal(keys[2], (slots, 3))
    kick = jnp.where(used[:, None], kick, 0.0)
    kick -= fraction[:, None] * jnp.sum(kick, axis=0)[None, :]
    momentum = fraction[:, None] * axis[None, :] + kick
    flight = 0.7 * axis / _BOTTOM_MASS * _BOTTOM_DECAY_LENGTH
    flight *= jax.random.exponential(keys[3])
    origin = vertex[None, :] + jnp.where(decay[:, None], flight[None, :], 0.0)
    return _particles(momentum, origin, decay, used, key=keys[4])


def _underlying(
    vertex: Float[Array, " 3"], slots: int, *, key: PRNGKeyArray
) -> Particles:
    keys = jax.random.split(key, 5)
    pt = 1.0 + 0.6 * jax.random.exponential(keys[0], (slots,))
    eta = jax.random.uniform(keys[1], (slots,), minval=-MAX_ETA, maxval=MAX_ETA)
    azimuth = jax.random.uniform(keys[2], (slots,), minval=-jnp.pi, maxval=jnp.pi)
    momentum = jnp.stack(
        [pt * jnp.cos(azimuth), pt * jnp.sin(azimuth), pt * jnp.sinh(eta)], axis=1
    )
    used = jax.random.bernoulli(keys[3], 0.5, (slots,))
    origin = jnp.broadcast_to(vertex, (slots, 3))
    return _particles(momentum, origin, jnp.zeros_like(used), used, key=keys[4])


def _particles(
    momentum: Float[Array, "particles 3"],
    vertex: Float[Array, "particles 3"],
    decay: Bool[Array, " particles"],
    used: Bool[Array, " particles"],
    *,
    key: PRNGKeyArray,
) -> Particles:
    slots = momentum.shape[0]
    species = jax.random.uniform(key, (slots,))
    sign = jnp.where(species < 0.31, -1, 1)
    charged = species < 0.62
    mass = jnp.where(charged, _PION_MASS, 0.0)
    energy = jnp.sqrt(jnp.sum(momentum**2, axis=1) + mass**2)
    pt = jnp.hypot(momentum[:, 0], momentum[:, 1])
    accepted = (pt > MIN_PT) & (jnp.abs(momentum[:, 2]) < pt * jnp.sinh(MAX_ETA))
    return Particles(
        momentum=jnp.concatenate([momentum, energy[:, None]], axis=1),
        vertex=vertex,
        charge=jnp.where(charged, sign, 0).astype(momentum.dtype),
        pdg_id=jnp.where(charged, 211 * sign, 22).astype(jnp.int32),
        origin=jnp.where(decay, 5, 0).astype(jnp.int32),
        mask=used & accepted,
    )


def _order(particles: Particles) -> Particles:
    # Falling transverse momentum, dead slots (all zero) last.
    pt2 = jnp.sum(particles.momentum[:, :2] ** 2, axis=1)
    order = jnp.argsort(jnp.where(particles.mask, -pt2, jnp.inf))
    mask = particles.mask[order]

    def take(leaf: Array) -> Array:
        leaf = leaf[order]
        alive = mask.reshape((-1,) + (1,) * (leaf.ndim - 1))
        return jnp.where(alive, leaf, jnp.zeros_like(leaf))

    return jax.tree.map(take, particles)
