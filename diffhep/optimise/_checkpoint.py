"""The state of a training in one file: a line of JSON, then the arrays."""

import contextlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np
from jaxtyping import PyTree


_FORMAT = 1


class TrainState(NamedTuple):
    """Everything that the next step depends on."""

    step: int
    """How many steps were taken."""
    losses: tuple[float, ...]
    """The loss before each of them."""
    arrays: PyTree
    """Parameters and the optimiser's state."""


class OtherCheckpointError(ValueError):
    """A checkpoint belongs to another configuration."""


def save_checkpoint(path: Path, state: TrainState, *, fingerprint: str) -> None:
    """Write a state, to a temporary name first: a reader never finds half a file.

    Args:
        path: The file. Its folder is made if need be.
        state: The state.
        fingerprint: What the state belongs to.

    Raises:
        ValueError: The folder cannot be written.
    """
    header = {
        "format": _FORMAT,
        "fingerprint": fingerprint,
        "structure": describe_arrays(state.arrays),
        "step": state.step,
        "losses": list(state.losses),
    }
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)
        with os.fdopen(descriptor, "wb") as file:
            file.write(json.dumps(header).encode() + b"\n")
            eqx.tree_serialise_leaves(file, state.arrays)
        os.replace(temporary, path)
    except OSError as error:
        raise ValueError(
            f"The checkpoint {path} cannot be written ({error.strerror}); choose "
            "another folder."
        ) from error
    finally:
        # Still there only if something went wrong, an interruption included.
        if temporary is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)


def load_checkpoint(path: Path, arrays: PyTree, *, fingerprint: str) -> TrainState:
    """Read a state.

    Args:
        path: The file.
        arrays: Arrays of the shapes and types that are expected.
        fingerprint: What the state must belong to.

    Returns:
        The state.

    Raises:
        OtherCheckpointError: It belongs to something else.
        ValueError: The file is damaged or no checkpoint.
    """
    try:
        with path.open("rb") as file:
            header = json.loads(file.readline())
            if (header["format"], header["fingerprint"], header["structure"]) != (
                _FORMAT,
                fingerprint,
                describe_arrays(arrays),
            ):
                raise OtherCheckpointError(
                    f"The checkpoint {path} belongs to another configuration; delete "
                    "it, or choose another name."
                )
            arrays = eqx.tree_deserialise_leaves(file, arrays)
            return TrainState(header["step"], tuple(header["losses"]), arrays)
    except OtherCheckpointError:
        raise
    # Whatever the reader of a damaged file may stumble upon.
    except Exception as error:
        raise ValueError(
            f"The checkpoint {path} is damaged and cannot be read; delete it."
        ) from error


def describe_arrays(tree: PyTree) -> list[Any]:
    """Names, shapes and types of the arrays of a tree, as JSON has them.

    Args:
        tree: Any tree.

    Returns:
        One entry per array.
    """
    leaves = jax.tree_util.tree_leaves_with_path(eqx.filter(tree, eqx.is_array))
    return [
        [jax.tree_util.keystr(path), list(np.shape(leaf)), str(leaf.dtype)]
        for path, leaf in leaves
    ]
