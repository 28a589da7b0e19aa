"""HistFactory models: pyhf's workspaces as pytrees, to fit and to differentiate."""

from ._likelihood import (
    HistFactoryLikelihood as HistFactoryLikelihood,
    expected_data as expected_data,
    likelihood as likelihood,
    measure as measure,
    negative_log_likelihood as negative_log_likelihood,
    nominal_auxiliary as nominal_auxiliary,
    observed_data as observed_data,
)
from ._model import (
    HistFactoryData as HistFactoryData,
    HistFactoryModel as HistFactoryModel,
    build_model as build_model,
)
from ._patches import (
    PatchSet as PatchSet,
    apply_patch as apply_patch,
    choose_patch as choose_patch,
    read_patch_set as read_patch_set,
    verify_digest as verify_digest,
)
from ._pulls import Pulls as Pulls, pulls as pulls
from ._replace import with_templates as with_templates
from ._sample import sample_data as sample_data
from ._workspace import Workspace as Workspace, read_workspace as read_workspace
from ._write import write_workspace as write_workspace
