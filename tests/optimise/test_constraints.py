import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from scipy.optimize import minimize

from diffhep.optimise import Box, Increasing, project


RADII = Increasing(25.0, 1100.0, 20.0)
_project = jax.jit(RADII.project)
_vectors = st.lists(
    st.floats(-2000.0, 3000.0, allow_nan=False), min_size=5, max_size=5
).map(jnp.asarray)


@settings(deadline=None, max_examples=100)
@given(_vectors)
def test_projection_keeps_to_bounds_and_gaps_and_is_idempotent(radii):
    projected = _project(radii)
    assert projected[0] >= 25.0 - 1e-9
    assert projected[-1] <= 1100.0 + 1e-9
    assert jnp.all(jnp.diff(projected) >= 20.0 - 1e-9)
    assert jnp.allclose(_project(projected), projected, rtol=1e-12)


@settings(deadline=None, max_examples=20)
@given(_vectors)
def test_projection_is_the_nearest_point(radii):
    found = _project(radii)
    wanted = minimize(
        lambda x: np.sum((x - np.asarray(radii)) ** 2) / 1e4,
        np.linspace(30.0, 1000.0, 5),
        jac=lambda x: 2 * (x - np.asarray(radii)) / 1e4,
        bounds=[(25.0, 1100.0)] * 5,
        constraints={"type": "ineq", "fun": lambda x: np.diff(x) - 20.0},
        method="SLSQP",
        options={"maxiter": 200, "ftol": 1e-12},
    )
    # The solver's own accuracy in the square of the distance.
    assert np.sum((found - radii) ** 2) <= np.sum((wanted.x - radii) ** 2) * (1 + 1e-6)


def test_projection_leaves_what_is_inside_alone():
    radii = jnp.asarray([30.0, 60.0, 100.0, 400.0, 1000.0])
    assert jnp.allclose(RADII.project(radii), radii, rtol=1e-15)


def test_project_acts_on_the_named_arrays_alone(precision):
    class Layers(eqx.Module):
        radii: jax.Array
        efficiency: jax.Array
        other: jax.Array

    layers = Layers(
        jnp.asarray([40.0, 30.0]), jnp.asarray([1.2, 0.9]), jnp.asarray([7.0])
    )
    constraints = [
        (lambda p: p.radii, Increasing(0.0, 100.0, 4.0)),
        (lambda p: p.efficiency, Box(0.5, 1.0)),
    ]
    found = project(layers, constraints)
    assert np.allclose(found.radii, [33.0, 37.0])
    assert np.allclose(found.efficiency, [1.0, 0.9])
    assert np.array_equal(found.other, layers.other)
    assert all(leaf.dtype == precision for leaf in jax.tree.leaves(found))


def test_bad_constraints_are_sentences():
    with pytest.raises(ValueError, match=r"The lower bound 2\.0 is not below"):
        Box(2.0, 1.0)
    with pytest.raises(ValueError, match=r"The lower bound 2\.0 is not below"):
        Increasing(2.0, 1.0, 0.1)
    with pytest.raises(ValueError, match="must not be negative"):
        Increasing(0.0, 1.0, -0.1)
    with pytest.raises(ValueError, match=r"3 elements 1\.0 apart do not fit"):
        Increasing(0.0, 1.0, 1.0).project(jnp.zeros(3))
    with pytest.raises(ValueError, match="wants a vector"):
        Increasing(0.0, 1.0, 0.1).project(jnp.zeros(()))
