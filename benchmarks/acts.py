"""Agreement with ACTS: the same surfaces, and the same hits, on both sides.

Needs `pip install pyacts==48.1.0`, in this environment or in that of the interpreter
that `ACTS_PYTHON` names; without it nothing is compared, and said so.
"""

import jax

from . import _acts_compare_fits as fits, _acts_compare_propagation as propagation
from ._acts_peer import find, version
from ._harness import report


def main() -> int:
    """Compare and report."""
    python = find()
    if python is None:
        return 0
    jax.config.update("jax_enable_x64", True)
    rows = propagation.measure(python)
    more, details = fits.measure(python)
    return report(
        "acts",
        rows + more,
        pyacts=version(python),
        propagated=propagation.NUM_TRACKS,
        fits=details,
    )


if __name__ == "__main__":
    raise SystemExit(main())
