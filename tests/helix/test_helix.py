import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from diffhep.helix import (
    curvature,
    momentum,
    momentum_at,
    move_perigee,
    perigee_at,
    perigee_from_momentum,
    perigee_from_point,
    perigee_jacobian,
    position_at,
    scattering_angle,
    to_cylinder,
    to_plane,
    transverse_crossing,
    transverse_slopes,
)
from diffhep.numerics import wrap_angle


_FIELD = jnp.asarray(2.0)
_from_point = jax.jit(perigee_from_point)
_from_momentum = jax.jit(perigee_from_momentum)
_perigee_at = jax.jit(perigee_at)
_position_at = jax.jit(position_at)
_momentum_at = jax.jit(momentum_at)
_to_cylinder = jax.jit(to_cylinder)
_to_plane = jax.jit(to_plane)
_closed_jacobian = jax.jit(perigee_jacobian)
_jacobian = jax.jit(jax.jacfwd(perigee_at))
_move = jax.jit(move_perigee)

_parameters = st.tuples(
    st.floats(-20, 20),
    st.floats(-100, 100),
    st.floats(-3.1, 3.1),
    st.floats(0.3, 2.8),
    st.sampled_from([-1.0, 1.0]),
    st.floats(0.5, 200.0),
).map(
    # The transverse momentum is drawn, so that every helix reaches 1 m.
    lambda t: np.array([*t[:4], t[4] * np.sin(t[3]) / t[5]])
)
_points = st.tuples(*[st.floats(-30, 30)] * 3).map(np.array)
_quick = settings(max_examples=60, deadline=None)


def _close(a, b, tolerance=1e-9):
    difference = np.array(a) - np.array(b)
    difference[..., 2] = wrap_angle(jnp.asarray(difference[..., 2]))
    assert np.max(np.abs(difference)) < tolerance


def test_reference_point():
    # shared physics notes; ACTS gives the same to 1e-7.
    found = _from_point(
        jnp.array([1.3, -0.7, 5.0]),
        jnp.asarray(0.4),
        jnp.asarray(1.1),
        jnp.asarray(1 / 3),
        _FIELD,
    )
    expected = [-1.1510824127, 4.5294347, 0.40020734, 1.1, 1 / 3]
    np.testing.assert_allclose(found, expected, rtol=2e-8)


def test_curvature_is_the_radius_of_the_textbook():
    # A transverse momentum of 0.3 GeV in 1 T bends with a radius of about 1 m.
    parameters = jnp.array([0.0, 0.0, 0.3, jnp.pi / 2, 1 / 0.299792458])
    assert curvature(parameters, jnp.asarray(1.0)) == pytest.approx(1e-3)


@_quick
@given(_parameters, st.floats(-1000, 1000), st.sampled_from([-1.0, 1.0]))
def test_perigee_round_trip(parameters, arc, sign):
    # Less than half a turn: pT >= 0.5 GeV bends with a radius of at least 834 mm.
    field = sign * _FIELD
    arc = jnp.asarray(arc)
    point = _position_at(parameters, arc, field)
    direction = _momentum_at(parameters, arc, field)
    charge = jnp.sign(parameters[4])
    _close(_from_momentum(point, direction, charge, field), parameters)


@_quick
@given(_parameters, _points)
def test_moved_reference_is_the_closest_approach(parameters, point):
    moved = _perigee_at(parameters, point, _FIELD)
    assert moved[3] == parameters[3]
    assert moved[4] == parameters[4]
    # Back again, and the direction at the new perigee is normal to the way there.
    _close(_perigee_at(moved, -point, _FIELD), parameters)
    perigee = _position_at(moved, jnp.asarray(0.0), _FIELD)
    assert abs(momentum(moved)[:2] @ perigee[:2]) < 1e-9


@_quick
@given(_parameters, _points, st.sampled_from([0.0, 1e-6, 1.0]))
def test_jacobian_of_a_moved_reference(parameters, point, straightness):
    # From straight tracks over almost straight ones to those of 0.5 GeV.
    parameters = jnp.asarray(parameters).at[4].multiply(straightness)
    found = _closed_jacobian(parameters, jnp.asarray(point), _FIELD)
    expected = _jacobian(parameters, jnp.asarray(point), _FIELD)
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-9)


@_quick
@given(_parameters, _points)
def test_covariance_comes_back(parameters, point):
    widths = np.array([0.02, 0.05, 1e-3, 1e-3, 1e-3])
    covariance = jnp.asarray(np.outer(widths, widths) * (0.7 * np.eye(5) + 0.3))
    point = jnp.asarray(point)
    there, moved = _move(parameters, covariance, point, _FIELD)
    assert np.all(np.linalg.eigvalsh(moved / np.outer(widths, widths)) > 0)
    _, back = _move(there, moved, -point, _FIELD)
    scale = np.outer(widths, widths)
    np.testing.assert_allclose(back / scale, covariance / scale, atol=1e-8)


@_quick
@given(_parameters, st.floats(25, 1000))
def test_crossing_lies_on_helix_and_cylinder(parameters, radius):
    crossing = _to_cylinder(parameters, jnp.asarray(radius), _FIELD)
    assert crossing.reached
    x, y, z = _position_at(parameters, crossing.arc, _FIELD)
    np.testing.assert_allclose(jnp.hypot(x, y), radius, rtol=1e-11)
    np.testing.assert_allclose(z, crossing.z, atol=1e-9)
    turned = wrap_angle(jnp.arctan2(y, x) - crossing.azimuth)
    np.testing.assert_allclose(turned, 0, atol=1e-11)
    px, py, _ = _momentum_at(parameters, crossing.arc, _FIELD)
    turned = wrap_angle(jnp.arctan2(py, px) - crossing.direction)
    np.testing.assert_allclose(turned, 0, atol=1e-11)
    # Outwards.
    assert px * x + py * y > 0


@_quick
@given(
    _parameters,
    st.floats(-300, 600),
    st.tuples(*[st.floats(-1, 1)] * 3).map(np.array),
)
def test_crossing_of_a_plane_lies_on_both(parameters, arc, normal):
    # A plane through a point of the helix, not along it.
    arc = jnp.asarray(arc)
    point = _position_at(parameters, arc, _FIELD)
    direction = _momentum_at(parameters, arc, _FIELD)
    direction = direction / jnp.linalg.norm(direction)
    normal = jnp.asarray(normal) + 2 * jnp.sign(normal @ direction + 1e-9) * direction
    crossing = _to_plane(parameters, point, normal, _FIELD)
    # A helix may cross a plane twice; where it does, the nearer one is as good.
    assert crossing.reached
    assert abs(crossing.arc) < abs(arc) * (1 + 1e-9) + 1e-6
    there = _position_at(parameters, crossing.arc, _FIELD)
    np.testing.assert_allclose(crossing.position, there, atol=1e-9)
    distance = (crossing.position - point) @ normal / jnp.linalg.norm(normal)
    assert abs(distance) < 1e-9
    momentum = _momentum_at(parameters, crossing.arc, _FIELD)
    np.testing.assert_allclose(
        crossing.direction, momentum / jnp.linalg.norm(momentum), atol=1e-12
    )


def test_crossing_of_a_disc_is_the_closed_form():
    # At a given z the arc is the distance along z times the tangent of theta.
    parameters = jnp.array([1.5, -3, 0.4, 0.3, 0.7])
    normal, point = jnp.array([0.0, 0, -2]), jnp.array([7.0, 9, 800])
    crossing = _to_plane(parameters, point, normal, _FIELD)
    assert crossing.reached
    np.testing.assert_allclose(crossing.arc, 803 * np.tan(0.3), rtol=1e-14)
    np.testing.assert_allclose(crossing.position[2], 800, rtol=1e-14)


def test_derivatives_of_the_plane_crossing_to_third_order():
    def position(shift):
        inputs = jnp.array([1.5, -3, 0.4, 1.1, 0.2, 400, 30, 20, 1, 0.3, -0.2, 2.0])
        inputs = inputs + shift * jnp.array([1, 2, 0.1, 0.1, 0.1, 9, -9, 5, 0, 1, 1, 1])
        crossing = to_plane(inputs[:5], inputs[5:8], inputs[8:11], inputs[11])
        return jnp.concatenate([crossing.position, crossing.direction])

    function = position
    step = jnp.asarray(1e-4)
    for _ in range(3):
        slope = jax.jit(jax.jacfwd(function))
        zero = jnp.zeros(())
        numeric = (function(step) - function(-step)) / (2 * step)
        scale = jnp.max(jnp.abs(slope(zero)))
        np.testing.assert_allclose(slope(zero) / scale, numeric / scale, atol=1e-6)
        function = slope


def test_missed_planes_are_flagged_and_finite():
    # Behind the curl of a looper, and along the track.
    loop = jnp.array([0.0, 0.0, 0.0, 1.2, 3.0])
    ahead, along = jnp.array([1.0, 0, 0]), jnp.array([0.0, 1, 0])
    far, aside = jnp.array([5000.0, 0, 0]), jnp.array([0.0, 10, 0])
    straight = loop.at[4].set(0.0)
    for parameters, point, normal in ((loop, far, ahead), (straight, aside, along)):

        def total(parameters, point=point, normal=normal):
            crossing = to_plane(parameters, point, normal, _FIELD)
            return jnp.sum(crossing.position) + crossing.arc, crossing.reached

        (value, reached), slope = jax.value_and_grad(total, has_aux=True)(parameters)
        assert not reached
        assert jnp.isfinite(value)
        assert jnp.all(jnp.isfinite(slope))


@_quick
@given(_parameters, st.floats(25, 1000), st.floats(-3, 3), st.floats(-50, 50))
def test_symmetries(parameters, radius, angle, shift):
    radius = jnp.asarray(radius)
    base = _to_cylinder(parameters, radius, _FIELD)
    # Rotation about z and translation along z.
    moved = parameters + np.array([0, shift, angle, 0, 0])
    other = _to_cylinder(moved, radius, _FIELD)
    np.testing.assert_allclose(other.azimuth, base.azimuth + angle, atol=1e-12)
    np.testing.assert_allclose(other.z, base.z + shift, atol=1e-9)
    # Charge conjugation: the opposite charge in the opposite field.
    conjugate = parameters * np.array([1, 1, 1, 1, -1])
    other = _to_cylinder(conjugate, radius, -_FIELD)
    np.testing.assert_allclose(other.azimuth, base.azimuth, atol=1e-12)
    np.testing.assert_allclose(other.z, base.z, atol=1e-9)
    # Reflection at the x-z plane turns d0, phi and the charge round.
    mirror = parameters * np.array([-1, 1, -1, 1, -1])
    other = _to_cylinder(mirror, radius, _FIELD)
    np.testing.assert_allclose(other.azimuth, -base.azimuth, atol=1e-12)
    np.testing.assert_allclose(other.arc, base.arc, rtol=1e-12)


@pytest.mark.parametrize("charge_over_momentum", [0.0, 1e-12, 1e-4, 0.7])
def test_derivatives_are_smooth_through_zero_curvature(charge_over_momentum):
    def outputs(inputs):
        parameters, point, radius, field = (
            inputs[:5],
            inputs[5:8],
            inputs[8],
            inputs[9],
        )
        crossing = to_cylinder(parameters, radius, field)
        return jnp.concatenate(
            [
                perigee_at(parameters, point, field),
                jnp.stack([crossing.azimuth, crossing.z, crossing.direction]),
                position_at(parameters, radius, field),
            ]
        )

    inputs = jnp.array([1.5, -3, 0.4, 1.1, charge_over_momentum, 7, -9, 4, 300, 2.0])
    exact = jax.jit(jax.jacfwd(outputs))(inputs)
    step = 1e-5 * jnp.array([1, 1, 1, 1, 0.1, 1, 1, 1, 10, 1])
    shifts = jnp.diag(step)
    evaluate = jax.jit(jax.vmap(outputs))
    up, down = evaluate(inputs[None, :] + shifts), evaluate(inputs[None, :] - shifts)
    numeric = (up - down).T / (2 * step[None, :])
    scale = jnp.max(jnp.abs(exact), axis=1, keepdims=True)
    np.testing.assert_allclose(exact / scale, numeric / scale, atol=3e-9)
    reverse = jax.jit(jax.jacrev(outputs))(inputs)
    np.testing.assert_allclose(reverse, exact, rtol=1e-9, atol=1e-9)


def test_slopes_of_the_crossing_are_its_derivatives():
    # Both sides of the switch of the series, at 0.03 for half the chord's turn.
    turns = jnp.concatenate([jnp.array([0.0, 1e-9]), jnp.geomspace(1e-4, 1.8, 20)])
    omega = jnp.concatenate([-turns, turns]) / 400
    d0, radius = jnp.full(omega.shape, 7.0), jnp.full(omega.shape, 400.0)
    one, zero = jnp.ones_like(d0), jnp.zeros_like(d0)
    to_d0 = jax.jvp(transverse_crossing, (d0, omega, radius), (one, zero, zero))[1]
    to_omega = jax.jvp(transverse_crossing, (d0, omega, radius), (zero, one, zero))[1]
    expected = jnp.stack([to_d0[0], to_omega[0], to_d0[1], to_omega[1]])
    slopes = jnp.stack(transverse_slopes(d0, omega, radius))
    np.testing.assert_allclose(slopes[:3], expected[:3], rtol=1e-12)
    # The derivative of the series' last term is missing in the automatic one.
    np.testing.assert_allclose(slopes[3], expected[3], rtol=1e-10)


@pytest.mark.parametrize(
    ("d0", "charge_over_momentum"), [(50.0, 0.1), (0.0, 100.0), (1e4, 1e3)]
)
def test_out_of_reach_is_flagged_and_finite(d0, charge_over_momentum):
    # Too far from the axis, curling up before the layer, and both.
    parameters = jnp.array([d0, 1.0, 0.3, 1.2, charge_over_momentum])

    def total(parameters):
        crossing = to_cylinder(parameters, jnp.asarray(40.0), _FIELD)
        return crossing.azimuth + crossing.z + crossing.direction, crossing.reached

    (value, reached), slope = jax.value_and_grad(total, has_aux=True)(parameters)
    assert not reached
    assert jnp.isfinite(value)
    assert jnp.all(jnp.isfinite(slope))


def test_single_precision_keeps_the_impact_parameter():
    # The formula of the distance to the centre is off by tens of micrometres here.
    inputs = [jnp.array([30.0, 12.0, 5.0]), 0.4, 1.1, 0.02, 2.0]
    double = perigee_from_point(*(jnp.asarray(x, jnp.float64) for x in inputs))
    single = perigee_from_point(*(jnp.asarray(x, jnp.float32) for x in inputs))
    assert single.dtype == jnp.float32
    assert abs(float(single[0]) - float(double[0])) < 1e-5


def test_highland():
    # Geant4: 300 um of silicon (X0 = 93.7 mm) scatter a 1 GeV muon by 0.599 mrad.
    beta = 1 / np.sqrt(1 + 0.1056584**2)
    angle = scattering_angle(
        jnp.asarray(0.3 / 93.7), jnp.asarray(1.0), jnp.asarray(beta)
    )
    assert angle == pytest.approx(0.599e-3, rel=0.02)
    for thickness in (0.0, -1.0):
        slope = jax.grad(scattering_angle)(
            jnp.asarray(thickness), jnp.asarray(1.0), jnp.asarray(1.0)
        )
        assert slope == 0
