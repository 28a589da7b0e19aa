"""Events: Pythia 8 collisions through a cache of Parquet files, and fast toys."""

from ._config import (
    GeneratorConfig as GeneratorConfig,
    Process as Process,
    z_jets as z_jets,
    zh_nunubb as zh_nunubb,
)
from ._dataset import (
    Dataset as Dataset,
    Stratum as Stratum,
)
from ._generate import generate_events as generate_events
from ._load import (
    load_events as load_events,
    propose_capacity as propose_capacity,
)
from ._overrides import (
    override_config as override_config,
    parse_overrides as parse_overrides,
    read_config as read_config,
)
from ._split import (
    sort_by_multiplicity as sort_by_multiplicity,
    split_halves as split_halves,
    thin_strata as thin_strata,
)
from ._store import (
    dataset_folder as dataset_folder,
    default_cache as default_cache,
)
from ._toy import toy_events as toy_events
