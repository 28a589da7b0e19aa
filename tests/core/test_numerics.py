import math

import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
import pytest
from hypothesis import given, settings, strategies as st

from diffhep.numerics import (
    BlockSolver3,
    SmallCholesky,
    arcsine_ratio,
    cholesky_spd,
    find_root,
    inverse_general,
    inverse_near,
    inverse_spd,
    is_positive_definite,
    masked_sum,
    matmul,
    matvec,
    safe_norm,
    safe_sqrt,
    sanitise,
    sinc,
    sinc_defect,
    smooth_step,
    solve_blocks,
    solve_optimality,
    solve_spd,
    wrap_angle,
)
from diffhep.testing import check_gradient


def _spd(size, seed=0, scales=None):
    root = np.random.default_rng(seed).normal(size=(size, size + 3))
    scales = np.ones(size) if scales is None else scales
    return jnp.asarray((root @ root.T) * scales[:, None] * scales[None, :])


INVERSE = jax.jit(inverse_spd)


@pytest.mark.parametrize("size", [1, 2, 5, 8, 21, 64])
def test_inverse_spd_equals_numpy(size):
    matrix = _spd(size)
    np.testing.assert_allclose(INVERSE(matrix), np.linalg.inv(matrix), rtol=1e-11)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**31), st.lists(st.floats(-6, 6), min_size=5, max_size=5))
def test_inverse_spd_of_mixed_units(seed, exponents):
    # Parameters in mm beside such in 1/GeV: twelve orders of magnitude on the diagonal.
    scales = 10.0 ** np.asarray(exponents)
    found = np.asarray(INVERSE(_spd(5, seed, scales))) * scales[:, None] * scales
    np.testing.assert_allclose(found, np.linalg.inv(_spd(5, seed)), rtol=1e-9)


def test_cholesky_spd():
    matrix = _spd(4)
    found = cholesky_spd(matrix)
    np.testing.assert_allclose(found, np.linalg.cholesky(matrix), atol=1e-12)
    assert np.isnan(cholesky_spd(jnp.diag(jnp.array([1.0, -1.0])))).any()


def test_inverse_spd_gradient():
    # The derivative assumes a symmetric direction, as every use of it has.
    root = jnp.asarray(np.random.default_rng(1).normal(size=(4, 6)))
    check_gradient(lambda r: inverse_spd(r @ r.T), (root,), rtol=1e-7)


def test_inverse_spd_rejects_indefinite():
    assert np.isnan(INVERSE(jnp.diag(jnp.array([1.0, 2.0, -1.0])))).any()
    assert np.isnan(INVERSE(_spd(21).at[13, 13].set(-1.0))).any()
    assert np.isnan(INVERSE(_spd(21).at[3, 3].set(0.0))).any()


@pytest.mark.parametrize("size", [1, 3, 12])
def test_inverse_general(size):
    random = np.random.default_rng(size)
    # Rows and columns of very different units.
    units = 10.0 ** random.uniform(-6, 6, (2, size))
    matrix = random.normal(size=(size, size)) * units[0][:, None] * units[1]
    # A zero where the first pivot would be.
    matrix[0, 0] = 0.0 if size > 1 else 2.0
    inverse = np.asarray(jax.jit(inverse_general)(matrix))
    unit = inverse @ matrix * units[1][:, None] / units[1]
    np.testing.assert_allclose(unit, np.eye(size), atol=1e-10)
    if size < 12:
        check_gradient(inverse_general, (jnp.asarray(matrix / units[0][:, None]),))


def test_inverse_general_rejects_singular():
    for matrix in (jnp.ones((3, 3)), jnp.zeros((2, 2)), jnp.full((2, 2), jnp.nan)):
        assert not np.isfinite(inverse_general(matrix)).any()


def test_is_positive_definite(precision):
    root = jnp.tril(jnp.ones((4, 4))) * jnp.asarray([1e-3, 1.0, 20.0, 1e-6])[:, None]
    good = root @ root.T
    assert is_positive_definite(good)
    # The third row twice the second: singular within rounding.
    singular = root.at[2].set(2 * root[1]) @ root.at[2].set(2 * root[1]).T
    bad = [singular, -good, 0 * good, good.at[3, 3].set(0.0), good.at[3, 0].set(1.0)]
    for value in (jnp.nan, jnp.inf):
        bad += [good.at[i, j].set(value) for i in range(4) for j in range(i + 1)]
    for matrix in bad:
        assert not is_positive_definite(matrix)
    slope = jax.grad(lambda x: jnp.sum(jnp.where(is_positive_definite(x), x, 0.0)))
    np.testing.assert_array_equal(slope(good), jnp.ones((4, 4)))
    assert good.dtype == jnp.dtype(precision)


def test_a_singular_block_has_no_inverse():
    blocks = jnp.stack([jnp.diag(jnp.asarray([1.0, 2.0, 4.0])), jnp.ones((3, 3))])

    def multiply(vector):
        return jnp.ravel(jnp.einsum("nab,nb->na", blocks, jnp.reshape(vector, (2, 3))))

    inverse = BlockSolver3().invert(multiply, jnp.zeros(6))
    np.testing.assert_allclose(inverse[0], np.diag([1.0, 0.5, 0.25]))
    np.testing.assert_array_equal(inverse[1], 0.0)


def test_products_and_solve(precision):
    matrix = _spd(3).astype(precision)
    vector = jnp.arange(1, 4, dtype=precision)
    rtol = 1e-12 if precision == "float64" else 1e-5
    np.testing.assert_allclose(matmul(matrix, matrix), matrix @ matrix, rtol=rtol)
    np.testing.assert_allclose(matvec(matrix, vector), matrix @ vector, rtol=rtol)
    solution = solve_spd(matrix, vector)
    assert solution.dtype == precision
    np.testing.assert_allclose(matrix @ solution, vector, rtol=100 * rtol)


@pytest.mark.parametrize("size", [3, 40])
def test_solve_spd_of_one_and_of_many(size):
    # Mixed units, as in a fit.
    scales = np.resize([1e-3, 1.0, 1e4], size)
    matrices = jnp.stack([_spd(size, seed, scales) for seed in range(3)])
    rights = jnp.asarray(np.random.default_rng(2).normal(size=(3, size)))
    exact = np.linalg.solve(matrices, rights[..., None])[..., 0]
    one = jax.jit(solve_spd)(matrices[0], rights[0])
    np.testing.assert_allclose(one, exact[0], rtol=1e-9)
    many = jax.jit(jax.vmap(solve_spd))(matrices, rights)
    np.testing.assert_allclose(many, exact, rtol=1e-9)
    shared = jax.jit(jax.vmap(solve_spd, (None, 0)))(matrices[0], rights)
    np.testing.assert_allclose(shared[0], exact[0], rtol=1e-9)
    assert np.isnan(solve_spd(matrices[0].at[1, 1].set(-1.0), rights[0])).all()


def test_solve_spd_gradient():
    matrix, right = _spd(20), jnp.arange(20.0)
    check_gradient(
        lambda s, r: solve_spd(matrix + s * jnp.eye(20), r), (0.3, right), rtol=1e-7
    )


@pytest.mark.parametrize("x", [0.0, 1e-9, 0.0299999, 0.03, 0.0300001, 1.0, -2.5])
def test_sinc_and_its_derivatives(x):
    exact = np.sinc(x / np.pi)
    # The series of the derivatives, good to 1e-14 where the closed form cancels.
    series = [
        sum(
            (-1) ** k * x ** (2 * k - d) * np.prod(np.arange(2 * k - d + 1, 2 * k + 1))
            / np.prod(np.arange(1.0, 2 * k + 2))
            for k in range((d + 1) // 2, 14)
        )
        for d in (1, 2)
    ]  # fmt: skip
    first, second = jax.grad(sinc), jax.grad(jax.grad(sinc))
    np.testing.assert_allclose(sinc(jnp.asarray(x)), exact, rtol=1e-14)
    np.testing.assert_allclose(first(x), series[0], rtol=1e-11, atol=1e-15)
    np.testing.assert_allclose(second(x), series[1], rtol=1e-8)


def test_smooth_step():
    x = jnp.array([-1.0, 0.0, 0.5, 1.0, 3.0])
    np.testing.assert_array_equal(smooth_step(x), [0.0, 0.0, 0.5, 1.0, 1.0])
    for derivative in (jax.grad(smooth_step), jax.grad(jax.grad(smooth_step))):
        # Continuous at both ends: the limits from inside are the zeros outside.
        edges = jax.vmap(derivative)(jnp.array([-1e-9, 1e-9, 1 - 1e-9, 1 + 1e-9]))
        np.testing.assert_allclose(edges, 0.0, atol=1e-7)
    check_gradient(smooth_step, (jnp.array([0.1, 0.4, 0.9]),), rtol=1e-8)


@settings(deadline=None, max_examples=50)
@given(st.floats(-1e3, 1e3))
def test_wrap_angle(angle):
    wrapped = float(wrap_angle(jnp.asarray(angle)))
    assert -np.pi - 1e-12 <= wrapped <= np.pi + 1e-12
    turns = (angle - wrapped) / (2 * np.pi)
    assert abs(turns - round(turns)) < 1e-10
    assert float(jax.grad(wrap_angle)(jnp.asarray(angle))) == 1.0


def test_safe_functions_have_finite_derivatives():
    assert float(safe_sqrt(jnp.asarray(4.0))) == 2.0
    for x in (0.0, -1.0):
        assert float(safe_sqrt(jnp.asarray(x))) == 0.0
        assert float(jax.grad(safe_sqrt)(x)) == 0.0
    # What is not a number must not become a plausible one.
    assert jnp.isnan(safe_sqrt(jnp.asarray(jnp.nan)))
    np.testing.assert_array_equal(jax.grad(safe_norm)(jnp.zeros(3)), np.zeros(3))
    check_gradient(safe_norm, (jnp.array([[3.0, 4.0], [0.1, 0.2]]),), rtol=1e-8)


def test_masked_reductions_ignore_dead_slots():
    values = jnp.array([[1.0, 2.0], [jnp.nan, jnp.inf], [3.0, 4.0]])
    mask = jnp.array([True, False, True])
    np.testing.assert_array_equal(masked_sum(values, mask), [4.0, 6.0])
    gradient = jax.grad(lambda v: jnp.sum(masked_sum(v, mask) ** 2))(values)
    np.testing.assert_array_equal(np.isnan(gradient), False)
    np.testing.assert_array_equal(gradient[1], [0.0, 0.0])
    np.testing.assert_array_equal(
        sanitise(jnp.array([7, 2**30, 3]), mask), np.array([7, 0, 3])
    )
    assert float(sanitise(values, mask, fill=-1.0)[1, 0]) == -1.0


def _gradient(y, args):
    matrix, right = args
    return matvec(matrix, y) + y**3 - right


def _newton(y, args):
    hessian = args[0] + jnp.diag(3 * y**2)
    return y - solve_spd(hessian, _gradient(y, args))


@pytest.mark.parametrize(
    "adjoint",
    [
        optx.ImplicitAdjoint(),
        optx.ImplicitAdjoint(linear_solver=SmallCholesky()),
        optx.RecursiveCheckpointAdjoint(),
    ],
    ids=["implicit", "small-cholesky", "unrolled"],
)
def test_solve_optimality(adjoint):
    root = jnp.asarray(np.random.default_rng(2).normal(size=(3, 5)))
    right = jnp.array([1.0, -2.0, 0.5])

    def solve(root, right):
        args = (matmul(root, root.T), right)
        start = jnp.zeros(3)
        return solve_optimality(
            _newton, _gradient, start, args, num_steps=12, adjoint=adjoint
        )

    solution = solve(root, right)
    residual = _gradient(solution, (matmul(root, root.T), right))
    np.testing.assert_allclose(residual, 0.0, atol=1e-13)
    # Unrolled steps know only reverse mode.
    forward = isinstance(adjoint, optx.ImplicitAdjoint)
    check_gradient(solve, (root, right), rtol=1e-7, forward=forward)
    # Closed form: d(solution)/d(right) is the inverse of the Hessian.
    hessian = root @ root.T + jnp.diag(3 * solution**2)
    np.testing.assert_allclose(
        jax.jacrev(solve, argnums=1)(root, right), np.linalg.inv(hessian), rtol=1e-9
    )


def test_arcsine_ratio_and_its_derivative():
    x = np.concatenate([[-1.0, 0.0, 1.0], np.linspace(-0.999, 0.999, 501)])
    expected = np.where(x == 0, 1.0, np.arcsin(x) / np.where(x == 0, 1.0, x))
    np.testing.assert_allclose(arcsine_ratio(jnp.asarray(x)), expected, rtol=1e-13)
    inside = x[3:]
    inside = inside[np.abs(inside) > 0.01]
    slope = jax.vmap(jax.grad(arcsine_ratio))(jnp.asarray(inside))
    exact = (1 / np.sqrt(1 - inside**2) - np.arcsin(inside) / inside) / inside
    np.testing.assert_allclose(slope, exact, rtol=1e-10)
    assert jax.grad(arcsine_ratio)(0.0) == 0
    assert jnp.isnan(arcsine_ratio(jnp.asarray(1.1)))


def test_sinc_defect_on_both_sides_of_its_switch():
    # (1 - sin(x) / x) / x^2 loses 16 - 2 log10(1/x) digits: compare with the series.
    x = np.array([0.0, 1e-4, 0.0299, 0.0301, 0.2, 2.0, -0.5])
    terms = [(-1) ** n * x ** (2 * n) / math.factorial(2 * n + 3) for n in range(12)]
    np.testing.assert_allclose(sinc_defect(jnp.asarray(x)), sum(terms), rtol=1e-12)


def test_inverse_near():
    keys = jax.random.split(jax.random.key(0))
    matrix = jax.random.normal(keys[0], (5, 5)) + 5 * jnp.eye(5)
    exact = jnp.linalg.inv(matrix)
    # Wrong by a per cent.
    guess = exact @ (jnp.eye(5) + 0.004 * jax.random.normal(keys[1], (5, 5)))
    assert np.max(np.abs(matrix @ guess - np.eye(5))) > 3e-3
    np.testing.assert_allclose(inverse_near(matrix, guess), exact, atol=1e-13)


def test_inverse_of_two_by_two():
    matrix = jnp.array([[3.0, 1.0], [1.0, 2.0]])
    np.testing.assert_allclose(inverse_spd(matrix) @ matrix, np.eye(2), atol=1e-15)
    assert jnp.all(jnp.isnan(inverse_spd(jnp.array([[1.0, 2.0], [2.0, 1.0]]))))
    assert jnp.all(jnp.isnan(inverse_spd(jnp.array([[-1.0, 0.0], [0.0, -1.0]]))))


def _cubes(y, shift):
    return y**3 + y - shift, jnp.sin(y) * jnp.sum(shift, axis=1, keepdims=True)


def _cube_step(y, residual, values, shift):
    return y - residual / (3 * y**2 + 1)


def test_solve_blocks_equals_the_closed_form():
    # The real root of y^3 + y = a.
    def root(a):
        half = jnp.sqrt(a**2 / 4 + 1 / 27)
        return jnp.cbrt(a / 2 + half) + jnp.cbrt(a / 2 - half)

    def expected(a):
        y = root(a)
        return y, _cubes(y, a)[1]

    def found(a):
        start = jnp.ones_like(a)
        return solve_blocks(_cube_step, _cubes, start, a, num_steps=30)

    shift = jnp.asarray([[0.5, 1.0, 2.0], [3.0, 0.2, 0.1]])
    for ours, wanted in zip(found(shift), expected(shift), strict=True):
        np.testing.assert_allclose(ours, wanted, rtol=1e-12)
    for mode in (jax.jacrev, jax.jacfwd, lambda f: jax.jacfwd(jax.jacrev(f))):
        ours, wanted = mode(found)(shift), mode(expected)(shift)
        for a, b in zip(ours, wanted, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11)


def _flat(y, shift):
    # The second block does not depend on its unknowns.
    return jnp.asarray([[1.0], [0.0]]) * y - shift, y * shift


def test_a_singular_block_has_no_derivative():
    def found(shift):
        def advance(y, residual, values, a):
            return jnp.where(jnp.arange(2)[:, None] == 0, a, y)

        return solve_blocks(advance, _flat, jnp.ones((2, 3)), shift, num_steps=1)

    root, values = jax.jacrev(found)(jnp.full((2, 3), 2.0))
    np.testing.assert_allclose(root[0, :, 0], np.eye(3))
    np.testing.assert_array_equal(root[1], 0.0)
    # 2 a in the first block; in the second y alone.
    np.testing.assert_allclose(values[0, :, 0], 4 * np.eye(3))
    np.testing.assert_allclose(values[1, :, 1], np.eye(3))


def _cubic(x, shift):
    return x**3 - shift


def _steep(x, shift):
    return jnp.tanh(50 * (x - shift)) + 0.1


@pytest.mark.parametrize("function", [_cubic, _steep], ids=["cubic", "steep"])
def test_find_root(function):
    @jax.jit
    def root(shift):
        return find_root(function, jnp.asarray(-3.0), jnp.asarray(5.0), shift)

    for shift in (-2.0, 0.3, 1.0):
        found = root(jnp.asarray(shift))
        if function is _cubic:
            wanted = np.cbrt(shift)
            slope = 1 / (3 * wanted**2)
        else:
            wanted, slope = shift - np.arctanh(0.1) / 50, 1.0
        np.testing.assert_allclose(found, wanted, rtol=1e-11)
        np.testing.assert_allclose(jax.grad(root)(jnp.asarray(shift)), slope, rtol=1e-9)


def test_find_root_needs_two_signs():
    found = find_root(_cubic, jnp.asarray(2.0), jnp.asarray(5.0), jnp.asarray(1.0))
    assert jnp.isnan(found)
