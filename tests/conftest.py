"""Set-up of the whole suite: what is checked here is on in every test.

Strict settings belong to the tests and not to the library, which never touches
`jax.config`: a user may run in either precision and promote as they like.
"""

import gc
import os
import pathlib

import jax
import jaxtyping
import pytest


# Half of the suite's time is compilation; these flags make it shorter, on a CPU.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_cpu_use_fusion_emitters=false --xla_backend_optimization_level=1",
)

# Before anything of diffhep is imported: the hook rewrites modules as they load, so
# that each call in each test is checked against its annotations.
jaxtyping.install_import_hook("diffhep", "beartype.beartype")

_ROOT = pathlib.Path(__file__).parent.parent

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update(
    "jax_compilation_cache_dir",
    os.environ.get("DIFFHEP_TEST_CACHE", str(_ROOT / ".jax_cache")),
)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)

# Each compiled program holds some memory mappings until it is forgotten, and beyond
# Linux's limit on these (vm.max_map_count, 65,530 unless raised) XLA crashes. A worker
# that remembered all that it ran had 50,000, and 8 GB, before the end of the suite.
_MAX_MAPPINGS = 20_000
_MAPPINGS = pathlib.Path("/proc/self/maps")


@pytest.fixture(scope="module", autouse=True)
def forget_programs():
    """Forgets the compiled programs after a file's tests when there are very many."""
    yield
    if not _MAPPINGS.exists():  # not Linux
        return
    if len(_MAPPINGS.read_bytes().splitlines()) > _MAX_MAPPINGS:
        jax.clear_caches()
        gc.collect()


@pytest.fixture(params=["float32", "float64"])
def precision(request):
    """Runs the test twice, and names the floating-point type that is in force."""
    with jax.enable_x64(request.param == "float64"):
        yield request.param
