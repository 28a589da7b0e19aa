"""All derivatives of the fit, on jets, against finite differences and each other."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
import pytest

from diffhep.testing import check_gradient
from diffhep.vertexing import AdaptiveWeights, fit_vertex


ADAPTIVE_ONLY = {"temperature", "cutoff"}
UNROLLED = optx.RecursiveCheckpointAdjoint()


def _knobs(jets):
    """Everything that a fit depends on, in units in which much depends on all."""
    number, slots = jets["weight"].shape
    return {
        "parameters": jnp.zeros((number, slots, 5)),
        "covariance": jnp.zeros((number, slots, 5, 5)),
        "weight": jnp.zeros((number, slots)),
        "field": jnp.zeros(number),
        "prior_mean": jnp.zeros((number, 3)),
        "prior_precision": jnp.zeros((number, 3, 3)),
        "temperature": jnp.zeros(number),
        "cutoff": jnp.zeros(number),
    }


def _stretched(root, stretch):
    # Symmetric and positive definite whatever small stretch.
    eye = jnp.broadcast_to(jnp.eye(root.shape[-1]), root.shape)
    return root @ (eye + (stretch + stretch.mT) / 2) @ root.mT


def _fit(knobs, jet, *, adaptive, adjoint=None):
    temperature = jet["temperature"] * (1 + 3 * knobs["temperature"])
    weights = AdaptiveWeights(temperature, jet["cutoff"] * (1 + knobs["cutoff"]))
    shift = jnp.einsum("nab,nb->na", jet["root"], knobs["parameters"])
    return fit_vertex(
        jet["parameters"] + shift,
        _stretched(jet["root"], knobs["covariance"]) + jet["dirt"],
        jet["weight"] + 0.3 * knobs["weight"],
        jet["mask"],
        jet["field"] * (1 + 10 * knobs["field"]),
        prior_mean=jet["prior_mean"] + 100 * knobs["prior_mean"],
        prior_precision=_stretched(jet["prior_root"], 3 * knobs["prior_precision"]),
        start=jet["prior_mean"],
        adaptive=weights if adaptive else None,
        # Many, for the unrolled derivative converges like the solution.
        num_steps=12 if adaptive else 20,
        adjoint=adjoint,
    )


def _outputs(knobs, jets, *, adaptive, adjoint=None):
    """For each jet what was fitted, in units of its size."""

    def one(knobs, jet):
        fit = _fit(knobs, jet, adaptive=adaptive, adjoint=adjoint)
        return {
            "position": (fit.position - jet["vertex"]) / jet["scale"],
            "covariance": fit.covariance / jet["scale"] ** 2,
            "chi2": fit.chi2,
            "ndf": fit.ndf,
            "weight": fit.weight,
        }

    return jax.vmap(one)(knobs, jets)


def _scalar(knobs, jets, *, adaptive, adjoint=None, leave=()):
    outputs = _outputs(knobs, jets, adaptive=adaptive, adjoint=adjoint)
    outputs = {name: x for name, x in outputs.items() if name not in leave}
    flat = jnp.concatenate(
        [jnp.reshape(x, (x.shape[0], -1)) for x in jax.tree.leaves(outputs)], axis=1
    )
    return jnp.sum(jnp.sin(flat + jnp.arange(1.0 * flat.shape[1])[None, :]))


value_and_grad = jax.jit(
    jax.value_and_grad(_scalar), static_argnames=("adaptive", "adjoint")
)


@pytest.mark.parametrize("adaptive", [False, True])
def test_each_first_derivative_equals_finite_differences(jets, adaptive):
    knobs = _knobs(jets)
    names = [name for name in knobs if adaptive or name not in ADAPTIVE_ONLY]

    def function(*values):
        moved = knobs | dict(zip(names, values, strict=True))
        outputs = _outputs(moved, jets, adaptive=adaptive)
        # Each jet on its own: the derivatives of narrow ones are the largest.
        return {k: list(v) for k, v in outputs.items()}

    point = tuple(knobs[name] for name in names)
    check_gradient(
        function,
        point,
        rtol=1e-7,
        # Weights that adapt change over a shorter way.
        eps=5e-3 if adaptive else 1e-2,
        order=8,
        # The covariance of two tracks at 10 mrad: 2e4 (the smallest bound has 100).
        condition=5e2,
        num_directions=1,
        # Each mode is a compilation. Reverse mode without adaptive weights is compared
        # with the unrolled derivative below.
        reverse=adaptive,
        separately=True,
    )


@pytest.mark.parametrize("adaptive", [False, True])
def test_implicit_equals_unrolled(jets, adaptive):
    knobs = _knobs(jets)
    _, implicit = value_and_grad(knobs, jets, adaptive=adaptive)
    _, unrolled = value_and_grad(knobs, jets, adaptive=adaptive, adjoint=UNROLLED)
    for name in knobs:
        if name in ADAPTIVE_ONLY and not adaptive:
            continue
        ours, theirs = implicit[name], unrolled[name]
        # Per jet.
        scale = np.abs(theirs).max(tuple(range(1, theirs.ndim)), keepdims=True)
        assert np.all(scale > 0), f"nothing depends on {name}"
        worst = np.max(np.abs(ours - theirs) / scale)
        assert worst < 1e-9, name


def test_second_derivatives_equal_finite_differences_of_the_gradient(jets):
    # Without the covariance: half of the compilation.
    scalar = functools.partial(_scalar, adaptive=True, leave=("covariance", "ndf"))

    def gradient(knobs):
        return jax.grad(scalar)(knobs, jets)

    check_gradient(
        gradient,
        (_knobs(jets),),
        rtol=1e-6,
        eps=1e-3,
        order=8,
        num_directions=2,
        reverse=False,
    )


@pytest.mark.parametrize("adaptive", [False, True])
def test_padding_is_inert(jets, adaptive):
    def poisoned(value):
        dirty = dict(jets)
        for name in ("parameters", "dirt", "weight"):
            alive = jnp.reshape(
                jets["mask"], jets["mask"].shape + (1,) * (jets[name].ndim - 2)
            )
            dirty[name] = jnp.where(alive, jets[name], value)
        return value_and_grad(_knobs(jets), dirty, adaptive=adaptive)

    clean = poisoned(0.0)
    for name in ("parameters", "covariance", "weight"):
        assert np.all(np.asarray(clean[1][name])[~jets["mask"]] == 0)
    for value in (jnp.nan, jnp.inf, 1e30):
        dirty = poisoned(value)
        for a, b in zip(jax.tree.leaves(clean), jax.tree.leaves(dirty), strict=True):
            np.testing.assert_array_equal(a, b)
