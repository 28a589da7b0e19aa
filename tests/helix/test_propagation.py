import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from scipy import integrate

from diffhep.geometry import (
    CylinderSurface,
    LineSurface,
    PlaneSurface,
    UniformField,
    build_solenoid,
)
from diffhep.helix import (
    cartesian_from_perigee,
    closest_to_line,
    default_steps,
    helix_step,
    position_at,
    propagate,
    propagate_through,
    propagate_to,
    to_cylinder,
    to_plane,
)


_KAPPA = 0.299792458e-3
_ORIGIN = jnp.zeros(3)
_ALONG_Z = UniformField(jnp.array([0.0, 0.0, 2.0]))
_SOLENOID = build_solenoid(central=2.0, radius=1200.0, length=5000.0)
_step = jax.jit(helix_step)
_propagate = jax.jit(propagate)
_to = jax.jit(propagate_to)
_to_cylinder = jax.jit(to_cylinder)
_to_plane = jax.jit(to_plane)
_to_line = jax.jit(closest_to_line)
_position_at = jax.jit(position_at)
_quick = settings(max_examples=40, deadline=None)

_vectors = st.tuples(*[st.floats(-1, 1)] * 3).map(np.array)
_directions = st.tuples(st.floats(-1, 1), st.floats(-3.2, 3.2)).map(
    lambda t: np.array(
        [*(np.sqrt(1 - t[0] ** 2) * np.array([np.cos(t[1]), np.sin(t[1])])), t[0]]
    )
)
_charges = st.tuples(
    st.sampled_from([-1.0, 0.0, 1.0]), st.floats(np.log(0.1), np.log(1000))
).map(lambda t: t[0] / np.exp(t[1]))
_starts = st.tuples(_vectors, _directions, _charges)


@_quick
@given(_starts, _vectors, st.floats(-5000, 5000))
def test_uniform_field_is_the_helix(start, field, path):
    # From several turns of 0.1 GeV in up to 5 T to straight tracks of 1 TeV.
    position, direction, charge = start
    field, path, charge = jnp.asarray(3 * field), jnp.asarray(path), jnp.asarray(charge)
    position = 100 * position
    found = _propagate(position, direction, charge, UniformField(field), path)
    there, along = _step(position, direction, charge, field, path)
    assert found.reached
    assert found.path == path
    scale = 1e-9 * (1e-3 + abs(path))
    np.testing.assert_allclose(found.position, there, atol=scale)
    np.testing.assert_allclose(found.direction, along, atol=1e-9)


def test_single_precision_of_a_track():
    # What the docstring states: 2e-6 of the path, from 0.1 GeV to 1 TeV.
    field = np.array([0.3, -0.2, 1.9])
    direction = np.array([0.6, 0.0, 0.8])
    for momentum in (0.1, 0.3, 1.0, 10.0, 1000.0):
        for path in (30.0, 300.0, 5000.0):
            inputs = [np.array([10.0, 20, 30]), direction, 1 / momentum, field, path]
            inputs = [jnp.asarray(x, jnp.float32) for x in inputs]
            *start, field32, length = inputs
            found = _propagate(*start, UniformField(field32), length)
            assert found.reached
            assert found.position.dtype == found.direction.dtype == jnp.float32
            exact, along = _step(*(x.astype(jnp.float64) for x in inputs))
            loss = np.abs(found.position.astype(jnp.float64) - exact)
            assert np.max(loss) < 2e-6 * path + 1e-5
            loss = np.abs(found.direction.astype(jnp.float64) - along)
            assert np.max(loss) < 1e-5


def test_surfaces_in_either_precision(precision):
    # float32 by itself, and where float64 is switched on.
    parameters = np.array([3.0, -20.0, 0.7, 1.1, 0.8])
    results = []
    for dtype in {precision, "float32"}:
        inputs = [jnp.asarray(x, dtype) for x in (parameters, 300.0, 2.0)]
        arc = to_cylinder(*inputs).arc
        start = cartesian_from_perigee(inputs[0], jnp.zeros(3, dtype))
        along = UniformField(jnp.asarray([0.0, 0.0, 2.0], dtype))
        found = propagate_to(*start, along, CylinderSurface(inputs[1]))
        assert found.reached
        assert found.position.dtype == found.path.dtype == dtype
        expected = position_at(inputs[0], arc, inputs[2])
        np.testing.assert_allclose(found.position, expected, atol=1e-3)
        results.append(found.position.astype("float32"))
    np.testing.assert_allclose(results[0], results[-1], atol=1e-3)


def _by_scipy(position, direction, charge, path):
    field = jax.jit(_SOLENOID.__call__)

    def slope(_, state):
        turn = np.cross(state[3:], np.asarray(field(jnp.asarray(state[:3]))))
        return np.concatenate([state[3:], _KAPPA * charge * turn])

    start = np.concatenate([position, direction])
    solution = integrate.solve_ivp(
        slope, (0, path), start, method="DOP853", rtol=1e-12, atol=1e-12
    )
    return solution.y[:3, -1], solution.y[3:, -1]


@pytest.mark.parametrize("momentum", [0.4, 5.0])
def test_track_through_the_end_of_a_solenoid(momentum):
    # 3.5 m, from the middle out through the fringe; the other integrator is scipy's.
    start = (np.array([10.0, -20, 30]), np.array([0.28, 0.0, 0.96]), 1 / momentum)
    path = jnp.asarray(3500.0)
    start = (start[0], start[1], jnp.asarray(start[2]))
    found = _propagate(*start, _SOLENOID, path)
    position, direction = _by_scipy(start[0], start[1], float(start[2]), 3500.0)
    assert position[2] > 2500 or momentum < 1
    np.testing.assert_allclose(found.position, position, atol=1e-7)
    np.testing.assert_allclose(found.direction, direction, atol=1e-10)
    np.testing.assert_allclose(jnp.linalg.norm(found.direction), 1, rtol=1e-10)
    back = _propagate(found.position, found.direction, start[2], _SOLENOID, -path)
    np.testing.assert_allclose(back.position, start[0], atol=1e-7)
    np.testing.assert_allclose(back.direction, start[1], atol=1e-10)


def test_several_points_are_those_of_several_tracks():
    start = (_ORIGIN, jnp.array([0.6, 0.0, 0.8]), jnp.asarray(2.0))
    paths = jnp.array([0.0, 30.0, 70.0, 500.0, 2000.0])
    found = jax.jit(propagate_through)(*start, _ALONG_Z, paths)
    assert jnp.all(found.reached)
    np.testing.assert_array_equal(found.path, paths)
    for k, path in enumerate(paths):
        there, along = _step(*start, _ALONG_Z.value, path)
        np.testing.assert_allclose(found.position[k], there, atol=1e-8)
        np.testing.assert_allclose(found.direction[k], along, atol=1e-10)


def test_fixed_steps_converge_at_the_order_of_the_solver():
    start = (_ORIGIN, jnp.array([0.6, 0.0, 0.8]), jnp.asarray(2.0))
    path = jnp.asarray(1000.0)
    exact, _ = _step(*start, _ALONG_Z.value, path)
    errors = []
    for step in (100.0, 50.0):
        end = propagate(
            *start,
            _ALONG_Z,
            path,
            solver=diffrax.Tsit5(),
            stepsize_controller=diffrax.ConstantStepSize(),
            first_step=step,
        )
        assert end.reached
        errors.append(np.linalg.norm(end.position - exact))
    assert np.log2(errors[0] / errors[1]) == pytest.approx(5, abs=0.7)


_parameters = st.tuples(
    st.floats(-20, 20),
    st.floats(-100, 100),
    st.floats(-3.1, 3.1),
    st.floats(0.3, 2.8),
    st.sampled_from([-1.0, 1.0]),
    st.floats(np.log(0.5), np.log(1000)),
).map(lambda t: np.array([*t[:4], t[4] * np.sin(t[3]) / np.exp(t[5])]))


@_quick
@given(_parameters, st.floats(30, 1000), _vectors)
def test_surfaces_in_a_uniform_field_are_those_of_the_helix(parameters, size, tilt):
    field = _ALONG_Z.value[2]
    parameters = jnp.asarray(parameters)
    start = cartesian_from_perigee(parameters, _ORIGIN)
    radius = jnp.asarray(size)
    crossing = _to_cylinder(parameters, radius, field)
    expected = _position_at(parameters, crossing.arc, field)
    found = _to(*start, _ALONG_Z, CylinderSurface(radius))
    assert found.reached
    np.testing.assert_allclose(found.position, expected, atol=2e-8)
    # A plane through that point, across the track.
    normal = found.direction + 0.5 * jnp.asarray(tilt) / np.sqrt(3)
    at = _to_plane(parameters, expected, normal, field)
    met = _to(*start, _ALONG_Z, PlaneSurface(expected, normal))
    assert met.reached
    np.testing.assert_allclose(met.position, at.position, atol=2e-8)
    np.testing.assert_allclose(met.direction, at.direction, atol=1e-9)
    # And back to where it comes closest to a line near the start, across the track: one
    # along it might be closest elsewhere.
    point = start[0] + jnp.array([4.0, -7.0, 1.0])
    along = jnp.stack([-start[1][1], start[1][0], jnp.asarray(0.1)])
    near = _to_line(parameters, point, along, field)
    line = LineSurface(point, along)
    back = _back(found.position, found.direction, start[2], _ALONG_Z, line)
    assert back.reached
    assert back.path < 0
    np.testing.assert_allclose(back.position, near.position, atol=1e-6)


_back = jax.jit(lambda *inputs: propagate_to(*inputs, furthest=-1e4))


def test_derivative_to_a_path_of_zero():
    direction = jnp.array([0.6, 0.0, 0.8])

    def end(path):
        inputs = (_ORIGIN, direction, jnp.asarray(1.0), _ALONG_Z, path)
        return propagate(*inputs).position

    np.testing.assert_array_equal(jax.jacrev(end)(jnp.zeros(())), direction)


def test_what_is_not_reached_is_flagged_and_finite():
    forward = jnp.array([0.6, 0.0, 0.8])
    position = jnp.stack([_ORIGIN] * 4).at[2].set(jnp.nan)
    # A looper that never gets there, one that does, a dead slot, a neutral one.
    charge = jnp.array([10.0, 0.5, jnp.nan, 0.0])
    surface = CylinderSurface(jnp.asarray(500.0))

    def total(position, charge):
        found = propagate_to(
            position, forward, charge, _ALONG_Z, surface, furthest=3000.0
        )
        return jnp.sum(found.position) + found.path, found

    slope = jax.jit(jax.vmap(jax.grad(total, argnums=(0, 1), has_aux=True)))
    slopes, found = slope(position, charge)
    np.testing.assert_array_equal(found.reached, [False, True, False, True])
    alive = jnp.array([True, True, False, True])
    assert jnp.all(jnp.isfinite(found.position[alive]))
    assert jnp.all(jnp.isfinite(slopes[0]))
    assert jnp.all(jnp.isfinite(slopes[1]))
    assert jnp.all(slopes[0][2] == 0)
    # One lane of the batch is the same by itself.
    _, alone = jax.jit(total)(position[1], charge[1])
    np.testing.assert_allclose(alone.position, found.position[1], rtol=1e-12)
    # Too few steps.
    short = propagate(
        _ORIGIN, forward, charge[1], _ALONG_Z, jnp.asarray(9e3), max_steps=3
    )
    assert not short.reached
    assert jnp.all(jnp.isfinite(short.position))


def test_default_steps_follow_the_precision():
    assert default_steps(jnp.float64).rtol < default_steps(jnp.float32).rtol
    assert default_steps(jnp.float64, longest=20.0).dtmax == 20.0
