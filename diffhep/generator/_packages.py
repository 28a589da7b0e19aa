import importlib
from typing import Any


def require(name: str) -> Any:
    """An optional package, imported.

    Args:
        name: Name of the module.

    Returns:
        The module.

    Raises:
        ImportError: It is not installed; the sentence says how to get it.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(
            f"Generated events need the package {name.partition('.')[0]}, which is not "
            "installed; run pip install 'diffhep[generator]'."
        ) from error
