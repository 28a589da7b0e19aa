"""The same pipeline, with its choices made in another way."""

from typing import Any

import jax

from ..estimators import AbstractSampler
from ..pipeline import AbstractStage, Pipeline, Replicate


def with_estimator(pipeline: Pipeline, estimator: AbstractSampler) -> Pipeline:
    """The pipeline with another estimator for every discrete choice.

    Args:
        pipeline: Any pipeline.
        estimator: How gradients shall cross the choices.

    Returns:
        A pipeline with the same parameters.
    """

    def is_estimator(x: Any) -> bool:
        return isinstance(x, AbstractSampler)

    return jax.tree.map(
        lambda x: estimator if is_estimator(x) else x, pipeline, is_leaf=is_estimator
    )


def without_replicas(pipeline: Pipeline, *, inputs: tuple[str, ...] = ()) -> Pipeline:
    """The pipeline with each choice made once.

    Args:
        pipeline: A pipeline, with replicas perhaps.
        inputs: Further fields that the events bring.

    Returns:
        A pipeline of the same stages.
    """
    return Pipeline(_flatten(pipeline), inputs=pipeline.inputs | set(inputs))


def _flatten(pipeline: Pipeline) -> list[AbstractStage]:
    return [stage for _, stage in pipeline.walk() if not isinstance(stage, Replicate)]
