"""Momenta refitted at the vertex, against dense least squares and toys."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from diffhep.helix import perigee_at, perigee_from_point
from diffhep.testing import check_gradient
from diffhep.vertexing import fit_vertex, refit_tracks


def _fit(jet, *, weight=None, mask=None):
    covariance = jet["root"] @ jet["root"].mT
    arguments = (jet["mask"] if mask is None else mask, jet["field"])
    fit = fit_vertex(
        jet["parameters"],
        covariance,
        jnp.ones_like(jet["weight"]) if weight is None else weight,
        *arguments,
        prior_mean=jet["prior_mean"],
        prior_precision=jet["prior_root"] @ jet["prior_root"].T,
        start=jet["prior_mean"],
        num_steps=20,
    )
    tracks = refit_tracks(jet["parameters"], covariance, *arguments, fit=fit)
    return fit, tracks


fit_all = jax.jit(jax.vmap(_fit))


@jax.jit
@jax.vmap
@jax.vmap
def _derivatives(parameters, position, field):
    # Of the impact parameters and the momentum about the vertex, by differentiation.
    to_track, to_point = jax.jacfwd(perigee_at, (0, 1))(parameters, position, field)
    return perigee_at(parameters, position, field), to_track, to_point


@jax.jit
@jax.vmap
@jax.vmap
def _model(position, momentum, field):
    def model(position, momentum):
        return perigee_from_point(position, *momentum, field)

    return model(position, momentum), *jax.jacfwd(model, (0, 1))(position, momentum)


def _normal(prior, root, slopes, residual):
    """All 3 + 3 n unknowns in one dense least-squares problem: change, covariance."""
    number = len(residual)
    (precision, pull), (to_point, to_momentum) = prior, slopes
    rows = np.zeros((5 * number + 3, 3 + 3 * number))
    right = np.zeros(5 * number + 3)
    rows[:3, :3], right[:3] = precision, pull
    for i in range(number):
        here, mine = slice(3 + 5 * i, 8 + 5 * i), slice(3 + 3 * i, 6 + 3 * i)
        rows[here, :3] = np.linalg.solve(root[i], to_point[i])
        rows[here, mine] = np.linalg.solve(root[i], to_momentum[i])
        right[here] = np.linalg.solve(root[i], residual[i])
    # The unknowns have different units.
    scale = np.linalg.norm(rows, axis=0)
    q, r = np.linalg.qr(rows / scale)
    inverse = np.linalg.inv(r)
    covariance = (inverse @ inverse.T) / scale[:, None] / scale[None, :]
    return inverse @ (q.T @ right) / scale, covariance


def test_equals_dense_least_squares(jets):
    fits, refitted = fit_all(jets)
    slots = jets["mask"].shape[1]
    where = jnp.repeat(fits.position[:, None, :], slots, axis=1)
    field = jnp.repeat(jets["field"][:, None], slots, axis=1)
    jets, moved, to_track, to_point, fits, refitted = jax.tree.map(
        np.asarray,
        (jets, *_derivatives(jets["parameters"], where, field), fits, refitted),
    )
    for k, number in enumerate(jets["mask"].sum(1)):
        alive = slice(number)
        # Back to the measured parameters: how they change with vertex and momentum.
        back = np.linalg.inv(to_track[k, alive])
        impact = moved[k, alive].copy()
        impact[:, 2:] = 0.0
        # P = R R^T, and the rows of the prior are R^T (v - m).
        root = jets["prior_root"][k].T
        change, covariance = _normal(
            (root, root @ (jets["prior_mean"][k] - fits.position[k])),
            jets["root"][k, alive],
            (-back @ to_point[k, alive], back[:, :, 2:]),
            np.einsum("nab,nb->na", back, impact),
        )
        width = np.sqrt(np.diagonal(covariance))
        # The vertex is the solution.
        assert np.max(np.abs(change[:3] / width[:3])) < 1e-8
        ours = refitted.momentum[k, alive] - moved[k, alive, 2:]
        ours = (ours + np.pi) % (2 * np.pi) - np.pi
        assert np.max(np.abs((ours.ravel() - change[3:]) / width[3:])) < 1e-8
        correlation = covariance / width[:, None] / width[None, :]
        for i in range(number):
            mine = slice(3 + 3 * i, 6 + 3 * i)
            scale = width[mine, None] * width[None, mine]
            np.testing.assert_allclose(
                refitted.covariance[k, i] / scale, correlation[mine, mine], atol=1e-8
            )
            scale = width[:3, None] * width[None, mine]
            np.testing.assert_allclose(
                refitted.vertex_covariance[k, i] / scale,
                correlation[:3, mine],
                atol=1e-8,
            )


def _shrunk(jets, size):
    """The same pulls, with errors that are smaller or larger."""
    apart = jets["prior_mean"] - jets["vertex"]
    return jets | {
        "parameters": jets["exact"] + size * (jets["parameters"] - jets["exact"]),
        "root": size * jets["root"],
        "prior_mean": jets["vertex"] + size * apart,
        "prior_root": jets["prior_root"] / size,
    }


def _exact(jet, position, momentum):
    """The minimum of chi-squared in all unknowns, from a start, with their errors."""
    number = int(jet["mask"].sum())
    slots = len(jet["mask"])
    root = jet["prior_root"].T
    field = np.full((1, slots), jet["field"])
    for _ in range(8):
        where = np.broadcast_to(position, (1, slots, 3))
        model, to_point, to_momentum = (
            np.asarray(x)[0, :number] for x in _model(where, momentum[None], field)
        )
        residual = jet["parameters"][:number] - model
        residual[:, 2] = (residual[:, 2] + np.pi) % (2 * np.pi) - np.pi
        change, covariance = _normal(
            (root, root @ (jet["prior_mean"] - position)),
            jet["root"][:number],
            (to_point, to_momentum),
            residual,
        )
        position = position + change[:3]
        momentum = momentum.copy()
        momentum[:number] += np.reshape(change[3:], (-1, 3))
    return position, momentum[:number], np.sqrt(np.diagonal(covariance))


def _distance(jets, size):
    """How far fit and refit lie from the minimum, in s.d., for each jet."""
    jets = _shrunk(jets, size)
    fits, refitted = jax.tree.map(np.asarray, fit_all(jets))
    far = []
    for k in range(len(fits.chi2)):
        jet = {name: np.asarray(value[k]) for name, value in jets.items()}
        # A dead slot needs a polar angle.
        start = np.where(jet["mask"][:, None], refitted.momentum[k], 1.0)
        position, momentum, width = _exact(jet, fits.position[k], start)
        ours = refitted.momentum[k, : len(momentum)]
        moves = [position - fits.position[k], (ours - momentum).ravel()]
        far.append(np.max(np.abs(np.concatenate(moves) / width)))
    return np.array(far)


def test_approaches_the_exact_minimum_as_errors_shrink(jets):
    # Derivatives are taken at the measured directions, not at the refitted ones: a
    # difference of the first order in the errors over the opening.
    large, small = _distance(jets, 1.0), _distance(jets, 1e-3)
    assert np.all(large < 0.1)
    assert np.all(small < 1.5e-3 * large)


@jax.jit
def _toys(jet, keys):
    def one(key):
        noise = jax.random.normal(key, jet["parameters"].shape)
        moved = jet["exact"] + jnp.einsum("nab,nb->na", jet["root"], noise)
        mean = jet["vertex"] + jnp.linalg.solve(
            jet["prior_root"].T, jax.random.normal(jax.random.fold_in(key, 1), (3,))
        )
        toy = jet | {"parameters": moved, "prior_mean": mean}
        fit, tracks = _fit(toy, weight=jet["weight"])
        # The true helices, at the true vertex.
        truth = jax.vmap(perigee_at, (0, None, None))(
            jet["exact"], jet["vertex"], jet["field"]
        )[:, 2:]
        away = fit.position - jet["vertex"]
        miss = (tracks.momentum - truth + jnp.pi) % (2 * jnp.pi) - jnp.pi
        width = jnp.sqrt(jnp.diagonal(tracks.covariance, axis1=1, axis2=2))
        shared = miss[:, None, :] * away[None, :, None] - tracks.vertex_covariance
        size = jnp.sqrt(jnp.diagonal(fit.covariance))
        correlation = shared / width[:, None, :] / size[None, :, None]
        return miss / width, correlation

    return jax.vmap(one)(keys)


def test_pulls_of_the_momenta(jets):
    # Five tracks, wide apart, with weights from 0.2 to 1.
    jet, number = jax.tree.map(lambda x: x[3], jets), 4000
    pulls, excess = _toys(jet, jax.random.split(jax.random.key(5), number))
    pulls, excess = pulls[:, jet["mask"]], excess[:, jet["mask"]]
    # Of 15 numbers each; 3.5 standard errors are exceeded once in 70 times.
    assert np.all(np.abs(pulls.mean(0)) < 3.5 / np.sqrt(number))
    assert np.all(np.abs(pulls.std(0) - 1) < 3.5 / np.sqrt(2 * number))
    # The covariance with the vertex is that of the toys: of 45 numbers.
    error = excess.std(0) / np.sqrt(number)
    assert np.all(np.abs(excess.mean(0)) < 4 * error)


def test_gradient_equals_finite_differences(jets):
    jet = jax.tree.map(lambda x: x[3], jets)

    fitted, _ = _fit(jet)

    def function(shift, stretch, field, position, root):
        fit = dataclasses.replace(
            fitted,
            position=jet["vertex"] + 0.01 * position,
            covariance=1e-4 * root @ root.T,
        )
        covariance = (
            jet["root"]
            @ (jnp.eye(5)[None, :, :] + (stretch + stretch.mT) / 2)
            @ jet["root"].mT
        )
        tracks = refit_tracks(
            jet["parameters"] + jnp.einsum("nab,nb->na", jet["root"], shift),
            covariance,
            jet["mask"],
            jet["field"] * (1 + field),
            fit=fit,
        )
        # Each track on its own.
        leaves = (tracks.momentum, tracks.covariance, tracks.vertex_covariance)
        sizes = (1e3, 1e6, 1e6)
        pairs = zip(leaves, sizes, strict=True)
        return [list(size * leaf[:5]) for leaf, size in pairs]

    slots = jet["mask"].shape[0]
    point = (
        jnp.zeros((slots, 5)),
        jnp.zeros((slots, 5, 5)),
        jnp.zeros(()),
        jnp.zeros(3),
        jnp.eye(3) + 0.2 * jnp.tril(jnp.ones((3, 3))),
    )
    check_gradient(function, point, rtol=1e-7, eps=5e-3, order=8, separately=True)


def test_dead_slots_and_singular_tracks_are_inert(jets):
    jet = jax.tree.map(lambda x: x[5], jets)
    fit, _ = _fit(jet)

    @jax.jit
    def outcome(parameters, covariance, mask):
        def total(parameters, covariance):
            tracks = refit_tracks(parameters, covariance, mask, jet["field"], fit=fit)
            leaves = (tracks.momentum, tracks.covariance, tracks.vertex_covariance)
            return sum(jnp.sum(1e3 * x) for x in leaves), tracks

        run = jax.value_and_grad(total, (0, 1), has_aux=True)
        return run(parameters, covariance)

    parameters, covariance = jet["parameters"], jet["root"] @ jet["root"].mT
    (_, clean), slopes = outcome(parameters, covariance, jet["mask"].at[2].set(False))
    np.testing.assert_array_equal(clean.mask, jet["mask"].at[2].set(False))
    dead = ~np.asarray(clean.mask)
    assert np.all(clean.momentum[dead] == 0)
    assert all(np.all(x[dead] == 0) for x in slopes)
    for value in (jnp.nan, jnp.inf, 1e30, 0.0):
        # One of them alive, with a covariance that is none.
        wrong = jnp.where(dead[:, None, None], value, covariance)
        there = jnp.asarray(dead & ~jet["mask"])
        other = jnp.where(there[:, None], value, parameters)
        found = outcome(other, wrong, jet["mask"])
        wanted = jax.tree.leaves((clean, slopes))
        ours = jax.tree.leaves((found[0][1], found[1]))
        for a, b in zip(wanted, ours, strict=True):
            np.testing.assert_array_equal(a, b)
