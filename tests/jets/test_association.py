import jax
import jax.numpy as jnp
import numpy as np

from diffhep.jets import (
    CompiledEngine,
    add_ghosts,
    cluster,
    ghost_grid,
    jets_from_history,
    nearest_jet,
    separation,
)


def _jets(momentum, mask, *, radius=0.6, num_jets=6):
    settings = {"radius": jnp.asarray(radius), "power": jnp.asarray(-1.0)}
    history = cluster(momentum, mask, **settings, engine=CompiledEngine())
    return jets_from_history(
        history, momentum, mask, num_jets=num_jets, threshold=5.0, width=1.0
    )[0]


def test_nearest_jet(toys):
    momentum, mask, _ = (x[0] for x in toys.events)
    jets = _jets(momentum, mask)
    found = np.asarray(nearest_jet(jets, momentum, mask, max_angle=0.5))
    axes = np.asarray(jets.momentum)[np.asarray(jets.mask)]
    for track, jet in enumerate(found):
        angles = np.asarray(separation(momentum[track][None], jnp.asarray(axes)))
        expected = np.argmin(angles) if angles.min() < 0.5 else -1
        assert jet == expected
    assert (found >= 0).any()
    # Dead tracks, and an event without jets, have none; NaN there does no harm.
    none = nearest_jet(jets, momentum * jnp.nan, mask & False)
    assert (none == -1).all()
    empty = _jets(momentum, mask & False)
    assert (nearest_jet(empty, momentum, mask) == -1).all()


def test_ghosts_change_no_jet_and_join_their_own(toys):
    momentum, mask, _ = toys.events

    def one(momentum, mask):
        # Each constituent's own direction as its ghost.
        both, alive = add_ghosts(momentum, mask, momentum, mask)
        return _jets(momentum, mask), _jets(both, alive)

    alone, together = jax.vmap(one)(momentum, mask)
    slots = mask.shape[1]
    np.testing.assert_allclose(together.momentum, alone.momentum, rtol=1e-12)
    np.testing.assert_array_equal(together.membership[..., :slots], alone.membership)
    np.testing.assert_array_equal(together.membership[..., slots:], alone.membership)


def test_active_area_of_a_lone_hard_jet_is_a_circle():
    # Cacciari, Salam, Soyez, arXiv 0802.1188: pi R^2 for anti-kt.
    momentum = jnp.asarray([[50.0, 0.0, 0.0, 50.1]])
    ghosts = ghost_grid(max_rapidity=1.5, spacing=0.08)
    both, alive = add_ghosts(
        momentum, jnp.ones(1, bool), ghosts, jnp.ones(len(ghosts), bool)
    )
    jets = _jets(both, alive, radius=0.7, num_jets=1)
    share = float(np.mean(np.asarray(jets.membership[0, 1:])))
    area = share * 4 * np.pi * 1.5
    np.testing.assert_allclose(area, np.pi * 0.7**2, rtol=0.03)
