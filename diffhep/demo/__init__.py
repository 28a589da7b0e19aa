"""The main job: all stages composed, checked, optimised and reported."""

from ._check import (
    FixedRow as FixedRow,
    FreeRow as FreeRow,
    check_fixed as check_fixed,
    check_free as check_free,
)
from ._commands import (
    check_gradient_command as check_gradient_command,
    demo_command as demo_command,
    generate_command as generate_command,
)
from ._config import DemoConfig as DemoConfig, read_config as read_config
from ._forward import reconstruct as reconstruct
from ._measure import measure as measure, measure_hard as measure_hard
from ._pipeline import KEEP as KEEP, build_pipeline as build_pipeline
from ._probes import PROBES as PROBES, Probe as Probe
from ._runtime import (
    QUICK_COMPILATION as QUICK_COMPILATION,
    cache_folder as cache_folder,
    configure_jax as configure_jax,
    device_mesh as device_mesh,
)
from ._variants import (
    with_estimator as with_estimator,
    without_replicas as without_replicas,
)
