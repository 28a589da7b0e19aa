import jax
import jax.numpy as jnp
from jax.lax import stop_gradient
from jaxtyping import Array, Bool, Float, Int

from ..event import Jets, MergeHistory
from ..numerics import safe_norm, sanitise, smooth_step


def jets_from_history(
    history: MergeHistory,
    momentum: Float[Array, "constituents 4"],
    mask: Bool[Array, " constituents"],
    *,
    num_jets: int,
    threshold: float,
    width: float,
) -> tuple[Jets, Bool[Array, ""]]:
    """The hardest jets of a clustering, and whether some were left out.

    The momenta are sums over constituents (the E-scheme) and pathwise in theirs. The
    weight is exactly zero up to the threshold, so that a jet comes and goes without a
    step, and which jets fill the slots does not matter unless too many lie above it.

    Args:
        history: Which pseudojets merged.
        momentum: Four-momenta (px, py, pz, E), in GeV. Dead slots may hold anything.
        mask: Which slots hold a constituent.
        num_jets: Jet slots.
        threshold: Transverse momentum up to which a jet has no weight, in GeV.
        width: A jet has full weight from the threshold plus this on, in GeV.

    Returns:
        The jets, by falling transverse momentum; and whether more jets than there are
        slots exceed the threshold.
    """
    slots = mask.shape[0]
    number = jnp.arange(slots, dtype=history.keep.dtype)
    momentum = sanitise(momentum, mask)
    # The hardest jets and who is in them: integers, so there is no gradient to drop.
    holder = jet_of_each(history, mask)
    inside = (holder[None] == number[:, None]) & mask[None]
    transverse = stop_gradient(momentum[:, :2]).T
    sums = jnp.sum(jnp.where(inside[None], transverse[:, None], 0.0), axis=2)
    exists = mask & (holder == number)
    pt = jnp.where(exists, safe_norm(sums.T), -1.0)
    hardest, place = jax.lax.top_k(pt, min(num_jets, slots))
    missing = (0, num_jets - place.shape[0])
    alive = jnp.pad(hardest >= 0, missing)
    member = jnp.pad(place.astype(number.dtype), missing)[:, None] == holder[None]
    member &= mask[None] & alive[:, None]

    total = jnp.sum(jnp.where(member[:, :, None], momentum[None], 0.0), axis=1)
    weight = smooth_step((safe_norm(total[:, :2]) - threshold) / width)
    weight = jnp.where(alive, weight, 0.0)
    overflow = jnp.sum(pt > threshold, dtype=number.dtype) > num_jets
    return Jets(total, member, weight, alive), overflow


def jet_of_each(
    history: MergeHistory, mask: Bool[Array, " constituents"]
) -> Int[Array, " constituents"]:
    """The last slot that each constituent was in: it names the jet.

    Args:
        history: Which pseudojets merged.
        mask: Which slots hold a constituent.

    Returns:
        The slots; those of dead constituents mean nothing.
    """

    def step(
        holder: Int[Array, " constituents"], merge: tuple[Array, Array]
    ) -> tuple[Int[Array, " constituents"], None]:
        keep, take = merge
        return jnp.where(holder == take, keep, holder), None

    start = jnp.arange(mask.shape[0], dtype=history.keep.dtype)
    merges = (history.keep, history.take)
    return jax.lax.scan(step, start, merges, unroll=8)[0]
