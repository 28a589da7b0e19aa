import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from scipy import optimize
from scipy.spatial.transform import Rotation

from diffhep.helix import (
    cartesian_from_perigee,
    closest_to_line,
    closest_to_point,
    helix_step,
    helix_step_jacobian,
    momentum_at,
    perigee_at,
    perigee_from_cartesian,
    position_at,
)
from diffhep.numerics import wrap_angle


_FIELD = jnp.asarray(2.0)
_ORIGIN = jnp.zeros(3)
_step = jax.jit(helix_step)
_closed = jax.jit(helix_step_jacobian)
_perigee_at = jax.jit(perigee_at)
_position_at = jax.jit(position_at)
_positions = jax.jit(jax.vmap(position_at, in_axes=(None, 0, None)))
_momentum_at = jax.jit(momentum_at)
_from_cartesian = jax.jit(perigee_from_cartesian)
_to_cartesian = jax.jit(cartesian_from_perigee)
_to_point = jax.jit(closest_to_point, static_argnames="most_turns")
_to_line = jax.jit(closest_to_line)
_quick = settings(max_examples=60, deadline=None)

_parameters = st.tuples(
    st.floats(-20, 20),
    st.floats(-100, 100),
    st.floats(-3.1, 3.1),
    st.floats(0.3, 2.8),
    st.sampled_from([-1.0, 0.0, 1.0]),
    # The transverse momentum is drawn: from loopers to straight tracks.
    st.floats(np.log(0.1), np.log(1000)),
).map(lambda t: np.array([*t[:4], t[4] * np.sin(t[3]) / np.exp(t[5])]))
_vectors = st.tuples(*[st.floats(-1, 1)] * 3).map(np.array)
_directions = st.tuples(st.floats(-1, 1), st.floats(-3.2, 3.2)).map(
    lambda t: np.array(
        [*(np.sqrt(1 - t[0] ** 2) * np.array([np.cos(t[1]), np.sin(t[1])])), t[0]]
    )
)
_paths = st.floats(-5000, 5000)
_charges = st.tuples(
    st.sampled_from([-1.0, 0.0, 1.0]), st.floats(np.log(0.1), np.log(1000))
).map(lambda t: t[0] / np.exp(t[1]))


def _unit(vector):
    return vector / jnp.linalg.norm(vector)


@_quick
@given(_parameters, st.floats(-8000, 8000))
def test_along_z_it_is_the_helix_of_the_perigee(parameters, arc):
    # Up to 7 turns of 0.1 GeV in 2 T.
    position, direction, charge = _to_cartesian(parameters, _ORIGIN)
    path = jnp.asarray(arc / np.sin(parameters[3]))
    field = jnp.stack([0 * _FIELD, 0 * _FIELD, _FIELD])
    there, along = _step(position, direction, charge, field, path)
    expected = _position_at(parameters, jnp.asarray(arc), _FIELD)
    np.testing.assert_allclose(there, expected, atol=1e-12 * (100 + abs(path)))
    if charge != 0:
        momentum = _momentum_at(parameters, jnp.asarray(arc), _FIELD)
        np.testing.assert_allclose(along, _unit(momentum), atol=1e-12)


@_quick
@given(_vectors, _directions, _charges, st.tuples(_vectors, _vectors), _paths)
def test_rotations_and_composition(position, direction, charge, vectors, path):
    field, rotation = vectors
    inputs = [100 * position, direction, jnp.asarray(charge), 3 * field]
    path = jnp.asarray(path)
    there, along = _step(*inputs, path)
    np.testing.assert_allclose(jnp.linalg.norm(along), 1, rtol=1e-13)
    # In two parts, and back.
    middle = _step(*inputs, 0.3 * path)
    again, towards = _step(*middle, *inputs[2:], 0.7 * path)
    np.testing.assert_allclose(again, there, atol=1e-9)
    np.testing.assert_allclose(towards, along, atol=1e-12)
    back, _ = _step(there, along, *inputs[2:], -path)
    np.testing.assert_allclose(back, inputs[0], atol=1e-9)
    # Everything turned round.
    turn = Rotation.from_rotvec(3 * rotation).as_matrix()
    turned = [turn @ x if np.ndim(x) else x for x in inputs]
    found, heading = _step(*turned, path)
    np.testing.assert_allclose(found, turn @ there, atol=1e-9)
    np.testing.assert_allclose(heading, turn @ along, atol=1e-12)


@pytest.mark.parametrize("field", [(0.0, 0.0, 0.0), (0.0, 0.0, 2.0), (1.2, -0.4, 0.9)])
@pytest.mark.parametrize("charge", [0.0, 1e-12, -1e-3, 0.3, 10.0])
def test_jacobian_of_a_step(field, charge):
    # Along the field, without a field, straight, and 4 turns of 0.1 GeV.
    start = jnp.array([10.0, -20, 30, 0, 0, 1, charge])
    if field[0] != 0:
        start = start.at[3:6].set(_unit(jnp.array([0.3, 0.5, -0.2])))
    field, path = jnp.asarray(field), jnp.asarray(4000.0)

    def move(start):
        position, direction = helix_step(start[:3], start[3:6], start[6], field, path)
        return jnp.concatenate([position, direction, start[6:]])

    expected = jax.jit(jax.jacfwd(move))(start)
    found = _closed(start[:3], start[3:6], start[6], field, path)
    scale = np.max(np.abs(expected), axis=1, keepdims=True)
    np.testing.assert_allclose(found / scale, expected / scale, atol=1e-12)
    steps = 1e-5 * jnp.diag(jnp.array([1, 1, 1, 1, 1, 1, 0.1]))
    both = jax.jit(jax.vmap(move))
    numeric = (both(start[None] + steps) - both(start[None] - steps)).T
    numeric = numeric / (2 * jnp.diag(steps)[None, :])
    np.testing.assert_allclose(found / scale, numeric / scale, atol=1e-6)


def test_series_and_closed_form_agree_at_the_switch():
    # Half a radian to either side of one radian, against a composition of small steps.
    direction, field = _unit(jnp.array([0.3, 0.5, -0.2])), jnp.array([1.2, -0.4, 0.9])
    charge = jnp.asarray(1.0)
    for path in (1000.0, 2133.0, 2136.0, 2140.0, 5000.0):
        start = (_ORIGIN, direction)
        for _ in range(50):
            start = _step(*start, charge, field, jnp.asarray(path / 50))
        there = _step(_ORIGIN, direction, charge, field, jnp.asarray(path))
        np.testing.assert_allclose(there[0], start[0], rtol=1e-12)
        np.testing.assert_allclose(there[1], start[1], rtol=1e-12)


def test_single_precision_of_a_step():
    # What the docstring states: one part in 1e6 of the path, from 0.1 GeV to 1 TeV.
    direction, field = _unit(jnp.array([0.3, 0.5, -0.2])), jnp.array([0.2, -0.4, 1.9])
    for momentum in (0.1, 0.3, 1.0, 30.0, 1000.0):
        for path in (10.0, 300.0, 5000.0):
            inputs = (_ORIGIN, direction, 1 / momentum, field, path)
            inputs = [jnp.asarray(x, jnp.float32) for x in inputs]
            found, along = _step(*inputs)
            assert found.dtype == along.dtype == jnp.float32
            exact, _ = _step(*(x.astype(jnp.float64) for x in inputs))
            assert np.max(np.abs(found.astype(jnp.float64) - exact)) < 1e-6 * path


@_quick
@given(_parameters, _vectors, st.floats(-200, 200))
def test_perigee_and_cartesian(parameters, reference, arc):
    # A low-momentum helix has turned by less than half after 200 mm... of 0.2 GeV.
    parameters = parameters * np.array([1, 1, 1, 1, 0.5])
    reference = jnp.asarray(50 * reference)
    position, direction, charge = _to_cartesian(parameters, reference)
    field = jnp.stack([0 * _FIELD, 0 * _FIELD, _FIELD])
    moved = _step(position, direction, charge, field, jnp.asarray(arc))
    found = _from_cartesian(*moved, charge, reference, _FIELD)
    difference = np.array(found - parameters)
    difference[2] = wrap_angle(jnp.asarray(difference[2]))
    np.testing.assert_allclose(difference, 0, atol=1e-9)


@_quick
@given(_parameters, _vectors)
def test_closest_approach_to_a_point(parameters, point):
    point = jnp.asarray(150 * point)
    found = _to_point(parameters, point, _FIELD)
    about = _perigee_at(parameters, point, _FIELD)
    # A scan over half a turn to either side of the perigee about the point.
    omega = 0.6e-3 * parameters[4] / np.sin(parameters[3])
    reach = min(np.pi / max(abs(omega), 1e-9), 3000.0)
    arcs = jnp.linspace(-0.999, 0.999, 4001) * reach
    distance = jnp.linalg.norm(_positions(about, arcs, _FIELD), axis=1)
    least = int(jnp.argmin(distance))
    if not found.reached:
        assert least in {0, 4000}
        return
    assert found.distance <= distance[least] + 1e-9
    np.testing.assert_allclose(found.distance, distance[least], rtol=1e-2, atol=1.0)
    np.testing.assert_allclose(found.offset @ found.direction, 0, atol=1e-9)
    there = _position_at(parameters, found.arc, _FIELD)
    np.testing.assert_allclose(found.position, there, atol=1e-10)


@_quick
@given(_parameters, _vectors, _directions)
def test_closest_approach_to_a_line(parameters, point, along):
    point, along = jnp.asarray(40 * point), jnp.asarray(along)
    found = _to_line(parameters, point, along, _FIELD)
    _, direction, _ = _to_cartesian(parameters, _ORIGIN)
    parallel = abs(direction @ along) > 0.95
    curled = abs(parameters[4]) / np.sin(parameters[3]) > 2
    if not found.reached:
        assert parallel or curled
        return
    # The offset is normal to both, and nothing nearby is closer.
    np.testing.assert_allclose(found.offset @ found.direction, 0, atol=1e-8)
    np.testing.assert_allclose(found.offset @ along, 0, atol=1e-10)
    for shift in (-1.0, 1.0):
        offset = _position_at(parameters, found.arc + shift, _FIELD) - point
        nearby = jnp.linalg.norm(offset - along * (offset @ along))
        assert nearby >= found.distance - 1e-9


@_quick
@given(_parameters, _vectors)
def test_closest_approach_to_a_line_along_z_is_the_perigee(parameters, point):
    point = jnp.asarray(20 * point)
    found = _to_line(parameters, point, jnp.array([0.0, 0.0, -3.0]), _FIELD)
    about = _perigee_at(parameters, point, _FIELD)
    assert found.reached
    np.testing.assert_allclose(found.distance, abs(about[0]), atol=1e-9)
    position, direction, _ = _to_cartesian(about, point)
    np.testing.assert_allclose(found.position, position, atol=1e-7)
    np.testing.assert_allclose(found.direction, direction, atol=1e-9)


def test_straight_tracks_and_lines_are_those_of_the_textbook():
    parameters = jnp.array([3.0, -20.0, 0.7, 1.1, 0.0])
    point, along = jnp.array([40.0, -60.0, 15.0]), _unit(jnp.array([1.0, 2.0, -1.0]))
    position, direction, _ = _to_cartesian(parameters, _ORIGIN)
    normal = np.cross(direction, along)
    expected = abs((position - point) @ normal) / np.linalg.norm(normal)
    found = _to_line(parameters, point, along, _FIELD)
    np.testing.assert_allclose(found.distance, expected, rtol=1e-12)
    expected = np.linalg.norm(np.cross(position - point, direction))
    found = _to_point(parameters, point, _FIELD)
    np.testing.assert_allclose(found.distance, expected, rtol=1e-12)


def test_closest_turn_of_a_looper():
    # 0.1 GeV in 2 T: 167 mm of radius; the point is three turns further.
    parameters = jnp.array([1.0, 0.0, 0.3, 1.45, 10 * np.sin(1.45)])
    arc = 3.1 * 2 * np.pi / (10 * 2 * 0.299792458e-3)
    point = _position_at(parameters, jnp.asarray(arc), _FIELD) + jnp.array([2.0, 1, 3])
    near = _to_point(parameters, point, _FIELD)
    far = _to_point(parameters, point, _FIELD, most_turns=5)
    assert near.distance > 100
    assert far.reached

    def distance(arc):
        return float(jnp.linalg.norm(_position_at(parameters, arc, _FIELD) - point))

    least = optimize.minimize_scalar(
        lambda x: distance(jnp.asarray(x)),
        bounds=(arc - 50, arc + 50),
        method="bounded",
    )
    np.testing.assert_allclose(far.distance, least.fun, rtol=1e-9)
    np.testing.assert_allclose(far.arc, least.x, atol=1e-2)


def test_derivatives_of_the_approaches_to_second_order():
    inputs = jnp.array([1.5, -3, 0.4, 1.1, 0, 60, 30, 20, 1, 0.3, -0.2, 2.0])
    way = jnp.array([1, 2, 0.1, 0.1, 0.1, 9, -9, 5, 0, 1, 1, 1])

    def position(shift, charge):
        moved = inputs.at[4].set(charge) + shift * way
        parameters, point, along, field = jnp.split(moved, [5, 8, 11])
        approaches = (
            closest_to_point(parameters, point, field[0], most_turns=1),
            closest_to_line(parameters, point, along, field[0]),
        )
        parts = [[a.position, a.direction, a.offset] for a in approaches]
        return jnp.concatenate([*parts[0], *parts[1]])

    slope = jax.jit(jax.jacfwd(position))
    bend = jax.jit(jax.jacfwd(slope))
    value = jax.jit(position)
    step = jnp.asarray(1e-4)
    # Straight, and both ways round, down to 0.2 GeV.
    for charge in jnp.array([0.0, 0.4, -5.0]):
        for function, exact in ((value, slope), (slope, bend)):
            ends = [function(s * step, charge) for s in (1, -1)]
            numeric = (ends[0] - ends[1]) / (2 * step)
            found = exact(0 * step, charge)
            scale = jnp.max(jnp.abs(found))
            np.testing.assert_allclose(found / scale, numeric / scale, atol=1e-6)


def test_missed_approaches_are_flagged_and_finite():
    # A point many turns on, and a line along the track.
    looper = jnp.array([0.0, 0.0, 0.0, 0.2, 50.0])
    straight = jnp.array([0.0, 0.0, 0.0, jnp.pi / 2, 0.0])

    def to_point(parameters):
        return closest_to_point(parameters, jnp.array([0.0, 0, 9000]), _FIELD)

    def to_line(parameters):
        along = jnp.array([1.0, 0, 0])
        return closest_to_line(parameters, jnp.array([0.0, 9, 0]), along, _FIELD)

    for approach, parameters in ((to_point, looper), (to_line, straight)):

        def total(parameters, approach=approach):
            found = approach(parameters)
            return jnp.sum(found.position) + found.arc, found.reached

        (value, reached), slope = jax.value_and_grad(total, has_aux=True)(parameters)
        assert not reached
        assert jnp.isfinite(value)
        assert jnp.all(jnp.isfinite(slope))
