"""Each part of the contract has a broken stage that must fail it."""

from typing import ClassVar

import jax
import jax.numpy as jnp
import pytest
from jaxtyping import Array, Float

from diffhep.estimators import Gradient
from diffhep.event import Event
from diffhep.generator import toy_events
from diffhep.numerics import masked_sum, sanitise
from diffhep.pipeline import AbstractStage
from diffhep.testing import check_equivariant, check_stage


KEY = jax.random.key(1)
EVENTS = toy_events(2, capacity=8, key=jax.random.key(0))


class _Toy(AbstractStage):
    """The missing momentum, scaled; the tests below break it in one way each."""

    scale: Float[Array, ""]
    fault: str = "none"
    reads: ClassVar[frozenset[str]] = frozenset({"particles"})
    writes: ClassVar[frozenset[str]] = frozenset({"missing_momentum"})

    @property
    def gradient(self):
        return Gradient.EXACT

    def __call__(self, event: Event, *, key) -> Event:
        particles = sanitise(event.particles, event.particles.mask)
        total = -self.scale * masked_sum(particles.momentum, particles.mask)[:2]
        return FAULTS[self.fault](self, event, total, key)


def _write(event, total):
    return event.replace(missing_momentum=total)


CALLS = []


def _impure(stage, event, total, key):
    CALLS.append(None)
    return _write(event, total * len(CALLS))


def _raw(event):
    return event.particles.momentum[:, 0]


FAULTS = {
    "none": lambda s, e, t, k: _write(e, t),
    "reads more": lambda s, e, t, k: _write(e, t + e.tracks.chi2[0]),
    "writes nothing": lambda s, e, t, k: e,
    "writes more": lambda s, e, t, k: _write(e, t).replace(label=t[0]),
    "changes index": lambda s, e, t, k: _write(e, t).replace(index=e.index + 1),
    "impure": _impure,
    "padding in value": lambda s, e, t, k: _write(e, t + jnp.sum(_raw(e))),
    "padding in gradient": lambda s, e, t, k: _write(
        e, t + jnp.sum(jnp.where(e.particles.mask, jnp.abs(_raw(e)) ** 1.5, 0.0))
    ),
    "infinite gradient": lambda s, e, t, k: _write(
        e, t + jnp.sqrt(jnp.abs(s.scale - jax.lax.stop_gradient(s.scale)))
    ),
    "dropped gradient": lambda s, e, t, k: _write(e, jax.lax.stop_gradient(t)),
    "single precision": lambda s, e, t, k: _write(
        e, jnp.where(t > 0, t, t * (1 if t.dtype == jnp.float64 else jnp.nan))
    ),
}


def test_good_stage_passes():
    check_stage(_Toy(jnp.asarray(1.5)), EVENTS, key=KEY)
    one = jax.tree.map(lambda x: x[0], EVENTS)
    check_equivariant(_Toy(jnp.asarray(1.5)), one, key=KEY, rtol=1e-12)


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ("reads more", "fails with only the declared"),
        ("writes nothing", "leaves it empty"),
        ("writes more", "changes 'label'"),
        ("changes index", "changes 'index'"),
        ("impure", "differs from eager"),
        ("padding in value", "changes what _Toy writes"),
        ("padding in gradient", "gradient"),
        ("infinite gradient", "not finite"),
        ("dropped gradient", "promises an exact gradient"),
        ("single precision", "float32 is not finite"),
    ],
)
def test_broken_stage_fails(fault, sentence):
    with pytest.raises(AssertionError, match=sentence):
        check_stage(_Toy(jnp.asarray(1.5), fault), EVENTS, key=KEY)


def test_undeclared_gradient_fails():
    class Silent(AbstractStage):
        reads: ClassVar[frozenset[str]] = frozenset({"particles"})
        writes: ClassVar[frozenset[str]] = frozenset()
        gradient: ClassVar[str] = "exact"

        def __call__(self, event, *, key):
            return event

    with pytest.raises(AssertionError, match="is no `Gradient`"):
        check_stage(Silent(), EVENTS, key=KEY)


def test_order_dependence_fails():
    class First(AbstractStage):
        reads: ClassVar[frozenset[str]] = frozenset({"particles"})
        writes: ClassVar[frozenset[str]] = frozenset({"missing_momentum"})
        gradient: ClassVar[Gradient] = Gradient.EXACT

        def __call__(self, event, *, key):
            return event.replace(missing_momentum=event.particles.momentum[0, :2])

    one = jax.tree.map(lambda x: x[0], EVENTS)
    with pytest.raises(AssertionError, match="order of the particle slots"):
        check_equivariant(First(), one, key=KEY)


def test_user_errors():
    stage = _Toy(jnp.asarray(1.0))
    labels = EVENTS.keep("label")
    with pytest.raises(ValueError, match="a batch of at least two"):
        check_stage(stage, jax.tree.map(lambda x: x[:1], EVENTS), key=KEY)
    with pytest.raises(ValueError, match="which the events lack"):
        check_stage(stage, labels, key=KEY)
    with pytest.raises(ValueError, match="nothing to permute"):
        check_equivariant(stage, labels, key=KEY)
