import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
import pytest
from hypothesis import given, settings, strategies as st

from diffhep.geometry import build_barrel, default_barrel, effective_thickness
from diffhep.helix import (
    PION_MASS,
    perigee_from_point,
    scattering_angle,
    to_cylinder,
)
from diffhep.numerics import inverse_spd, wrap_angle
from diffhep.tracking import (
    TrackStatus,
    fit_track,
    hit_covariance,
    predict,
    seed_track,
)


_BARREL = default_barrel()
_UNROLLED = optx.RecursiveCheckpointAdjoint()
_SLOTS = 8


def _true_hits(parameters, barrel=_BARREL):
    crossing = jax.vmap(to_cylinder, in_axes=(None, 0, None))(
        parameters, barrel.radii, barrel.field
    )
    return crossing.azimuth, crossing.z


_one_seed = jax.jit(seed_track)
_one_prediction = jax.jit(predict)
_one_covariance = jax.jit(hit_covariance)
_one_true = jax.jit(_true_hits)
_all_true = jax.jit(jax.vmap(_true_hits))


def _stack(azimuth, z):
    return jnp.stack([azimuth, z], axis=-1)


_all_seeds = jax.jit(
    jax.vmap(lambda a, z, m, b: seed_track(_stack(a, z), m, b), in_axes=(0, 0, 0, None))
)


@functools.partial(jax.jit, static_argnames=("unrolled", "num_steps"))
def _fit(azimuth, z, mask, barrel, *, unrolled=False, num_steps=5):
    adjoint = _UNROLLED if unrolled else None

    def one(azimuth, z, mask):
        return fit_track(
            _stack(azimuth, z), mask, barrel, num_steps=num_steps, adjoint=adjoint
        )

    return jax.vmap(one)(azimuth, z, mask)


def _tracks(key, momentum=(1.0, 30.0)):
    # Parameters, noisy hits, masks with 6, 6, 5, 5, 4, 4, 3 and 3 hits.
    keys = jax.random.split(key, 5)
    theta = jax.random.uniform(keys[0], (_SLOTS,), minval=0.5, maxval=2.6)
    low, high = jnp.log(momentum[0]), jnp.log(momentum[1])
    transverse = jnp.exp(
        jax.random.uniform(keys[1], (_SLOTS,), minval=low, maxval=high)
    )
    sign = jnp.where(jnp.arange(_SLOTS) % 2 == 0, 1.0, -1.0)
    parameters = jnp.stack(
        [
            jax.random.normal(keys[2], (_SLOTS,)),
            30 * jax.random.normal(keys[3], (_SLOTS,)),
            jnp.linspace(-3.1, 3.1, _SLOTS),
            theta,
            sign * jnp.sin(theta) / transverse,
        ],
        axis=1,
    )
    azimuth, z = _all_true(parameters)
    noise = jax.random.normal(keys[4], (2, *z.shape))
    azimuth = azimuth + noise[0] * (_BARREL.pitch_azimuth / _BARREL.radii)[None, :] / 3
    z = z + noise[1] * _BARREL.pitch_z[None, :] / 3
    lost = (jnp.arange(6)[None, :] * 5 + jnp.arange(_SLOTS)[:, None]) % 6
    mask = lost < 6 - jnp.arange(_SLOTS)[:, None] // 2
    return parameters, azimuth, z, mask


def _difference(found, expected):
    difference = np.array(found - expected)
    difference[:, 2] = wrap_angle(jnp.asarray(difference[:, 2]))
    return difference


def test_exact_hits_give_the_track_back():
    parameters, _, _, mask = _tracks(jax.random.key(0), (0.7, 200.0))
    azimuth, z = _all_true(parameters)
    seeds = _all_seeds(azimuth, z, mask, _BARREL)
    assert np.max(np.abs(_difference(seeds, parameters))) < 1e-8
    fit = _fit(azimuth, z, mask, _BARREL)
    assert jnp.all(fit.converged & fit.found)
    assert np.max(np.abs(_difference(fit.parameters, parameters))) < 1e-9
    assert jnp.all(fit.chi2 < 1e-9)
    np.testing.assert_array_equal(fit.ndf, 2 * jnp.sum(mask, axis=1) - 5)


def test_five_steps_reach_the_minimum():
    _, azimuth, z, mask = _tracks(jax.random.key(1), (1.0, 2.0))
    fit, far = (
        _fit(azimuth, z, mask, _BARREL, num_steps=5),
        _fit(azimuth, z, mask, _BARREL, num_steps=12),
    )
    width = jnp.sqrt(jnp.diagonal(far.covariance, axis1=1, axis2=2))
    assert jnp.max(jnp.abs(fit.parameters - far.parameters) / width) < 1e-9


@settings(max_examples=20, deadline=None)
@given(st.floats(-3, 3), st.floats(-50, 50), st.integers(0, 5))
def test_symmetries(angle, shift, seed):
    parameters, azimuth, z, mask = _tracks(jax.random.key(seed))
    del parameters
    base = _fit(azimuth, z, mask, _BARREL)
    moved = _fit(azimuth + angle, z + shift, mask, _BARREL)
    expected = base.parameters + jnp.array([[0, shift, angle, 0, 0]])
    assert np.max(np.abs(_difference(moved.parameters, expected))) < 1e-9
    np.testing.assert_allclose(moved.chi2, base.chi2, rtol=1e-6)
    # The mirror image at the x-z plane.
    mirror = _fit(-azimuth, z, mask, _BARREL)
    sign = jnp.array([[-1.0, 1.0, -1.0, 1.0, -1.0]])
    assert np.max(np.abs(_difference(mirror.parameters, base.parameters * sign))) < 1e-9
    # The opposite field reads the opposite charge.
    other = dataclasses.replace(_BARREL, field=-_BARREL.field)
    conjugate = _fit(azimuth, z, mask, other)
    sign = jnp.array([[1.0, 1.0, 1.0, 1.0, -1.0]])
    expected = base.parameters * sign
    assert np.max(np.abs(_difference(conjugate.parameters, expected))) < 1e-9


def test_jacobian_of_the_prediction():
    parameters, _, _, _ = _tracks(jax.random.key(2))

    @jax.jit
    def hits(parameters):
        return predict(parameters, _BARREL).position

    for row in parameters[:3]:
        found = _one_prediction(row, _BARREL)
        expected = jax.jit(jax.jacfwd(hits))(row)
        np.testing.assert_allclose(found.jacobian, expected, rtol=1e-9, atol=1e-9)
        azimuth, z = _one_true(row)
        np.testing.assert_allclose(hits(row), _stack(azimuth, z), rtol=1e-12)


def test_hit_covariance_against_the_transported_kicks():
    # The oracle: kick the direction at a layer and transport the helix exactly.
    row = _tracks(jax.random.key(3), (1.0, 1.5))[0][0]
    radii, field = _BARREL.radii, _BARREL.field
    momentum = 1 / jnp.abs(row[4])
    beta = momentum / jnp.sqrt(momentum**2 + PION_MASS**2)
    start = jax.jit(jax.vmap(to_cylinder, in_axes=(None, 0, None)))(row, radii, field)
    material = effective_thickness(_BARREL)

    def kicked(kick, layer):
        azimuth = start.azimuth[layer]
        point = jnp.stack(
            [
                radii[layer] * jnp.cos(azimuth),
                radii[layer] * jnp.sin(azimuth),
                start.z[layer],
            ]
        )
        after = perigee_from_point(
            point, start.direction[layer] + kick[0], row[3] + kick[1], row[4], field
        )
        return jnp.concatenate(_true_hits(after))

    pixels = jnp.concatenate([_BARREL.pitch_azimuth / radii, _BARREL.pitch_z])
    expected = jnp.diag(pixels**2 / 12)
    slope = jax.jit(jax.jacfwd(kicked))
    for layer in range(5):
        response = slope(jnp.zeros(2), layer)
        later = jnp.tile(jnp.arange(6) > layer, 2)
        response = jnp.where(later[:, None], response, 0.0)
        turn = start.direction[layer] - start.azimuth[layer]
        path = material[layer] / (jnp.sin(row[3]) * jnp.cos(turn))
        width = scattering_angle(path, momentum, beta)
        widths = jnp.stack([width / jnp.sin(row[3]), width])
        response = response * widths[None, :]
        expected = expected + response @ response.T
    mask = jnp.ones(6, bool)
    found = _one_covariance(row, _one_prediction(row, _BARREL), mask, _BARREL)
    scale = jnp.sqrt(jnp.diagonal(expected))
    scale = scale[:, None] * scale[None, :]
    np.testing.assert_allclose(found / scale, expected / scale, atol=1e-9)


def test_missing_hits_are_removed_exactly():
    # The same as a fit to the layers that are left (their scattering stays).
    _, azimuth, z, _ = _tracks(jax.random.key(4))
    mask = jnp.array([True, True, False, True, True, True])
    fits = _fit(azimuth, z, jnp.tile(mask[None, :], (_SLOTS, 1)), _BARREL)
    fit = jax.tree.map(lambda x: x[0], fits)
    keep = np.flatnonzero(np.tile(mask, 2))
    prediction = _one_prediction(fit.parameters, _BARREL)
    # The covariance of all hits: kicks as at the seed, derivatives as at the end.
    measured = _stack(azimuth[0], z[0])
    seed = _one_seed(measured, mask, _BARREL)
    there = dataclasses.replace(
        _one_prediction(seed, _BARREL), jacobian=prediction.jacobian
    )
    full = _one_covariance(seed, there, jnp.ones(6, bool), _BARREL)
    weight = inverse_spd(full[np.ix_(keep, keep)])
    residual = measured - prediction.position
    residual = jnp.concatenate([wrap_angle(residual[:, 0]), residual[:, 1]])[keep]
    jacobian = jnp.concatenate([prediction.jacobian[:, 0], prediction.jacobian[:, 1]])
    jacobian = jacobian[keep]
    assert fit.chi2 == pytest.approx(float(residual @ weight @ residual), rel=1e-9)
    covariance = jnp.linalg.inv(jacobian.T @ weight @ jacobian)
    scale = jnp.sqrt(jnp.diagonal(covariance))
    error = (fit.covariance - covariance) / (scale[:, None] * scale[None, :])
    assert jnp.max(jnp.abs(error)) < 1e-8


def _summary(azimuth, z, mask, barrel, *, unrolled, num_steps):
    # All outputs of living tracks in one number, each about of order one.
    fit = _fit(azimuth, z, mask, barrel, unrolled=unrolled, num_steps=num_steps)
    scale = jnp.array([[1.0, 0.1, 100.0, 100.0, 100.0]])
    variance = jnp.diagonal(fit.covariance, axis1=1, axis2=2)
    total = jnp.sum(jnp.sin(fit.parameters * scale) + jnp.log(variance), axis=1)
    total = total + jnp.sum(fit.covariance * 1e3, axis=(1, 2)) + 0.1 * fit.chi2
    return jnp.sum(jnp.where(fit.found, total, 0.0))


_gradient = jax.jit(
    jax.grad(_summary, argnums=(0, 1, 3)), static_argnames=("unrolled", "num_steps")
)
_summary_jit = jax.jit(_summary, static_argnames=("unrolled", "num_steps"))


def test_implicit_and_unrolled_gradients_agree_with_differences():
    _, azimuth, z, mask = _tracks(jax.random.key(5))
    implicit = _gradient(azimuth, z, mask, _BARREL, unrolled=False, num_steps=8)
    unrolled = _gradient(azimuth, z, mask, _BARREL, unrolled=True, num_steps=8)
    values = [azimuth, z, *jax.tree.leaves(_BARREL)]
    structure = jax.tree.structure(_BARREL)

    def evaluate(values):
        barrel = jax.tree.unflatten(structure, values[2:])
        return _summary_jit(
            values[0], values[1], mask, barrel, unrolled=False, num_steps=8
        )

    slopes = [*implicit[:2], *jax.tree.leaves(implicit[2])]
    others = [*unrolled[:2], *jax.tree.leaves(unrolled[2])]
    checked = 0
    for position, (slope, other) in enumerate(zip(slopes, others, strict=True)):
        scale = jnp.max(jnp.abs(slope))
        np.testing.assert_allclose(other, slope, rtol=1e-8, atol=1e-8 * float(scale))
        # Steps in the size of the resolution for hits, relative ones for the barrel.
        size = [1e-6, 1e-4][position] if position < 2 else 3e-6 * values[position]
        direction = jax.random.normal(jax.random.key(position), slope.shape)
        step = size * direction
        up, down = (
            evaluate(
                [v + s * step if i == position else v for i, v in enumerate(values)]
            )
            for s in (1, -1)
        )
        exact = jnp.sum(slope * step)
        if position == 2 + 4:
            # The fit does not know the efficiency.
            assert exact == up - down == 0
            continue
        assert exact == pytest.approx(float(up - down) / 2, rel=1e-6)
        checked += 1
    assert checked == 7


@pytest.mark.parametrize("poison", [jnp.nan, jnp.inf, 1e30])
def test_dead_slots_are_inert(poison):
    _, azimuth, z, mask = _tracks(jax.random.key(6))
    # Two dead slots: no hit, and two hits. Dead hits everywhere hold poison.
    mask = mask.at[0].set(False).at[1].set(jnp.arange(6) < 2)
    clean = _gradient(azimuth, z, mask, _BARREL, unrolled=False, num_steps=8)
    dirty = _gradient(
        jnp.where(mask, azimuth, poison),
        jnp.where(mask, z, poison),
        mask,
        _BARREL,
        unrolled=False,
        num_steps=8,
    )
    jax.tree.map(np.testing.assert_array_equal, clean, dirty)
    assert jnp.all(jnp.where(mask, 0.0, clean[0]) == 0)
    assert jnp.all(jnp.where(mask, 0.0, clean[1]) == 0)
    assert jnp.all(clean[0][:2] == 0)
    fit = _fit(azimuth, jnp.where(mask, z, poison), mask, _BARREL)
    assert not jnp.any(fit.found[:2])
    assert jnp.all(fit.found[2:])
    assert all(jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(fit))


def test_hopeless_hits_do_not_converge():
    # Hits at random all over the barrel are no track.
    azimuth = jnp.array([[3.0, -2.0, 1.0, 0.5, -1.5, 2.5]])
    z = jnp.array([[1e3, -1e3, 2e3, -3e3, 0.0, 4e3]])
    azimuth, z = (jnp.tile(x, (_SLOTS, 1)) for x in (azimuth, z))
    fit = _fit(azimuth, z, jnp.ones((_SLOTS, 6), bool), _BARREL)
    assert jnp.all(fit.found)
    assert not jnp.any(fit.converged)
    assert jnp.all(fit.status == TrackStatus.not_converged)


@pytest.mark.parametrize("unrolled", [False, True])
def test_what_is_not_a_number_has_not_converged(unrolled):
    _, azimuth, z, mask = _tracks(jax.random.key(9))
    # In a live hit.
    azimuth = azimuth.at[0, jnp.argmax(mask[0])].set(jnp.nan)
    fit = _fit(azimuth, z, mask, _BARREL, unrolled=unrolled)
    expected = jnp.arange(_SLOTS) == 0
    assert jnp.all(fit.found)
    np.testing.assert_array_equal(fit.converged, ~expected)
    np.testing.assert_array_equal(fit.status == TrackStatus.not_converged, expected)


def test_the_status_is_a_sentence():
    _, azimuth, z, mask = _tracks(jax.random.key(8))
    mask = mask.at[0].set(jnp.arange(6) < 2)
    fit = _fit(azimuth, z, mask, _BARREL)
    expected = jnp.arange(_SLOTS) == 0
    np.testing.assert_array_equal(fit.status == TrackStatus.too_few_hits, expected)
    np.testing.assert_array_equal(fit.status == TrackStatus.good, ~expected)
    first = jax.tree.map(lambda x: x[0], fit)
    assert "Less than 3 layers" in TrackStatus[first.status]


def test_single_precision_is_good_to_a_hundredth_of_the_error():
    parameters, azimuth, z, mask = _tracks(jax.random.key(7))
    del parameters
    double = _fit(azimuth, z, mask, _BARREL)
    cast = functools.partial(jnp.asarray, dtype=jnp.float32)
    single = _fit(cast(azimuth), cast(z), mask, jax.tree.map(cast, _BARREL))
    assert single.parameters.dtype == jnp.float32
    assert jnp.all(single.converged)
    width = jnp.sqrt(jnp.diagonal(double.covariance, axis1=1, axis2=2))
    loss = _difference(np.array(single.parameters, float), double.parameters) / width
    assert np.max(np.abs(loss)) < 0.05
    spread = np.array(jnp.diagonal(single.covariance, axis1=1, axis2=2), float)
    np.testing.assert_allclose(spread, width**2, rtol=0.02)


def test_impact_resolution_of_two_planes():
    # Without material and bending the resolution of d0 follows from two lever arms.
    barrel = build_barrel(
        radii=(30.0, 60.0, 90.0),
        pitch_azimuth=(0.05,) * 3,
        pitch_z=(0.1,) * 3,
        thickness=(1e-9,) * 3,
        efficiency=(0.9,) * 3,
        field=2.0,
    )
    truth = jnp.array([0.0, 0.0, 0.3, jnp.pi / 2, 1e-4])
    azimuth, z = _one_true(truth, barrel)
    fit = jax.jit(fit_track)(_stack(azimuth, z), jnp.ones(3, bool), barrel)
    # z is a straight line through three points r = 30, 60, 90: variance at r = 0.
    r = np.array([30.0, 60.0, 90.0])
    variance = 0.1**2 / 12
    expected = variance * (1 / 3 + 60.0**2 / np.sum((r - 60) ** 2))
    # Thin layers and 10 TeV leave no scattering, but for the services of the channels.
    assert fit.covariance[1, 1] == pytest.approx(expected, rel=1e-5)
    # d0 is the parabola's value at zero: its three coefficients by Lagrange.
    assert fit.covariance[0, 0] == pytest.approx(0.05**2 / 12 * (9 + 9 + 1), rel=1e-5)
