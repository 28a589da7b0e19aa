import os
from pathlib import Path

import jax
from jax.sharding import AxisType, Mesh


def cache_folder(cache: Path | None) -> Path:
    """The folder of everything that can be computed again.

    Args:
        cache: The user's choice, which wins.

    Returns:
        That, or `$DIFFHEP_CACHE`, or `diffhep` in `$XDG_CACHE_HOME` or `~/.cache`.
    """
    if cache is not None:
        return cache
    if chosen := os.environ.get("DIFFHEP_CACHE"):
        return Path(chosen)
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "diffhep"


def configure_jax(cache: Path | None) -> None:
    """Set up JAX for a command: float64, one device per core, compiled code kept.

    Args:
        cache: The cache folder, or None for the default.
    """
    jax.config.update("jax_enable_x64", True)
    # XLA runs a small program on one core; one device per core uses them all.
    jax.config.update("jax_num_cpu_devices", os.cpu_count() or 1)
    folder = cache_folder(cache) / "compiled"
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)


def device_mesh() -> Mesh:
    """All devices, along one axis named `events`."""
    devices = jax.devices()
    return jax.make_mesh((len(devices),), ("events",), axis_types=(AxisType.Auto,))
