"""Toy experiments."""

from jaxtyping import Array, Float, PRNGKeyArray

from ._draw import draw
from ._likelihood import expected_data
from ._model import HistFactoryData, HistFactoryModel
from ._prepare import prepare


def sample_data(
    model: HistFactoryModel,
    parameters: Float[Array, " parameters"],
    *,
    key: PRNGKeyArray,
) -> HistFactoryData:
    """One random experiment: counts and auxiliary data.

    No gradient flows through the draws.

    Args:
        model: The model.
        parameters: The parameters that are true.
        key: Random key.

    Returns:
        The data.
    """
    return draw(prepare(model), expected_data(model, parameters), key=key)
