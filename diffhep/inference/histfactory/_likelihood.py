"""The HistFactory likelihood: Poisson bins, Gaussian and Poisson constraints."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ...numerics import matmul, matvec
from .._likelihood import AbstractLikelihood, Derivatives
from .._measurement import Measurement
from ._draw import draw
from ._model import HistFactoryData, HistFactoryModel, require_double
from ._prepare import Prepared, find_places, poisson_strength, prepare
from ._workspace import Workspace
from ._yields import expand, expected_rate, second_derivatives


class HistFactoryLikelihood(AbstractLikelihood):
    """The likelihood of a HistFactory model and its data, for `fit_likelihood`."""

    prepared: Prepared
    """The model, in the form in which it is evaluated."""
    data: HistFactoryData
    """What was observed."""

    def value(self, parameters: Float[Array, " parameters"]) -> Float[Array, ""]:
        """Minus the log-probability of counts and auxiliary data."""
        prepared, data = self.prepared, self.data
        places = find_places(prepared.layout)
        rate = expected_rate(prepared, parameters)
        total = jnp.sum(_poisson(data.counts, rate))
        pull = data.auxiliary[places.normal_slot] - parameters[places.normal]
        pull = pull / prepared.width
        total = total + jnp.sum(pull**2 / 2 + jnp.log(prepared.width))
        total = total + len(places.normal) * jnp.log(2 * jnp.pi) / 2
        events = data.auxiliary[places.poisson_slot]
        mean = prepared.strength * parameters[places.poisson]
        return total + jnp.sum(_poisson(events, mean))

    def change(
        self, new: Float[Array, " parameters"], old: Float[Array, " parameters"]
    ) -> Float[Array, ""]:
        """A difference of two values, from differences of the yields."""
        prepared, data = self.prepared, self.data
        places = find_places(prepared.layout)
        rate = expected_rate(prepared, old)
        step = expected_rate(prepared, new) - rate
        total = jnp.sum(_poisson_change(data.counts, rate, step))
        move = (new - old)[places.normal]
        middle = (new + old)[places.normal] / 2 - data.auxiliary[places.normal_slot]
        total = total + jnp.sum(move * middle / prepared.width**2)
        events = data.auxiliary[places.poisson_slot]
        mean = prepared.strength * old[places.poisson]
        step = prepared.strength * (new - old)[places.poisson]
        return total + jnp.sum(_poisson_change(events, mean, step))

    def derivatives(self, parameters: Float[Array, " parameters"]) -> Derivatives:
        """In closed form."""
        prepared, data = self.prepared, self.data
        places = find_places(prepared.layout)
        expansion = expand(prepared, parameters)
        rate, first, _ = expansion
        ratio = _ratio(data.counts, rate)
        excess = 1 - ratio
        slope = matvec(first, excess)
        hessian = second_derivatives(prepared, expansion, excess)
        hessian = hessian + matmul(first * _ratio(ratio, rate)[None], first.T)
        fisher = matmul(first * _ratio(jnp.ones_like(rate), rate)[None], first.T)
        # Constraints, one for each parameter: what scatters does not depend on these,
        # so that a loop over steps need not do it again.
        where, none = places.normal, jnp.zeros_like(parameters)
        centre = none.at[where].set(data.auxiliary[places.normal_slot])
        weight = none.at[where].set(1 / prepared.width**2)
        where = places.poisson
        events = none.at[where].set(data.auxiliary[places.poisson_slot])
        strength = none.at[where].set(prepared.strength)
        gamma = jnp.where(none.at[where].set(1.0) > 0, parameters, 1.0)
        slope = slope + (parameters - centre) * weight + strength - events / gamma
        observed = weight + events / gamma**2
        expected = weight + strength / gamma
        return Derivatives(
            slope, hessian + jnp.diag(observed), fisher + jnp.diag(expected)
        )

    def asimov(
        self, parameters: Float[Array, " parameters"]
    ) -> "HistFactoryLikelihood":
        """The same model, with what it expects as data."""
        return HistFactoryLikelihood(self.prepared, _asimov(self.prepared, parameters))

    def sample(
        self, parameters: Float[Array, " parameters"], *, key: PRNGKeyArray
    ) -> "HistFactoryLikelihood":
        """The same model, with counts and auxiliary data that are drawn."""
        average = _asimov(self.prepared, parameters)
        return HistFactoryLikelihood(
            self.prepared, draw(self.prepared, average, key=key)
        )


def _poisson(
    count: Float[Array, " bins"], mean: Float[Array, " bins"]
) -> Float[Array, " bins"]:
    # Minus the log-probability, for any real number of events.
    some = count != 0
    log = jnp.log(jnp.where(some, mean, 1.0))
    return mean - jnp.where(some, count * log, 0.0) + jax.lax.lgamma(count + 1)


def _poisson_change(
    count: Float[Array, " bins"],
    mean: Float[Array, " bins"],
    step: Float[Array, " bins"],
) -> Float[Array, " bins"]:
    # A difference of two of those, whose means differ by a step.
    some = count != 0
    relative = jnp.where(some, step, 0.0) / jnp.where(some, mean, 1.0)
    return step - count * jnp.log1p(relative)


def _ratio(
    top: Float[Array, " bins"], bottom: Float[Array, " bins"]
) -> Float[Array, " bins"]:
    # Zero in a bin where nothing is observed, or nothing expected in vain.
    some = (top != 0) & (bottom != 0)
    return jnp.where(some, top / jnp.where(some, bottom, 1.0), 0.0)


def likelihood(model: HistFactoryModel, data: HistFactoryData) -> HistFactoryLikelihood:
    """The likelihood, for `fit_likelihood` and for test statistics.

    Args:
        model: The model.
        data: What was observed.

    Returns:
        The likelihood.
    """
    require_double(data.counts)
    return HistFactoryLikelihood(prepare(model), data)


def measure(model: HistFactoryModel, data: HistFactoryData) -> Measurement:
    """The likelihood, with start, bounds and the parameter of interest.

    Args:
        model: The model.
        data: What was observed.

    Returns:
        The measurement, for fits and hypothesis tests.

    Raises:
        ValueError: The model has no parameter of interest.
    """
    poi = model.layout.poi
    if poi is None:
        raise ValueError(
            "The measurement has no parameter of interest; set 'poi' in the workspace, "
            "or use `likelihood` with `fit_likelihood`."
        )
    return Measurement(
        likelihood(model, data),
        model.start,
        model.lower,
        model.upper,
        model.fixed,
        poi,
        mirror=model.shape_code.kink or model.norm_code.kink,
    )


def negative_log_likelihood(
    model: HistFactoryModel,
    parameters: Float[Array, " parameters"],
    data: HistFactoryData,
) -> Float[Array, ""]:
    """Minus the log-probability of the data, equal to minus pyhf's `logpdf`.

    Args:
        model: The model.
        parameters: The parameters, in the order of `model.names`.
        data: What was observed.

    Returns:
        The negative logarithm, with all constants.
    """
    return likelihood(model, data).value(parameters)


def expected_data(
    model: HistFactoryModel, parameters: Float[Array, " parameters"]
) -> HistFactoryData:
    """The Asimov data: what the average experiment observes.

    Args:
        model: The model.
        parameters: The parameters that are true.

    Returns:
        Expected counts, and expected auxiliary data.
    """
    return _asimov(prepare(model), parameters)


def _asimov(
    prepared: Prepared, parameters: Float[Array, " parameters"]
) -> HistFactoryData:
    places = find_places(prepared.layout)
    auxiliary = jnp.zeros(len(places.normal) + len(places.poisson), parameters.dtype)
    auxiliary = auxiliary.at[places.normal_slot].set(parameters[places.normal])
    events = prepared.strength * parameters[places.poisson]
    auxiliary = auxiliary.at[places.poisson_slot].set(events)
    return HistFactoryData(expected_rate(prepared, parameters), auxiliary)


def nominal_auxiliary(model: HistFactoryModel) -> Float[Array, " auxiliary"]:
    """The auxiliary data as the workspace states them.

    Those of shapesys modifiers are numbers of events, and follow from the templates: a
    derivative to a template goes through them too, unless they are stopped.

    Args:
        model: The model.

    Returns:
        One number for each constrained parameter.
    """
    slot = find_places(model.layout).poisson_slot
    return model.centre.at[slot].set(poisson_strength(model))


def observed_data(workspace: Workspace, model: HistFactoryModel) -> HistFactoryData:
    """The data of a workspace.

    Args:
        workspace: The workspace.
        model: Its model.

    Returns:
        Observed counts, and the model's nominal auxiliary data.
    """
    observed = {x["name"]: x["data"] for x in workspace.content["observations"]}
    counts = [float(x) for name in model.layout.channels for x in observed[name]]
    return HistFactoryData(jnp.asarray(counts), nominal_auxiliary(model))
