"""Which part of the learnt table moves estimates in the benchmark `interference`."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffhep.inference import Code4p

from ._interference_far import exact_rates, fit_code, fit_exact
from ._interference_model import Table, exact_table
from ._interference_ratios import learn, learnt_table, simulate
from ._interference_run import SLOTS, draw
from ._interference_toys import Fits, padded, together


BLOCK = 500


def parts(seed: int, settings: dict[str, Any], number: int) -> None:
    """Print how far estimates are from those of the exact density at every alpha.

    Networks are those of the seed; the toys are new ones, the same for all.

    Args:
        seed: Of the benchmark.
        settings: Of the benchmark.
        number: Toys at each true alpha.
    """
    rng = np.random.default_rng([seed, 0])
    simulation = simulate(settings["events"], rng)
    key = jax.random.key(seed)
    ratios = learn(simulation, settings, members=settings["members"], key=key)
    print("| true α | table | learnt, less exact at all α | bias |\n|---|---|---|---|")
    for alpha in (0.0, 1.0):
        rng = np.random.default_rng([78, seed, int(alpha)])
        found: dict[str, list[Fits]] = {}
        for start in range(0, number, BLOCK):
            toys = min(BLOCK, number - start)
            x, used = padded(draw(1.0, alpha, toys, rng), SLOTS)
            rest = (jnp.asarray(used), jnp.asarray(alpha + rng.normal(size=toys)))
            one = {"exact at all α": fit_exact(jnp.asarray(x), *rest, exact_rates())}
            for name, table in _tables(exact_table(x), learnt_table(ratios, x)).items():
                one[name] = fit_code(table, *rest, None, Code4p())
            for name, fits in one.items():
                found.setdefault(name, []).append(Fits(*map(np.asarray, fits)))
        best = {name: together(x).best for name, x in found.items()}
        exact = best["exact at all α"]
        for name, x in best.items():
            cells = (_mean(y, exact.std()) for y in (x - exact, x - 1))
            print(f"| {alpha:g} | {name} | {' | '.join(cells)} |", flush=True)


def _tables(exact: Table, learnt: Table) -> dict[str, Table]:
    return {
        "exact at 0 and ±1": exact,
        "learnt": learnt,
        "learnt ratios, exact changes": learnt._replace(up=exact.up, down=exact.down),
        "exact ratios, learnt changes": learnt._replace(log_ratios=exact.log_ratios),
        "exact, but learnt change up": exact._replace(up=learnt.up),
        "exact, but learnt change down": exact._replace(down=learnt.down),
    }


def _mean(values: np.ndarray, unit: float) -> str:
    error = values.std() / unit / np.sqrt(len(values))
    return f"{values.mean() / unit:+.3f} ± {error:.3f}"
