"""Results that outlive a command, so that the second run is quick."""

import hashlib
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np


_Result = TypeVar("_Result")


def kept(path: Path, make: Callable[[], _Result]) -> _Result:
    """A result from a file, or made anew and written to it.

    Args:
        path: The file. It belongs to us: what cannot be read is made anew.
        make: Makes the result, a tree of arrays and plain numbers.

    Returns:
        The result.
    """
    try:
        return _with_arrays(pickle.loads(path.read_bytes()))
    # Missing, damaged, or from another version: a pickle may raise anything.
    except Exception:
        pass
    result = make()
    plain = jax.tree.map(lambda x: np.asarray(x) if eqx.is_array(x) else x, result)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(pickle.dumps(plain))
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    # As it will come from the file: JAX sorts the names in a dictionary.
    return _with_arrays(plain)


def _with_arrays(tree: _Result) -> _Result:
    return jax.tree.map(
        lambda x: jnp.asarray(x) if isinstance(x, np.ndarray) else x, tree
    )


def hash_code() -> str:
    """What distinguishes this state of the package's code from others."""
    package = Path(__file__).parent.parent
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(str(path.relative_to(package)).encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()
