"""Decay chains: tracks, the vertices they come from, and what flew between these."""

import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optimistix as optx
from jaxtyping import Array, Bool, Float

from ..helix import momentum, perigee_at, perigee_from_momentum
from ..numerics import matmul, safe_norm, safe_sqrt
from ._constrained import ConstraintStatus, fit_constrained
from ._fit import fit_vertex


class DecayTrack(eqx.Module):
    """A charged particle at the end of a decay chain."""

    parameters: Float[Array, " 5"]
    """Measured track parameters about the origin."""
    covariance: Float[Array, "5 5"]
    """Their covariance."""
    mass: Float[Array, ""]
    """Its mass, in GeV."""


class Decay(eqx.Module):
    """A particle that decays."""

    products: tuple["DecayTrack | Decay", ...]
    """What it decays to."""
    mass: Float[Array, ""] | None = None
    """Its mass in GeV, to constrain it to; None: it is free."""
    four_momentum: Float[Array, " 4"] | None = None
    """Its (px, py, pz, E) in GeV, to constrain it to: the beams', say."""
    flies: bool = eqx.field(static=True, default=True)
    """Whether it has a vertex of its own; if not, it decays where it is made. One that
    flies must point back to where it is made; the first of a chain always flies."""


class Origin(eqx.Module):
    """Where the first particle of a chain is made, measured: a beam spot, say."""

    position: Float[Array, " 3"]
    """Position (x, y, z), in mm."""
    covariance: Float[Array, "3 3"]
    """Its covariance, in mm^2."""


class DecayFit(eqx.Module):
    """A fitted decay chain. Decays are listed parents first, as they are written."""

    parameters: Float[Array, "tracks 5"]
    """The improved track parameters about the origin, phi as measured, not wrapped."""
    origin: Float[Array, " 3"] | None
    """The improved origin, if there is one."""
    vertices: Float[Array, "vertices 3"]
    """Vertices of the decays that fly, in mm."""
    four_momenta: Float[Array, "decays 4"]
    """(px, py, pz, E) of the decays where they decay, in GeV."""
    mass: Float[Array, " decays"]
    """Their masses, in GeV."""
    mass_error: Float[Array, " decays"]
    """The standard deviations of these; zero where the mass is constrained."""
    flight: Float[Array, " flights"]
    """Distances between where a decay was made and its vertex, in mm, of those that fly
    (of the first with an origin only)."""
    flight_error: Float[Array, " flights"]
    """Their standard deviations."""
    covariance: Float[Array, "all all"]
    """Covariance of all track parameters, the origin if any, and the vertices."""
    chi2: Float[Array, ""]
    """Chi-squared of the change of tracks and origin."""
    ndf: int = eqx.field(static=True)
    """Degrees of freedom."""
    converged: Bool[Array, ""]
    """Whether the solution was reached. If not, all is finite and means nothing."""
    status: ConstraintStatus
    """How the fit ended."""


class _Walk(eqx.Module):
    """What a chain is like for given tracks and vertices."""

    residuals: list[Float[Array, " n"]] = eqx.field(default_factory=list)
    four_momenta: list[Float[Array, " 4"]] = eqx.field(default_factory=list)
    flights: list[Float[Array, ""]] = eqx.field(default_factory=list)


class _Chain(eqx.Module):
    """The constraints of a decay chain."""

    decay: Decay
    field: Float[Array, ""]
    has_origin: bool = eqx.field(static=True)

    def __call__(
        self, measured: Float[Array, " measured"], unmeasured: Float[Array, " vertices"]
    ) -> Float[Array, " constraints"]:
        return jnp.concatenate(self.walk(measured, unmeasured).residuals)

    def walk(
        self, measured: Float[Array, " measured"], unmeasured: Float[Array, " vertices"]
    ) -> _Walk:
        """The chain for given tracks and vertices."""
        walk, origin = _Walk(), None
        if self.has_origin:
            measured, origin = measured[:-3], measured[-3:]
        tracks = iter(jnp.reshape(measured, (-1, 5)))
        vertices = iter(jnp.reshape(unmeasured, (-1, 3)))
        self._visit(self.decay, origin, next(vertices), (tracks, vertices), walk)
        return walk

    def _visit(
        self,
        decay: Decay,
        made_at: Float[Array, " 3"] | None,
        vertex: Float[Array, " 3"],
        rest: tuple[Any, Any],
        walk: _Walk,
    ) -> tuple[Float[Array, " 4"], Float[Array, ""]]:
        # Four-momentum and charge of a particle where it decays.
        index, ends = len(walk.four_momenta), []
        walk.four_momenta.append(jnp.zeros(4, vertex.dtype))
        for product in decay.products:
            if isinstance(product, DecayTrack):
                ends.append(self._begin(product, vertex, next(rest[0]), walk))
            else:
                own = next(rest[1]) if product.flies else vertex
                ends.append(self._visit(product, vertex, own, rest, walk))
        total = functools.reduce(jnp.add, [four for four, _ in ends])
        charge = functools.reduce(jnp.add, [charge for _, charge in ends])
        walk.four_momenta[index] = total
        if decay.mass is not None:
            # In GeV, about.
            excess = _square(total) - decay.mass**2
            walk.residuals.append(excess[None] / (2 * total[3]))
        if decay.four_momentum is not None:
            walk.residuals.append(total - decay.four_momentum)
        if made_at is not None and vertex is not made_at:
            way = vertex - made_at
            back = perigee_from_momentum(way, total[:3], charge, self.field)
            walk.residuals.append(back[:2])
            walk.flights.append(safe_norm(way))
        return total, charge

    def _begin(
        self,
        track: DecayTrack,
        vertex: Float[Array, " 3"],
        parameters: Float[Array, " 5"],
        walk: _Walk,
    ) -> tuple[Float[Array, " 4"], Float[Array, ""]]:
        # The same for a track where it begins.
        moved = perigee_at(parameters, vertex, self.field)
        walk.residuals.append(moved[:2])
        three = momentum(moved)
        energy = jnp.sqrt(jnp.sum(three**2) + track.mass**2)
        return jnp.append(three, energy), jnp.sign(moved[4])


def _square(four: Float[Array, " 4"]) -> Float[Array, ""]:
    return four[3] ** 2 - jnp.sum(four[:3] ** 2)


def fit_decay(
    decay: Decay,
    field: Float[Array, ""],
    *,
    origin: Origin | None = None,
    num_steps: int = 15,
    adjoint: optx.AbstractAdjoint | None = None,
) -> DecayFit:
    """A whole decay chain in one fit: vertices, momenta, masses, flights.

    The constraints follow from the chain: each track comes from its vertex, each
    particle that flies points back to where it was made (along a helix if it is
    charged), and masses and four-momenta are what they are said to be. They hold
    exactly; the tracks are improved by all of them together, as by TreeFitter
    (Hulsbergen, NIM A552 (2005) 566), which filters what is solved here as one system.

    Two tracks may cross twice. The search begins where a plain vertex fit ends that
    began at the origin, and stays at that crossing: for one in a thousand of the
    strange particles of `tests/vertexing/test_decay.py` that is the wrong one.

    Args:
        decay: The chain.
        field: Magnetic field along z, in T.
        origin: Where the first particle was made; it points there. Unknown unless
            given.
        num_steps: Number of steps.
        adjoint: How the gradient crosses the fit; implicit unless given.

    Returns:
        The fit, with gradients to tracks, covariances, masses, field and origin.

    Raises:
        ValueError: A decay has no products, or no chain of vertices can be fitted
            because fewer than two tracks are in one that flies.
    """
    tracks = _tracks_of(decay)
    measured = [jnp.ravel(track.parameters) for track in tracks]
    blocks = [track.covariance for track in tracks]
    if origin is not None:
        measured.append(origin.position)
        blocks.append(origin.covariance)
    chain = _Chain(decay, field, origin is not None)
    starts = [_start(group, field) for group in _vertices_of(decay)]
    fit = fit_constrained(
        jnp.concatenate(measured),
        jax.scipy.linalg.block_diag(*blocks),
        [chain],
        unmeasured=jnp.concatenate(starts),
        num_steps=num_steps,
        adjoint=adjoint,
    )
    size = fit.measured.shape[0]

    def numbers(unknowns: Float[Array, " unknowns"]) -> Any:
        walk = chain.walk(unknowns[:size], unknowns[size:])
        masses = [safe_sqrt(_square(four)) for four in walk.four_momenta]
        return jnp.stack(masses + walk.flights), jnp.stack(walk.four_momenta)

    unknowns = jnp.concatenate([fit.measured, fit.unmeasured])
    slopes, _ = jax.jacfwd(numbers)(unknowns)
    values, four_momenta = numbers(unknowns)
    spread = matmul(slopes, matmul(fit.covariance, slopes.T))
    errors = safe_sqrt(jnp.diagonal(spread))
    decays = four_momenta.shape[0]
    return DecayFit(
        parameters=jnp.reshape(fit.measured[: 5 * len(tracks)], (-1, 5)),
        origin=None if origin is None else fit.measured[-3:],
        vertices=jnp.reshape(fit.unmeasured, (-1, 3)),
        four_momenta=four_momenta,
        mass=values[:decays],
        mass_error=errors[:decays],
        flight=values[decays:],
        flight_error=errors[decays:],
        covariance=fit.covariance,
        chi2=fit.chi2,
        ndf=fit.ndf,
        converged=fit.converged,
        status=fit.status,
    )


def _tracks_of(node: DecayTrack | Decay) -> list[DecayTrack]:
    if isinstance(node, DecayTrack):
        return [node]
    if not node.products:
        raise ValueError("A decay has no `products`; give it tracks or other decays.")
    return [track for product in node.products for track in _tracks_of(product)]


def _vertices_of(decay: Decay) -> list[list[DecayTrack]]:
    # For each vertex the tracks to find it from: its own, or all below.
    inner, near = [], []
    stack = list(decay.products)
    while stack:
        product = stack.pop(0)
        if isinstance(product, DecayTrack):
            near.append(product)
        elif product.flies:
            inner += _vertices_of(product)
        else:
            stack = list(product.products) + stack
    group = near if len(near) > 1 else _tracks_of(decay)
    if len(group) < 2:
        raise ValueError(
            "A decay that flies has a single track; a vertex takes two at least. Give "
            "it more `products`, or set `flies=False`."
        )
    return [group, *inner]


def _start(tracks: list[DecayTrack], field: Float[Array, ""]) -> Float[Array, " 3"]:
    parameters = jnp.stack([track.parameters for track in tracks])
    ones = jnp.ones_like(parameters[:, 0])
    zero = jnp.zeros(3, parameters.dtype)
    fit = fit_vertex(
        parameters,
        jnp.stack([track.covariance for track in tracks]),
        ones,
        ones > 0,
        field,
        prior_mean=zero,
        prior_precision=1e-6 * jnp.eye(3, dtype=parameters.dtype),
        start=zero,
        num_steps=15,
    )
    return jax.lax.stop_gradient(
        jnp.where(jnp.all(jnp.isfinite(fit.position)), fit.position, zero)
    )
