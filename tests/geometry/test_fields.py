import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from scipy import integrate

from diffhep.geometry import (
    GriddedField,
    NearestOutside,
    SolenoidField,
    Tricubic,
    Trilinear,
    UniformField,
    ZeroOutside,
    build_solenoid,
    gridded_field,
    sample_field,
)


_RADIUS, _LENGTH = 1200.0, 5000.0
_SOLENOID = build_solenoid(central=2.0, radius=_RADIUS, length=_LENGTH)
_field = jax.jit(lambda field, position: field(position))
_slopes = jax.jit(jax.jacfwd(lambda position, field: field(position)))
_quick = settings(max_examples=40, deadline=None)

# Inside, outside, beyond the ends, and within a millimetre of the coil.
_POINTS = [
    (0.0, 0.0, 0.0),
    (1e-9, 0.0, 100.0),
    (100.0, 50.0, 30.0),
    (600.0, -800.0, 2000.0),
    (1100.0, 0.0, 2400.0),
    (1300.0, 0.0, 2400.0),
    (-20.0, 1199.0, 2499.5),
    (1200.0, 0.0, 3000.0),
    (3000.0, 100.0, 5000.0),
    (10.0, 10.0, -2500.0),
]


def _biot_savart(point, central, radius, length):
    # Rings of current, added up along z by hand and around the ring by quadrature.
    half = length / 2
    rho, azimuth = np.hypot(point[0], point[1]), np.arctan2(point[1], point[0])
    above, below = point[2] + half, point[2] - half

    def along(phi):
        square = radius**2 + rho**2 - 2 * radius * rho * np.cos(phi)
        ends = [z / (square * np.hypot(np.sqrt(square), z)) for z in (above, below)]
        return radius * (radius - rho * np.cos(phi)) * (ends[0] - ends[1])

    def outwards(phi):
        square = radius**2 + rho**2 - 2 * radius * rho * np.cos(phi)
        ends = [1 / np.hypot(np.sqrt(square), z) for z in (above, below)]
        return radius * np.cos(phi) * (ends[1] - ends[0])

    def around(function):
        accuracy = {"limit": 400, "epsabs": 1e-13, "epsrel": 1e-11}
        return integrate.quad(function, 0, np.pi, points=[1e-3, 0.1], **accuracy)[0]

    # The current that makes the central field, over 2 pi.
    scale = central * np.hypot(radius, half) / half / (2 * np.pi)
    radial = scale * around(outwards)
    return radial * np.cos(azimuth), radial * np.sin(azimuth), scale * around(along)


@pytest.mark.parametrize("point", _POINTS)
def test_solenoid_is_the_sum_of_its_rings(point):
    expected = _biot_savart(point, 2.0, _RADIUS, _LENGTH)
    found = _field(_SOLENOID, jnp.asarray(point))
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-11)


@_quick
@given(st.floats(-6000, 6000), st.floats(300, 3000), st.floats(200, 9000))
def test_solenoid_on_its_axis(z, radius, length):
    half = length / 2
    field = build_solenoid(central=3.0, radius=radius, length=length)
    ends = [(z + s * half) / np.hypot(z + s * half, radius) for s in (1, -1)]
    expected = 1.5 * (ends[0] - ends[1]) * np.hypot(half, radius) / half
    found = _field(field, jnp.array([0.0, 0.0, z]))
    np.testing.assert_allclose(found, [0, 0, expected], rtol=1e-11, atol=1e-13)


@_quick
@given(st.floats(0, 3000), st.floats(-3, 3), st.floats(-5000, 5000))
def test_solenoid_obeys_maxwell(rho, azimuth, z):
    # Off the sheet, whose edges are at 1200 and 2500 mm.
    if abs(rho - _RADIUS) < 5 and abs(z) < _LENGTH / 2 + 5:
        rho += 20
    point = jnp.array([rho * np.cos(azimuth), rho * np.sin(azimuth), z])
    slopes = _slopes(point, _SOLENOID)
    scale = np.max(np.abs(slopes)) + 1e-6
    assert abs(np.trace(slopes)) < 1e-11 * scale
    np.testing.assert_allclose(slopes / scale, slopes.T / scale, atol=1e-11)


@pytest.mark.parametrize("point", [(0.0, 0.0, 1000.0), (0.0, 0.0, 2500.0)])
def test_solenoid_is_smooth_on_its_axis(point):
    # Maxwell's equations give the second derivative across from that along.
    curvature = jax.jit(jax.jacfwd(jax.jacfwd(lambda x: _SOLENOID(x)[2])))
    found = curvature(jnp.asarray(point))
    assert abs(np.trace(found)) < 1e-12 * np.max(np.abs(found)) + 1e-20
    np.testing.assert_allclose(found[0, 0], found[1, 1], rtol=1e-12, atol=1e-20)
    assert abs(found[2, 2]) > 1e-9 or point[2] == 2500


@pytest.mark.parametrize("point", [(0.0, 0.0, 900.0), (700.0, 300.0, 2600.0)])
def test_derivatives_to_the_parameters_of_the_solenoid(point):
    point = jnp.asarray(point)

    def total(numbers):
        return jnp.sum(SolenoidField(*numbers)(point) * jnp.array([1.0, 2.0, 3.0]))

    numbers = jnp.array([2.0, _RADIUS, _LENGTH])
    found = jax.jit(jax.grad(total))(numbers)
    steps = jnp.diag(jnp.array([1e-3, 0.1, 0.1]))
    both = jax.jit(jax.vmap(total))
    above, below = both(numbers[None, :] + steps), both(numbers[None, :] - steps)
    np.testing.assert_allclose(
        found, (above - below) / (2 * jnp.diag(steps)), rtol=1e-6
    )


def test_solenoid_is_finite_on_the_coil():
    for z in (0.0, 2500.0):
        point = jnp.array([_RADIUS, 0.0, z])
        assert np.all(np.isfinite(_field(_SOLENOID, point)))
        assert np.all(np.isfinite(_slopes(point, _SOLENOID)))
    # On the sheet the mean of both sides.
    at = [
        _field(_SOLENOID, jnp.array([_RADIUS + d, 0.0, 900.0])) for d in (-1e-4, 1e-4)
    ]
    on = _field(_SOLENOID, jnp.array([_RADIUS, 0.0, 900.0]))
    np.testing.assert_allclose(on, (at[0] + at[1]) / 2, rtol=1e-6, atol=1e-9)


def test_solenoid_in_single_precision():
    # What the docstring of the class states: 8e-7 T of 2 T inside the coil.
    points = np.random.default_rng(0).uniform(-1, 1, (4000, 3)) * [800, 800, 2400]
    points = jnp.asarray(points, jnp.float32)
    single = jax.tree.map(lambda x: x.astype(jnp.float32), _SOLENOID)
    found = jax.jit(jax.vmap(single))(points)
    assert found.dtype == jnp.float32
    double = jax.jit(jax.vmap(_SOLENOID))(points.astype(jnp.float64))
    assert np.max(np.abs(found.astype(jnp.float64) - double)) < 2e-6


def _polynomial(order):
    # A field whose components are polynomials of a total degree.
    rng = np.random.default_rng(order)
    powers = [p for p in np.ndindex(*(order + 1,) * 3) if sum(p) <= order]
    factors = rng.normal(size=(len(powers), 3))

    def evaluate(points):
        scaled = np.asarray(points) / 100
        terms = [np.prod(scaled ** np.array(p), axis=-1) for p in powers]
        return np.stack(terms, axis=-1) @ factors

    return evaluate


_AXES = [np.linspace(-100, 140, 7), np.linspace(-50, 90, 5), np.linspace(10, 60, 6)]
_NODES = np.stack(np.meshgrid(*_AXES, indexing="ij"), axis=-1)
_inside = st.tuples(st.floats(-100, 140), st.floats(-50, 90), st.floats(10, 60)).map(
    np.array
)


@_quick
@given(_inside)
def test_grids_reproduce_polynomials(point):
    # Trilinear the linear ones, tricubic the quadratic ones, up to the border.
    for order, rule in ((1, Trilinear()), (2, Tricubic())):
        exact = _polynomial(order)
        field = gridded_field(_AXES, exact(_NODES), interpolation=rule)
        found = _field(field, jnp.asarray(point))
        np.testing.assert_allclose(found, exact(point), atol=1e-12)


@_quick
@given(_inside)
def test_slopes_of_grids(point):
    exact = _polynomial(2)
    field = gridded_field(_AXES, exact(_NODES), interpolation=Tricubic())
    steps = 1e-3 * np.eye(3)
    # Off the border, where the automatic slope is the mean of both sides.
    point = np.clip(point, [-99.9, -49.9, 10.1], [139.9, 89.9, 59.9])
    numeric = [(exact(point + step) - exact(point - step)) / 2e-3 for step in steps]
    found = _slopes(jnp.asarray(point), field)
    np.testing.assert_allclose(found, np.stack(numeric, axis=1), atol=1e-9)


@pytest.mark.parametrize(("rule", "order"), [(Trilinear(), 2), (Tricubic(), 3)])
def test_grids_converge_at_their_order(rule, order):
    points = np.random.default_rng(1).uniform(-1, 1, (300, 3)) * [500, 500, 1500]
    points = jnp.asarray(points) + jnp.array([[0.0, 0.0, 2900.0]])
    truth = jax.jit(jax.vmap(_SOLENOID))(points)
    errors = []
    for nodes in (17, 33):
        grid = sample_field(
            _SOLENOID,
            low=(-500.0, -500.0, 1400.0),
            high=(500.0, 500.0, 4400.0),
            nodes=(nodes,) * 3,
            interpolation=rule,
        )
        found = jax.jit(jax.vmap(grid))(points)
        errors.append(np.sqrt(np.mean((found - truth) ** 2)))
    assert np.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.5)


@pytest.mark.parametrize("rule", [Trilinear(), Tricubic()])
def test_derivatives_of_grids_to_everything(rule):
    field = gridded_field(_AXES, np.sin(_NODES / 50), interpolation=rule)
    rng = np.random.default_rng(2)
    tangent = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape)), field)
    shift = jnp.asarray(rng.normal(size=3))
    # In the first cell, in the middle, and in the last one.
    for point in ([-90.0, -40, 12], [7.0, 3, 33], [131.0, 80, 59]):
        start = jnp.asarray(point)

        def value(step, start=start):
            moved = jax.tree.map(lambda x, dx: x + step * dx, field, tangent)
            return moved(start + step * shift)

        one = jnp.asarray(1e-5)
        numeric = (value(one) - value(-one)) / (2 * one)
        found = jax.jacfwd(value)(jnp.zeros(()))
        np.testing.assert_allclose(found, numeric, rtol=1e-7, atol=1e-9)

        def total(field, position):
            return jnp.sum(field(position))

        slopes = jax.grad(total, argnums=(0, 1))(field, start)
        products = jax.tree.map(lambda a, b: jnp.sum(a * b), slopes, (tangent, shift))
        reverse = sum(jax.tree.leaves(products))
        np.testing.assert_allclose(reverse, jnp.sum(found), rtol=1e-12)


@pytest.mark.parametrize("rule", [Trilinear(), Tricubic()])
def test_outside_of_grids(rule):
    exact = _polynomial(2)
    fields = [
        gridded_field(_AXES, exact(_NODES), interpolation=rule, outside=outside)
        for outside in (NearestOutside(), ZeroOutside())
    ]
    far = [[200.0, 0.0, 30.0], [0.0, 1e30, 30.0], [-1e9, -1e9, jnp.inf]]
    for point in jnp.asarray(far):
        nearest, zero = (_field(field, point) for field in fields)
        border = jnp.clip(
            point, jnp.array([-100.0, -50, 10]), jnp.array([140.0, 90, 60])
        )
        np.testing.assert_allclose(nearest, _field(fields[0], border), rtol=1e-12)
        assert np.all(zero == 0)
        for field in fields:
            slopes = jax.jit(jax.grad(lambda f, x: jnp.sum(f(x))))(field, point)
            assert np.all(np.isfinite(slopes.values))
    # Both are the same inside.
    inside = jnp.array([1.0, 2.0, 30.0])
    np.testing.assert_array_equal(*(_field(field, inside) for field in fields))


def test_grids_differentiate_through_the_sampling():
    def along(central):
        field = SolenoidField(central, jnp.asarray(_RADIUS), jnp.asarray(_LENGTH))
        grid = sample_field(field, low=(-9.0,) * 3, high=(9.0,) * 3, nodes=(4,) * 3)
        return grid(jnp.array([1.0, 2.0, 3.0]))[2]

    value, slope = jax.value_and_grad(along)(jnp.asarray(2.0))
    np.testing.assert_allclose(slope, value / 2, rtol=1e-12)


def test_uniform_field():
    field = UniformField(jnp.array([0.1, -0.2, 2.0]))
    for position in ([0.0, 0, 0], [jnp.inf, 1.0, 1e9]):
        np.testing.assert_array_equal(field(jnp.asarray(position)), field.value)


def test_wrong_maps_are_refused():
    values = np.zeros((*_NODES.shape[:3], 3))
    with pytest.raises(ValueError, match="`axes` has 2 entries"):
        gridded_field(_AXES[:2], values)
    with pytest.raises(ValueError, match="in increasing order"):
        gridded_field([_AXES[0][::-1], *_AXES[1:]], values)
    with pytest.raises(ValueError, match="resample the map"):
        gridded_field([_AXES[0] ** 3, *_AXES[1:]], values)
    with pytest.raises(ValueError, match="order it as x, y, z"):
        gridded_field(_AXES, np.moveaxis(values, 0, 1))
    with pytest.raises(ValueError, match="fill the holes"):
        gridded_field(_AXES, values + np.nan)
    with pytest.raises(ValueError, match="use `Trilinear"):
        sample_field(_SOLENOID, low=(0.0,) * 3, high=(1.0,) * 3, nodes=(4, 3, 4))
    with pytest.raises(ValueError, match="is empty"):
        sample_field(_SOLENOID, low=(0.0,) * 3, high=(0.0,) * 3, nodes=(4, 4, 4))
    with pytest.raises(ValueError, match="one for x, y and z"):
        sample_field(_SOLENOID, low=(0.0,) * 2, high=(0.0,) * 3, nodes=(4, 4, 4))
    with pytest.raises(ValueError, match="`radius` of the solenoid"):
        build_solenoid(central=1.0, radius=0.0, length=1.0)
    with pytest.raises(ValueError, match="finite field"):
        build_solenoid(central=np.inf, radius=1.0, length=1.0)


def test_grids_may_be_batched():
    grid = GriddedField(
        values=jnp.asarray(_NODES), origin=jnp.zeros(3), spacing=jnp.ones(3)
    )
    points = jnp.asarray(np.random.default_rng(3).uniform(0, 4, (5, 3)))
    batch = jax.vmap(grid)(points)
    loop = jnp.stack([grid(point) for point in points])
    np.testing.assert_allclose(batch, loop, rtol=1e-13)
