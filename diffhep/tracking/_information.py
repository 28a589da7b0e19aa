r"""What the hits of a track say about its parameters: an information filter.

The hits are $m_j = h_j + H_j(\delta + \sum_{k<j} G_k\varepsilon_k) + \text{noise}$ with
independent standard normal kicks $\varepsilon$. Since the state is the helix itself,
described at the perigee, it stays the same between the layers. Layer by layer from the
outside in, the information about it loses what a kick blurs and gains what a hit tells:
the Kalman filter in information form, which needs no start. It costs O(layers) where
the covariance of the hits costs O(layers^3).
"""

import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Float

from ..numerics import inverse_spd, matmul


class LinearTrack(eqx.Module):
    """A track's hits as linear functions of its parameters, in the order of flight."""

    rows: Float[Array, "layers 2 6"]
    """Derivative of the hits to the parameters, and measured minus predicted."""
    kicks: Float[Array, "layers 5 kicks"]
    """Change of the parameters for kicks of one standard deviation at the layer."""
    weight: Float[Array, "layers 2"]
    """Inverse variance of the measurements; zero where there is no hit."""


@jax.custom_jvp
def information(track: LinearTrack) -> Float[Array, "6 6"]:
    r"""The quadratic form $\min_\varepsilon\chi^2$ of all hits.

    Args:
        track: The hits.

    Returns:
        $(H, r)^T C^{-1} (H, r)$ with the covariance $C$ of the hits: the information
        matrix; in the last column $H^T C^{-1} r$; and last $r^T C^{-1} r$.
    """
    total, _ = jax.lax.scan(
        lambda form, layer: (_inwards(form, layer)[0], None),
        *_start(track),
        reverse=True,
    )
    return total


def states_at_layers(
    track: LinearTrack, prior: Float[Array, "6 6"] | None = None
) -> Float[Array, "layers 6 6"]:
    """What all hits say about the track as it arrives at each layer.

    Args:
        track: The hits.
        prior: What is known of it at its perigee; nothing unless given.

    Returns:
        The quadratic forms: information from further in, from the layer, and from
        further out through its kicks.
    """
    start, layers = _start(track)

    def inwards(form, layer):
        blurred, _ = _inwards(form, layer)
        return blurred, blurred

    def outwards(form, layer):
        kicks, told = layer
        return _blur(form + told, kicks)[0], form

    _, outer = jax.lax.scan(inwards, start, layers, reverse=True)
    _, inner = jax.lax.scan(outwards, start if prior is None else prior, layers)
    return inner + outer


def _start(
    track: LinearTrack,
) -> tuple[
    Float[Array, "6 6"],
    tuple[Float[Array, "layers 5 kicks"], Float[Array, "layers 6 6"]],
]:
    # No information; and of each layer the kicks, and what its hit alone tells.
    told = jax.vmap(lambda h, w: _outer(h, w[:, None] * h))(track.rows, track.weight)
    return jnp.zeros_like(told[0]), (track.kicks, told)


def _outer(
    left: Float[Array, "rows 6"], right: Float[Array, "rows 6"]
) -> Float[Array, "6 6"]:
    # The sum of two or three dyads: that many operations are faster than a product.
    terms = [
        a[:, None] * b[None, :]
        for a, b in ((left[k], right[k]) for k in range(left.shape[0]))
    ]
    return functools.reduce(jnp.add, terms)


def _inwards(
    form: Float[Array, "6 6"],
    layer: tuple[Float[Array, "5 kicks"], Float[Array, "6 6"]],
) -> tuple[Float[Array, "6 6"], Float[Array, "kicks 6"]]:
    kicks, told = layer
    blurred, gain = _blur(form, kicks)
    return blurred + told, gain


def _blur(
    form: Float[Array, "6 6"], kicks: Float[Array, "5 kicks"]
) -> tuple[Float[Array, "6 6"], Float[Array, "kicks 6"]]:
    # The minimum over the kicks of one layer, and minus where it is per state.
    lever = matmul(kicks.T, form[:5])
    identity = jnp.eye(kicks.shape[1], dtype=form.dtype)
    gain = matmul(inverse_spd(matmul(lever[:, :5], kicks) + identity), lever)
    return form - _outer(lever, gain), gain


class Response(eqx.Module):
    """What the derivative of `information` needs: the best kicks, and their pull.

    By the envelope theorem the best kicks' own change does not matter. All is then a
    sum over layers, and no loop is differentiated.
    """

    form: Float[Array, "6 6"]
    """The information itself."""
    state: Float[Array, "layers 6 6"]
    """The track at the layer with the kicks before, per state at the perigee."""
    best: Float[Array, "layers kicks 6"]
    """Minus the best kicks."""
    deviation: Float[Array, "layers 2 6"]
    """Measured minus predicted after the kicks."""
    pull: Float[Array, "layers 2 6"]
    """The same times the weight."""
    push: Float[Array, "layers 5 6"]
    """Derivative of half the hits' chi-squared to the track behind the layer."""


def respond(track: LinearTrack) -> Response:
    """The information with all that its derivative needs.

    Args:
        track: The hits.

    Returns:
        The response.
    """
    start, layers = _start(track)

    def inwards(form, layer):
        blurred, gain = _inwards(form, layer)
        return blurred, (form, gain)

    def outwards(state, layer):
        kicks, gain = layer
        best = matmul(gain, state)
        after = jnp.concatenate([state[:5] - matmul(kicks, best), state[5:]])
        return after, (state, after, best)

    form, (outer, gain) = jax.lax.scan(inwards, start, layers, reverse=True)
    identity = jnp.eye(6, dtype=form.dtype)
    _, (state, after, best) = jax.lax.scan(outwards, identity, (track.kicks, gain))
    deviation = _product(track.rows, state)
    return Response(
        form=form,
        state=state,
        best=best,
        deviation=deviation,
        pull=track.weight[:, :, None] * deviation,
        push=_product(outer[:, :5], after),
    )


def change(response: Response, tangent: Any) -> Float[Array, "6 6"]:
    """The change of the information with the hits.

    Args:
        response: The response.
        tangent: Change of the `LinearTrack`; `SymbolicZero` where there is none.

    Returns:
        Change of the quadratic form.
    """
    total = jnp.zeros_like(response.form)
    if not _is_zero(tangent.rows):
        total = change_by_rows(response, tangent.rows)
    if not _is_zero(tangent.kicks):
        half = _contract(response.push, _product(tangent.kicks, response.best))
        total = total - half - half.T
    if not _is_zero(tangent.weight):
        weighted = tangent.weight[:, :, None] * response.deviation
        total = total + _contract(response.deviation, weighted)
    return total


def change_by_rows(
    response: Response, rows: Float[Array, "layers 2 6"]
) -> Float[Array, "6 6"]:
    """The same for a change of the rows alone.

    Args:
        response: The response.
        rows: Change of the rows.

    Returns:
        Change of the quadratic form.
    """
    half = _contract(response.pull, _product(rows, response.state))
    return half + half.T


@functools.partial(information.defjvp, symbolic_zeros=True)
def _information_jvp(
    primals: tuple[LinearTrack], tangents: tuple[Any]
) -> tuple[Float[Array, "6 6"], Float[Array, "6 6"]]:
    response = respond(primals[0])
    return response.form, change(response, tangents[0])


def _is_zero(tangent: Any) -> bool:
    return isinstance(tangent, SymbolicZero)


def _product(
    left: Float[Array, "layers rows inner"], right: Float[Array, "layers inner columns"]
) -> Float[Array, "layers rows columns"]:
    return jax.vmap(matmul)(left, right)


def _contract(
    left: Float[Array, "layers rows inner"], right: Float[Array, "layers rows columns"]
) -> Float[Array, "inner columns"]:
    # The sum over layers and rows.
    return matmul(
        jnp.reshape(left, (-1, left.shape[2])).T,
        jnp.reshape(right, (-1, right.shape[2])),
    )
