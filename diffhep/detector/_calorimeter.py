import jax.numpy as jnp
from jaxtyping import Array, Float


def smear_energy(
    energy: Float[Array, ""],
    stochastic: Float[Array, ""],
    constant: Float[Array, ""],
    noise: Float[Array, ""],
) -> Float[Array, ""]:
    r"""The energy that a calorimeter measures.

    Log-normal of mean `energy` and relative width $\sigma/E = a/\sqrt{E} \oplus c$: the
    same as the usual Gaussian where that is narrow, and positive where it is not.

    Args:
        energy: True energy, positive, in GeV.
        stochastic: The term $a$, in sqrt(GeV), positive.
        constant: The term $c$.
        noise: A standard normal number.

    Returns:
        The measured energy, in GeV.
    """
    # The logarithm has this variance if the relative variance is the argument.
    variance = jnp.log1p(stochastic**2 / energy + constant**2)
    return energy * jnp.exp(jnp.sqrt(variance) * noise - variance / 2)
