"""Stages, the pipeline that they make, replicas, and the sample that comes out."""

from ._pipeline import Pipeline as Pipeline
from ._replicate import Replicate as Replicate
from ._run import map_events as map_events, run as run
from ._sample import Sample as Sample, weighted_mean as weighted_mean
from ._stage import AbstractStage as AbstractStage
