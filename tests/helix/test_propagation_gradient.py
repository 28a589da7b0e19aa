"""Derivatives of tracks in any field: closed forms, differences, other adjoints."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffhep.geometry import (
    CylinderSurface,
    PlaneSurface,
    Tricubic,
    UniformField,
    gridded_field,
)
from diffhep.helix import (
    cartesian_from_perigee,
    helix_step,
    position_at,
    propagate,
    propagate_to,
    to_cylinder,
)


_ORIGIN = jnp.zeros(3)
_ALONG_Z = UniformField(jnp.array([0.0, 0.0, 2.0]))


def _map():
    # Two tesla along z with a bump; the track stays in the central cell, where the
    # interpolation is a polynomial.
    axes = [np.linspace(-900.0, 900.0, 4)] * 3
    nodes = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    bump = np.random.default_rng(0).normal(size=nodes.shape)
    return gridded_field(axes, [0, 0, 2.0] + 0.2 * bump, interpolation=Tricubic())


def _crossing(inputs, *, adjoint, max_steps=256):
    # Everything that can be differentiated, to one number.
    hit = propagate_to(*inputs, adjoint=adjoint, max_steps=max_steps)
    weights = jnp.array([1.0, -2.0, 0.5])
    lengths = jnp.sum(weights * hit.position) + hit.path
    return lengths + 100 * jnp.sum(weights * hit.direction)


def _inputs():
    direction = jnp.array([0.8, 0.36, 0.48])
    surface = PlaneSurface(jnp.array([150.0, 10, 20]), jnp.array([1.0, 0.2, -0.1]))
    start = (jnp.array([3.0, 1, -2]), direction, jnp.asarray(1.5))
    return (*start, _map(), surface)


_BACKWARDS = jax.jit(
    jax.grad(lambda x: _crossing(x, adjoint=diffrax.RecursiveCheckpointAdjoint()))
)


def _along(inputs, tangent, step):
    return jax.tree.map(lambda x, dx: x + step * dx, inputs, tangent)


def test_derivatives_of_a_track():
    inputs, forward = _inputs(), diffrax.ForwardMode()
    slopes = _BACKWARDS(inputs)

    @jax.jit
    def value_and_slope(inputs, tangent):
        function = lambda x: _crossing(x, adjoint=forward)  # noqa: E731
        return jax.jvp(function, (inputs,), (tangent,))

    rng = np.random.default_rng(1)
    # Each input by itself; the values of the field and its grid together.
    for k in range(len(inputs)):
        tangent = [jax.tree.map(jnp.zeros_like, x) for x in inputs]
        tangent[k] = jax.tree.map(
            lambda x: jnp.asarray(rng.normal(size=x.shape)), inputs[k]
        )
        tangent = tuple(tangent)
        products = jax.tree.map(lambda a, b: jnp.sum(a * b), slopes, tangent)
        found = sum(jax.tree.leaves(products))
        step = 1e-4 if k in {1, 2, 3, 4} else 1e-2
        above, below = (
            value_and_slope(_along(inputs, tangent, s), tangent)[0]
            for s in (step, -step)
        )
        np.testing.assert_allclose(found, (above - below) / (2 * step), rtol=1e-6)
        # The other direction of automatic differentiation.
        _, slope = value_and_slope(inputs, tangent)
        np.testing.assert_allclose(found, slope, rtol=1e-8)


@pytest.mark.parametrize(
    "adjoint", [diffrax.DirectAdjoint(), diffrax.BacksolveAdjoint()]
)
def test_adjoints_agree(adjoint):
    inputs = _inputs()
    other = jax.jit(jax.grad(lambda x: _crossing(x, adjoint=adjoint)))(inputs)
    for a, b in zip(
        jax.tree.leaves(_BACKWARDS(inputs)), jax.tree.leaves(other), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-8)


def test_derivatives_at_a_cylinder_are_those_of_the_helix():
    parameters = jnp.array([3.0, -20.0, 0.7, 1.1, 0.8])
    inputs = (parameters, jnp.asarray(300.0), _ALONG_Z.value[2])

    def exact(parameters, radius, field):
        arc = to_cylinder(parameters, radius, field).arc
        return position_at(parameters, arc, field)

    def integrated(parameters, radius, field):
        start = cartesian_from_perigee(parameters, _ORIGIN)
        along = UniformField(field * jnp.array([0.0, 0.0, 1.0]))
        return propagate_to(*start, along, CylinderSurface(radius)).position

    found = jax.jit(jax.jacrev(integrated, argnums=(0, 1, 2)))(*inputs)
    expected = jax.jacrev(exact, argnums=(0, 1, 2))(*inputs)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-8)


def test_derivatives_after_a_path_are_those_of_the_helix():
    inputs = (jnp.array([3.0, 1, -2]), jnp.array([0.8, 0.36, 0.48]))
    inputs = (*inputs, jnp.asarray(1.5), jnp.array([0.3, -0.2, 1.9]))
    inputs = (*inputs, jnp.asarray(-900.0))

    def integrated(*inputs):
        *start, field, path = inputs
        end = propagate(*start, UniformField(field), path)
        return jnp.concatenate([end.position, end.direction])

    def exact(*inputs):
        return jnp.concatenate(helix_step(*inputs))

    every = tuple(range(5))
    found = jax.jit(jax.jacrev(integrated, argnums=every))(*inputs)
    expected = jax.jit(jax.jacrev(exact, argnums=every))(*inputs)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-8)
