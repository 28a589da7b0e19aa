"""Vertices that compete for tracks: against single fits, and finite differences."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
import pytest

from diffhep.helix import perigee_at
from diffhep.testing import check_gradient
from diffhep.vertexing import AdaptiveWeights, fit_multiple_vertices, fit_vertex


TRACKS, SLOTS = 26, 4
MASK = jnp.arange(TRACKS) < 24
INDEX = jnp.arange(TRACKS) % 3
# The last slot is dead.
ALIVE = jnp.arange(SLOTS) < 3
SPOT = jnp.asarray([0.05, 0.05, 30.0])
# Two arrangements at once, well separated and overlapping: one compilation.
HEIGHTS = jnp.asarray([[-9.0, 1.0, 12.0, 0.0], [0.0, 0.35, 1.0, 0.0]])
UNROLLED = optx.RecursiveCheckpointAdjoint()


@pytest.fixture(scope="module", autouse=True)
def quick_everywhere():
    """Compilation in half the time; the code is slow, but the events are two."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module")
def both(quick_everywhere, decays):
    """Everything that a fit depends on, by name, with dead tracks and vertices."""

    def one(heights, key):
        vertices = [0.02 * jnp.sin(heights), 0.03 * jnp.cos(heights), heights]
        vertices = jnp.stack(vertices, axis=1)
        parameters, covariance = decays.collisions(key, vertices[INDEX], 1.0)
        return {
            "parameters": parameters,
            "covariance": covariance,
            "shift": jnp.zeros((TRACKS, 5)),
            "scale": jnp.zeros(TRACKS),
            "weight": jnp.linspace(0.5, 1.0, TRACKS),
            "field": jnp.asarray(2.0),
            "centre": jnp.zeros((SLOTS, 3)),
            "precision": jnp.broadcast_to(jnp.diag(1 / SPOT**2), (SLOTS, 3, 3)),
            "tightness": jnp.zeros(SLOTS),
            "start": vertices,
            "adaptive": AdaptiveWeights(jnp.asarray(1.2), jnp.asarray(3.0)),
        }

    return jax.jit(jax.vmap(one))(HEIGHTS, jax.random.split(jax.random.key(5)))


# What is varied: measurements by standard deviations, matrices as a whole.
DATA = ("parameters", "covariance", "precision")
SCALES = ("scale", "tightness")


def _fit(arguments, mask, alive, *, adjoint=None):
    variance = jnp.diagonal(arguments["covariance"], axis1=1, axis2=2)
    widths = jnp.sqrt(jnp.where(mask[:, None], variance, 1.0))
    return fit_multiple_vertices(
        arguments["parameters"] + arguments["shift"] * widths,
        arguments["covariance"] * jnp.exp(arguments["scale"])[:, None, None],
        arguments["weight"],
        mask,
        arguments["field"],
        prior_mean=arguments["centre"],
        prior_precision=arguments["precision"]
        * jnp.exp(arguments["tightness"])[:, None, None],
        start=arguments["start"],
        vertex_mask=alive,
        adaptive=arguments["adaptive"],
        # Many, for the unrolled derivative converges like the solution.
        num_steps=12,
        adjoint=adjoint,
    )


def _live(mask, array):
    return jnp.reshape(mask, (-1,) + (1,) * (array.ndim - 1))


def _outputs(arguments, mask, alive, *, adjoint=None):
    fit = _fit(arguments, mask, alive, adjoint=adjoint)
    # In units of their size, so that each counts.
    outputs = (fit.position, 1e4 * fit.covariance, fit.chi2, fit.ndf, fit.weight)
    return tuple(jnp.where(_live(fit.mask, x), x, 0.0) for x in outputs)


def _scalar(arguments, mask, alive):
    # Of the position: finite differences have seen the rest, and a smaller program
    # compiles sooner.
    outputs = _outputs(arguments, mask, alive)
    flat = jnp.ravel(outputs[0])
    return jnp.sum(jnp.sin(flat + jnp.arange(1.0 * flat.size))), outputs


_AXES = (0, None, None)
fit = jax.jit(jax.vmap(_fit, in_axes=_AXES))
gradient = jax.jit(jax.vmap(jax.grad(_scalar, has_aux=True), in_axes=_AXES))


@functools.partial(jax.jit, static_argnames="adjoint")
def _slopes(both, direction, adjoint):
    def one(arguments):
        return _outputs(arguments, MASK, ALIVE, adjoint=adjoint)[0]

    return jax.jvp(jax.vmap(one), (both,), (direction,))[1]


def test_gradient_equals_finite_differences(both):
    fixed = {name: both[name] for name in DATA}
    varied = {name: both[name] for name in both if name not in DATA}

    def function(varied):
        return jax.vmap(_outputs, in_axes=_AXES)(varied | fixed, MASK, ALIVE)

    # Forward mode is compared with that of the unrolled steps.
    found = check_gradient(function, (varied,), rtol=1e-7, eps=1e-4, forward=False)
    assert 0 < found < 1e-7


def test_implicit_equals_unrolled(both):
    generator = np.random.default_rng(2)
    for name in both:
        if name in DATA:
            continue
        zero = jax.tree.map(jnp.zeros_like, both)
        draw = lambda x: jnp.asarray(generator.normal(size=x.shape))  # noqa: E731
        direction = zero | {name: jax.tree.map(draw, both[name])}
        implicit = _slopes(both, direction, None)
        unrolled = _slopes(both, direction, UNROLLED)
        scale = np.abs(unrolled).max()
        assert (scale > 0) == (name != "start"), name
        np.testing.assert_allclose(implicit, unrolled, atol=1e-9 * scale, rtol=0)


def test_a_track_of_one_vertex_moves_the_other(both):
    # What a solver for independent blocks would miss; nothing if they are far apart.
    track = int(np.flatnonzero(np.asarray((INDEX == 0) & MASK))[3])
    zero = jax.tree.map(jnp.zeros_like, both)
    direction = zero | {"shift": zero["shift"].at[:, track, 1].set(1.0)}
    heights = _slopes(both, direction, None)[:, 1, 2]
    assert np.abs(heights[0]) < 1e-9
    assert np.abs(heights[1]) > 1e-4


def test_padding_is_inert(both):
    def poisoned(value):
        dirty = dict(both)
        for name, mask in (
            *((name, MASK) for name in ("parameters", "covariance", "weight")),
            *((name, ALIVE) for name in ("centre", "precision", "start")),
        ):
            alive = _live(mask, both[name][0])[None]
            dirty[name] = jnp.where(alive, both[name], value)
        slopes, values = gradient(dirty, MASK, ALIVE)
        # By these the test itself multiplies what is dead.
        return {k: v for k, v in slopes.items() if k not in SCALES}, values

    clean = poisoned(1.0)
    slopes, values = clean
    assert np.all(np.asarray(slopes["parameters"])[:, ~MASK] == 0)
    assert np.all(np.asarray(slopes["precision"])[:, ~ALIVE] == 0)
    assert all(np.all(np.isfinite(x)) for x in values)
    for value in (0.0, jnp.nan, jnp.inf, 1e30):
        dirty = poisoned(value)
        for a, b in zip(jax.tree.leaves(clean), jax.tree.leaves(dirty), strict=True):
            np.testing.assert_array_equal(a, b)


def test_the_order_of_the_tracks_does_not_matter(both):
    order = jnp.asarray(np.random.default_rng(1).permutation(TRACKS))
    names = ("parameters", "covariance", "weight")
    shuffled = both | {name: both[name][:, order] for name in names}
    one, other = fit(both, MASK, ALIVE), fit(shuffled, MASK[order], ALIVE)
    np.testing.assert_allclose(one.position, other.position, atol=1e-9)
    np.testing.assert_allclose(one.covariance, other.covariance, rtol=1e-7, atol=1e-12)
    np.testing.assert_allclose(one.weight[:, :, order], other.weight, atol=1e-8)


def _terms(point, parameters, covariance):
    # Independently: the helix of `helix.perigee_at`, derivatives by JAX.
    field = jnp.asarray(2.0)
    to_track = jax.jacfwd(perigee_at)(parameters, point, field)[:2]
    to_point = jax.jacfwd(perigee_at, 1)(parameters, point, field)[:2]
    precision = jnp.linalg.inv(to_track @ covariance @ to_track.T)
    miss = perigee_at(parameters, point, field)[:2]
    return miss @ precision @ miss, to_point.T @ precision @ miss


@pytest.mark.parametrize("row", [0, 1])
def test_the_weights_and_the_equations_are_as_stated(both, row):
    arguments = jax.tree.map(lambda x: x[row], both)
    found = jax.tree.map(lambda x: x[row], fit(both, MASK, ALIVE))
    number = int(MASK.sum())
    live = (arguments[name][:number] for name in ("parameters", "covariance"))
    per_track = jax.vmap(_terms, in_axes=(None, 0, 0))
    per_pair = jax.jit(jax.vmap(per_track, in_axes=(0, None, None)))
    chi2, slope = per_pair(found.position[:3], *live)
    adaptive = arguments["adaptive"]
    twice = 2 * float(adaptive.temperature)
    parts = np.exp(-np.asarray(chi2) / twice)
    whole = np.exp(-(float(adaptive.cutoff) ** 2) / twice) + parts.sum(axis=0)
    weight = np.asarray(arguments["weight"])[None, :number] * parts / whole
    np.testing.assert_allclose(found.weight[:3, :number], weight, rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(found.chi2[:3], (weight * chi2).sum(1), rtol=1e-6)
    pull = found.position[:3] / SPOT[None, :] ** 2
    total = np.einsum("kn,kna->ka", weight, slope) + pull
    size = np.einsum("kn,kna->ka", weight, np.abs(slope))
    np.testing.assert_array_less(np.abs(total), 1e-8 * size)


def test_alone_it_is_the_adaptive_fit(both):
    one = jnp.arange(SLOTS) == 1
    found = fit(both, MASK, one)
    np.testing.assert_array_equal(found.mask, np.stack([one, one]))

    def single(arguments, start):
        return fit_vertex(
            arguments["parameters"],
            arguments["covariance"],
            arguments["weight"],
            MASK,
            arguments["field"],
            prior_mean=jnp.zeros(3),
            prior_precision=jnp.diag(1 / SPOT**2),
            start=start,
            num_steps=12,
            adaptive=arguments["adaptive"],
        )

    single = jax.jit(jax.vmap(single))(both, found.position[:, 1])
    for name in ("position", "covariance", "chi2", "ndf", "weight"):
        ours, theirs = getattr(found, name)[:, 1], getattr(single, name)
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("place", ["where there is no track", "on top of another"])
def test_what_lost_its_tracks_is_no_vertex(both, place):
    nowhere = jnp.asarray([[0.0, 0.0, 80.0]] * 2)
    last = nowhere if "no track" in place else both["start"][:, 2] + 0.01
    start = both["start"].at[:, 3].set(last)
    found = fit(both | {"start": start}, MASK, ALIVE | True)
    np.testing.assert_array_equal(found.mask.sum(axis=1), 3)
    assert np.all(found.converged)
    assert all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves(found))
    # The others do not notice.
    wanted = fit(both, MASK, ALIVE)
    for row in range(2):
        ours = np.sort(found.position[row][np.asarray(found.mask[row])][:, 2])
        theirs = np.sort(wanted.position[row, :3, 2])
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_without_tracks_nothing_is_found(both):
    none = jnp.zeros(TRACKS, bool)
    found = fit(both, none, ALIVE)
    assert not np.any(found.mask)
    np.testing.assert_allclose(found.position, 0.0, atol=1e-12)
    np.testing.assert_allclose(found.covariance[0, 0], np.diag(SPOT**2), rtol=1e-12)
    slopes, _ = gradient(both, none, ALIVE)
    assert all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves(slopes))
