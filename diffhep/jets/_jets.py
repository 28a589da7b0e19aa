import math

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
    holder = jet_of_each(history, mask)
    sums = jnp.zeros_like(momentum).at[holder].add(momentum)
    exists = mask & (holder == number)
    # Which ones are the hardest is an integer: there is no gradient to drop.
    pt = jnp.where(exists, safe_norm(stop_gradient(sums)[:, :2]), -1.0)
    hardest, place = jax.lax.top_k(pt, min(num_jets, slots))
    missing = (0, num_jets - place.shape[0])
    alive = jnp.pad(hardest >= 0, missing)
    member = jnp.pad(place.astype(number.dtype), missing)[:, None] == holder[None]
    member &= mask[None] & alive[:, None]

    total = jnp.pad(sums[place], (missing, (0, 0)))
    total = jnp.where(alive[:, None], total, 0.0)
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
    slots = jnp.arange(mask.shape[0], dtype=history.keep.dtype)
    # Where each slot went, if anywhere; then twice as far in each round.
    gone = jnp.where(history.take >= 0, history.take, mask.shape[0])
    holder = slots.at[gone].set(history.keep, mode="drop")
    for _ in range(math.ceil(math.log2(max(mask.shape[0], 2)))):
        holder = holder[holder]
    return holder
