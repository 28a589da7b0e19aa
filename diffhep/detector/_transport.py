import functools

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ..geometry import (
    MOST_OBLIQUE,
    STAGGER,
    AbstractDetector,
    Cylinders,
    Discs,
    LayerGroup,
    effective_thickness,
)
from ..helix import (
    MUON_MASS,
    Crossings,
    Ionisation,
    cross_layers,
    curvature,
    lose_energy,
    perigee_from_momentum,
    perigee_from_point,
    position_at,
    scattering_angle,
)


_WIDTHS = 12.0


class SimulatedHits(eqx.Module):
    """What the layers would measure of one particle, were every hit found."""

    position: Float[Array, "layers 2"]
    """Both measured coordinates, in rad and mm; see the layers."""
    logit: Float[Array, " layers"]
    """Log-odds that the hit is found; minus infinity where `reached` is false."""
    reached: Bool[Array, " layers"]
    """Which layers the particle crosses."""


def simulate_hits(
    position: Float[Array, " 3"],
    momentum: Float[Array, " 4"],
    charge: Float[Array, ""],
    detector: AbstractDetector,
    noise: Float[Array, "layers kinds"],
    *,
    ionisation: Ionisation | None = None,
) -> SimulatedHits:
    """The hits of a charged particle, by exact helices between the layers.

    At each layer the position is measured with the Gaussian resolution of its pixels,
    pitch / sqrt(12). Then the direction changes by multiple scattering, and the
    momentum by the energy lost, which fluctuates like a Gaussian. Both are small, and
    taken at the momentum of the start. Everything is differentiable in the detector and
    in the particle.

    A layer sees a particle that is produced before it and crosses it between its edges.
    So that these may be parameters, this is no cut: the probability of a hit is the
    efficiency times a logistic function of each distance, of the width `STAGGER`, and
    so is the fraction of the scattering. More than 12 widths outside (a probability
    below 1e-5) a hit is impossible.

    Args:
        position: Production vertex (x, y, z), in mm.
        momentum: Four-momentum (px, py, pz, E), in GeV, not along z.
        charge: Charge, in units of e.
        detector: The detector.
        noise: Independent standard normal numbers: pixels in both coordinates,
            scattering in phi and theta; and a fifth for the energy loss, if there is.
        ionisation: How much energy is lost in the material; none unless given.

    Returns:
        The hits, finite everywhere.

    Raises:
        ValueError: There are not as many kinds of noise as are needed.
    """
    kinds = 4 if ionisation is None else 5
    if noise.shape[1] != kinds:
        raise ValueError(
            f"`noise` has {noise.shape[1]} numbers per layer, but {kinds} are needed "
            f"{'without' if ionisation is None else 'with'} energy loss."
        )
    start = perigee_from_momentum(position, momentum[:3], charge, detector.field)
    total = jnp.sqrt(jnp.sum(momentum[:3] ** 2))
    # A photon's rounding must not make anybody faster than light.
    beta = jnp.minimum(total / momentum[3], 1.0)
    # What is lighter than a muon loses energy like one.
    square = momentum[3] ** 2 - total**2
    mass = jnp.sqrt(jnp.maximum(square, MUON_MASS**2))
    layers = _Layers(
        groups=_in_step(detector.groups),
        thickness=effective_thickness(detector),
        ahead=jnp.concatenate(
            [_ahead(group, position, momentum) for group in detector.groups]
        ),
        kick=noise[:, 2:],
    )
    order = None
    if not detector.ordered:
        first = [cross_layers(start, g, detector.field) for g in detector.groups]
        order = jnp.argsort(jnp.concatenate([crossings.arc for crossings in first]))
        layers = jax.tree.map(lambda x: x[order], layers)

    particle = _Particle(total, beta, mass, ionisation)
    step = functools.partial(_pass, particle=particle, field=detector.field)
    _, (crossings, depth) = jax.lax.scan(step, start, layers)
    crossings = jax.tree.map(lambda x: x[:, 0], crossings)
    if order is not None:
        back = jnp.argsort(order)
        crossings, depth = jax.tree.map(lambda x: x[back], (crossings, depth))
    reached = crossings.reached & jnp.all(depth > -_WIDTHS, axis=1)
    root = jnp.sqrt(jnp.asarray(12.0, depth.dtype))
    units = jnp.stack([crossings.scale, jnp.ones_like(crossings.scale)], axis=1)
    measured = crossings.position + detector.pitch / root / units * noise[:, :2]
    depth = jnp.where(reached[:, None], depth, 0.0)
    log_found = jnp.log(detector.efficiency) + jnp.sum(jax.nn.log_sigmoid(depth), 1)
    logit = log_found - jnp.log1p(-jnp.exp(log_found))
    return SimulatedHits(measured, jnp.where(reached, logit, -jnp.inf), reached)


class _Particle(eqx.Module):
    momentum: Float[Array, ""]
    beta: Float[Array, ""]
    mass: Float[Array, ""]
    ionisation: Ionisation | None


class _Layers(eqx.Module):
    groups: tuple[tuple[LayerGroup, Bool[Array, " layers"]], ...]
    thickness: Float[Array, " layers"]
    ahead: Float[Array, " layers"]
    kick: Float[Array, "layers kinds"]


def _pass(
    parameters: Float[Array, " 5"],
    layer: _Layers,
    *,
    particle: _Particle,
    field: Float[Array, ""],
) -> tuple[Float[Array, " 5"], tuple[Crossings, Float[Array, " 2"]]]:
    # Through one layer: the helix behind it, the crossing, and how deep inside the
    # layer's edges it is, in units of their width.
    crossing = _cross(parameters, layer.groups, field)
    depth = jnp.stack([layer.ahead, crossing.inside[0]]) / STAGGER
    sine = jnp.sin(parameters[3])
    path = layer.thickness / jnp.maximum(crossing.incidence[0], MOST_OBLIQUE)
    present = jnp.prod(jax.nn.sigmoid(depth))
    width = scattering_angle(path, particle.momentum, particle.beta) * present
    charge_over_momentum = parameters[4]
    ionisation = particle.ionisation
    if ionisation is not None:
        state = (path * present, particle.momentum, particle.mass)
        loss = ionisation.mean(*state) + ionisation.width(*state) * layer.kick[2]
        charge_over_momentum = lose_energy(charge_over_momentum, loss, particle.mass)
    arc = crossing.arc[0]
    direction = parameters[2] - curvature(parameters, field) * arc
    after = perigee_from_point(
        position_at(parameters, arc, field),
        direction + width / sine * layer.kick[0],
        parameters[3] + width * layer.kick[1],
        charge_over_momentum,
        field,
    )
    # A layer that is not reached changes nothing.
    return jnp.where(crossing.reached[0], after, parameters), (crossing, depth)


def _in_step(
    layers: tuple[LayerGroup, ...],
) -> tuple[tuple[LayerGroup, Bool[Array, " layers"]], ...]:
    # Each group with an entry for every layer, and which of those are its own: others
    # hold a copy of its first.
    total, begin, groups = sum(group.number for group in layers), 0, []
    for group in layers:
        index = jnp.arange(total) - begin
        own = jnp.clip(index, 0, group.number - 1)
        spread = jax.tree.map(lambda x, own=own: x[own], group)
        groups.append((spread, own == index))
        begin += group.number
    return tuple(groups)


def _cross(
    parameters: Float[Array, " 5"],
    groups: tuple[tuple[LayerGroup, Bool[Array, ""]], ...],
    field: Float[Array, ""],
) -> Crossings:
    # The crossing of one layer, of whatever kind it is.
    (first, _), *others = groups
    found = cross_layers(parameters, _alone(first), field)
    for group, own in others:
        other = cross_layers(parameters, _alone(group), field)
        found = jax.tree.map(lambda a, b, own=own: jnp.where(own, a, b), other, found)
    return found


def _alone(surface: LayerGroup) -> LayerGroup:
    return jax.tree.map(lambda x: x[None], surface)


def _ahead(
    layers: LayerGroup, position: Float[Array, " 3"], momentum: Float[Array, " 4"]
) -> Float[Array, " layers"]:
    # How far the layers are ahead of the production vertex, along their normal, in mm.
    if isinstance(layers, Discs):
        away = layers.z - position[2]
        return jnp.where(momentum[2] < 0, -away, away)
    if isinstance(layers, Cylinders):
        # An impact parameter of zero has no derivative as a square root.
        radius = position[0] ** 2 + position[1] ** 2 + STAGGER**2 / 100
        return layers.radii - jnp.sqrt(radius)
    x = position[0] * jnp.cos(layers.azimuth) + position[1] * jnp.sin(layers.azimuth)
    return layers.distance - x
