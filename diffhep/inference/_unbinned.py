"""The unbinned, extended likelihood of density ratios."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.lax import stop_gradient
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from ._codes import AbstractCode, AbstractNormCode, Code4, Code4p
from ._likelihood import AbstractLikelihood, Derivatives
from ._mixture import AbstractMixture


class UnbinnedLikelihood(AbstractLikelihood):
    r"""Minus the log-likelihood of events, given the density ratios of each process.

    $$\nu(\theta) - \sum_i w_i \log \sum_k c_k(\mu)\,\nu_k(\alpha)\,r_k(x_i)\,
      \Bigl(1 + \sum_j \delta_{jk}(x_i, \alpha_j)\Bigr)
      + \sum_j (\alpha_j - a_j)^2 / 2$$

    with ratios $r_k = p_k / p_\mathrm{ref}$ to one reference. Each nuisance parameter
    changes rates and densities, of which is given what they are at plus and minus one
    standard deviation (ATLAS, arXiv 2412.01600, section 4). Between and beyond these,
    rates are those of a normsys of HistFactory, and densities, event by event, those of
    a histosys: changes that are added leave a density normalised, whatever the
    parameter. So this is HistFactory's likelihood in the limit of narrow bins. With
    another `shape_code` a product of factors stands in place of the bracket, divided by
    its mean over the process. The parameters are the strength mu, then the nuisance
    parameters in standard deviations. Constants that depend on the reference only are
    left out.
    """

    mixture: AbstractMixture
    """How the processes add up."""
    log_ratios: Float[Array, "processes entries"]
    """Logarithm of the density ratio of each process to the reference, at each event.
    Learnt ones are to be normalised (`normalisation`): what is missing there moves the
    fitted strength."""
    weight: Float[Array, " entries"]
    """How often each event was observed: ones for data."""
    log_rate_up: Float[Array, "nuisances processes"]
    """Logarithm of the factor on the rate at plus one standard deviation."""
    log_rate_down: Float[Array, "nuisances processes"]
    """The same, at minus one."""
    log_density_up: Float[Array, "nuisances processes entries"]
    """Logarithm of the density ratio of each process at plus one standard deviation to
    itself at zero."""
    log_density_down: Float[Array, "nuisances processes entries"]
    """The same, at minus one."""
    auxiliary: Float[Array, " nuisances"]
    """Outcome a of the auxiliary measurement of each nuisance parameter, in standard
    deviations: zeros for data."""
    reference: Float[Array, " entries"] | None = None
    """Share of each event in a sample of the reference, adding up to one. Expectations
    need it, and factors. Data have none: hold both (`sample`)."""
    norm_code: AbstractNormCode = Code4()
    """How rates interpolate."""
    shape_code: AbstractCode = Code4p()
    """How densities interpolate. Changes that are added (`Code4p`, `Code2`, `Parabola`)
    may make a density negative: inside one standard deviation where a variation is a
    factor of 6 or more (`Code4p`: 12), beyond it sooner, and soonest near a zero of an
    amplitude, though not with `Parabola`. Factors are positive (`Code4`: below 25), and
    exact for a Gaussian that moves (`Code4`: beyond one), but worse near such a zero
    (the benchmark `interference`). They are divided by their mean over the `reference`
    at each parameter. Without, they would be normalised at zero and one only, and the
    fitted parameter at one off by up to half a standard deviation, if not anywhere."""

    def __check_init__(self):
        """Raise where shapes do not match, or nothing normalises factors."""
        processes, entries = self.log_ratios.shape
        wanted = (self.mixture.rates.shape[0], self.weight.shape[0])
        if (processes, entries) != wanted:
            raise ValueError(
                f"`log_ratios` has the shape {self.log_ratios.shape}, but there are "
                f"{wanted[0]} rates and {wanted[1]} weights; give one row for each "
                "process and one column for each event."
            )
        if self.reference is None and not self.shape_code.additive:
            raise ValueError(
                f"Factors ({type(self.shape_code).__name__}) are normalised over a "
                "sample of the reference, but there is none; give `reference`, with "
                "simulated events of zero weight beside data, or a code that adds."
            )

    @classmethod
    def without_nuisances(
        cls,
        mixture: AbstractMixture,
        log_ratios: Float[Array, "processes entries"],
        weight: Float[Array, " entries"],
        *,
        reference: Float[Array, " entries"] | None = None,
    ) -> "UnbinnedLikelihood":
        """A likelihood whose only parameter is the strength.

        Args:
            mixture: How the processes add up.
            log_ratios: Logarithm of the density ratio of each process.
            weight: How often each event was observed.
            reference: Share of each event in a sample of the reference.

        Returns:
            The likelihood.
        """
        number, entries = log_ratios.shape
        rate = jnp.zeros((0, number), log_ratios.dtype)
        density = jnp.zeros((0, number, entries), log_ratios.dtype)
        rest = (rate, rate, density, density, rate[:, 0])
        return cls(mixture, log_ratios, weight, *rest, reference)

    def rates(
        self, parameters: Float[Array, " parameters"]
    ) -> Float[Array, " processes"]:
        """Expected number of events of each process, some of which may be negative.

        Args:
            parameters: The strength and the nuisance parameters.

        Returns:
            The numbers.
        """
        up, down = jnp.exp(self.log_rate_up), jnp.exp(self.log_rate_down)
        rates = self.mixture.coefficients(parameters[0]) * self.mixture.rates
        return rates * self.norm_code.combined(up, down, parameters[1:])

    def intensity(
        self, parameters: Float[Array, " parameters"]
    ) -> Float[Array, " entries"]:
        """Expected density of events over that of the reference.

        Args:
            parameters: The strength and the nuisance parameters.

        Returns:
            The intensity at each event. Exact ratios make it positive; learnt ones may
            not, where processes cancel, nor may changes that are added, of many
            standard deviations, or beyond one where a density almost vanishes, nor
            factors where processes cancel: the likelihood is not a number then.
        """
        up, down = jnp.exp(self.log_density_up), jnp.exp(self.log_density_down)
        factor = self.shape_code.combined(up, down, parameters[1:])
        ratios = jnp.exp(self.log_ratios) * factor
        share = self._divided_by
        if share is not None:
            inside = jnp.where(share[None] > 0, ratios, 0.0)
            ratios /= jnp.sum(share[None] * inside, axis=1, keepdims=True)
        return jnp.sum(self.rates(parameters)[:, None] * ratios, axis=0)

    def value(self, parameters: Float[Array, " parameters"]) -> Float[Array, ""]:
        """Minus the log-likelihood."""
        events = self._log_intensity(parameters)
        poisson = jnp.sum(self.rates(parameters)) - jnp.sum(self.weight * events)
        return poisson + jnp.sum((parameters[1:] - self.auxiliary) ** 2) / 2

    def change(
        self,
        new: Float[Array, " parameters"],
        old: Float[Array, " parameters"],
    ) -> Float[Array, ""]:
        """A difference of two values, event by event."""
        events = self._log_intensity(new) - self._log_intensity(old)
        rate = jnp.sum(self.rates(new) - self.rates(old))
        middle = (new + old)[1:] / 2 - self.auxiliary
        constraint = jnp.sum((new - old)[1:] * middle)
        return rate - jnp.sum(self.weight * events) + constraint

    def derivatives(self, parameters: Float[Array, " parameters"]) -> Derivatives:
        """By autodiff; the stand-in is the mean square of the events' slopes."""
        slope = jax.grad(self.value)(parameters)
        hessian = jax.jacfwd(jax.grad(self.value))(parameters)
        slopes = jax.jacfwd(self._log_intensity)(parameters)
        weighted = self.weight[:, None] * slopes
        fisher = jnp.sum(weighted[:, :, None] * slopes[:, None, :], axis=0)
        constrained = jnp.ones_like(parameters).at[0].set(0.0)
        return Derivatives(slope, hessian, fisher + jnp.diag(constrained))

    def asimov(self, parameters: Float[Array, " parameters"]) -> "UnbinnedLikelihood":
        """The normalised one, with what the average experiment would observe."""
        model, reference = self._normalised()
        weight = model.intensity(parameters) * reference
        found = (weight, parameters[1:])
        return eqx.tree_at(lambda x: (x.weight, x.auxiliary), model, found)

    def sample(
        self, parameters: Float[Array, " parameters"], *, key: PRNGKeyArray
    ) -> "UnbinnedLikelihood":
        """The same one, of events drawn from the sample of the reference.

        They are drawn by the normalised densities, as those of `asimov`. Each is
        observed a Poisson-distributed number of times, so that the sample has to be
        much larger than the data. For toys beside observed events, hold both: these
        with a share of zero in the `reference`, simulated ones with a `weight` of zero,
        and all of it `normalised`. Where a learnt intensity is negative, the weight is
        not a number.
        """
        average = self.asimov(parameters)
        mean, auxiliary = stop_gradient((average.weight, average.auxiliary))
        main, normal = jax.random.split(key)
        number = jax.random.poisson(main, jnp.maximum(mean, 0.0)).astype(mean.dtype)
        weight = jnp.where(mean >= 0, number, jnp.nan)
        auxiliary = auxiliary + jax.random.normal(
            normal, auxiliary.shape, auxiliary.dtype
        )
        found = (weight, auxiliary)
        return eqx.tree_at(lambda x: (x.weight, x.auxiliary), self, found)

    def normalised(self) -> "UnbinnedLikelihood":
        """The same with densities that add up to one over the reference's sample.

        Only then is the truth where the likelihood of the average experiment is the
        greatest.

        Returns:
            The likelihood.

        Raises:
            ValueError: There is no reference.
        """
        return self._normalised()[0]

    def _normalised(self) -> tuple["UnbinnedLikelihood", Float[Array, " entries"]]:
        if self.reference is None:
            raise ValueError(
                "The events have no shares in a sample of the reference; give "
                "`reference`, with simulated events in place of data."
            )
        held = self.reference > 0
        share = jnp.log(jnp.where(held, self.reference, 1.0))

        def total(log_density: Float[Array, "*shape entries"]) -> Array:
            weighted = log_density + jnp.broadcast_to(share, log_density.shape)
            among = jnp.broadcast_to(held, log_density.shape)
            return jax.nn.logsumexp(weighted, axis=-1, keepdims=True, where=among)

        # Slots that are neither observed nor simulated may hold anything.
        log_ratios, *changes = self._where(held | (self.weight != 0))
        ratios = log_ratios - total(log_ratios)
        # Not by differences of logarithms, which may be infinite.
        up, down = (x - total(ratios[None] + x) for x in changes)
        return eqx.tree_at(_tables, self, (ratios, up, down)), self.reference

    def _where(self, known: Bool[Array, " entries"]) -> list[Array]:
        # The tables, with zeros where nothing is known.
        return [
            jnp.where(jnp.broadcast_to(known, x.shape), x, 0.0) for x in _tables(self)
        ]

    @property
    def _divided_by(self) -> Float[Array, " entries"] | None:
        # Shares of the sample over which densities are normalised at each parameter.
        return None if self.shape_code.additive else self.reference

    def _log_intensity(
        self, parameters: Float[Array, " parameters"]
    ) -> Float[Array, " entries"]:
        # Events that were not observed may hold anything, but not those of the sample
        # that densities are normalised with.
        seen = held = self.weight != 0
        if self._divided_by is not None:
            held = seen | (self._divided_by > 0)
        safe = eqx.tree_at(_tables, self, self._where(held))
        intensity = safe.intensity(parameters)
        return jnp.log(jnp.where(seen, intensity, 1.0))


def _tables(likelihood: UnbinnedLikelihood) -> tuple[Any, Any, Any]:
    # What is known of each event.
    x = likelihood
    return x.log_ratios, x.log_density_up, x.log_density_down
