r"""The density of the benchmark `interference`, exact: see there.

A resonance of mass M and width Gamma, of whose decay the angle is measured, over an
exchange that falls with the mass m and is peaked forwards:

$$A_S = \sqrt{n_S}\,e^{i\phi}\,\frac{M\Gamma}{M^2 - m^2 - iM\Gamma}\,
    \Bigl(\frac{3c^2 - 1}{2} + \frac14\Bigr), \quad
  A_B = \sqrt{n_B}\,\frac{e^{-(m - M)/2\tau}}{3/2 - c}$$

with c the cosine of the angle. Events are (m in GeV, c). The nuisance parameter alpha
is the scale of m, by which also the rate changes: |sqrt(mu) A_S + A_B|^2 at m - alpha
SHIFT, times exp(alpha RATE).
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


MASS, WIDTH, PHASE = 400.0, 40.0, 0.5
FALL = 120.0
WINDOW = (280.0, 560.0)
"""Of the measured mass, in GeV. The cosine is between -1 and 1."""
SHIFT, RATE = 6.0, 0.05
"""What one standard deviation of the nuisance parameter does: in GeV; logarithmic."""
STRENGTHS = (0.0, 1.0, 4.0)
"""Of which there are simulated samples."""
SIGNAL, BACKGROUND = 70.0, 800.0
"""Events of |A_S|^2 and of |A_B|^2 in the window."""


class Table(NamedTuple):
    """What a likelihood knows of entries, events or bins."""

    log_ratios: np.ndarray
    """Of each process to the reference, (processes, *entries)."""
    up: np.ndarray
    """Logarithm of the density at alpha = 1 over that at 0, likewise."""
    down: np.ndarray
    """The same at -1."""


def _amplitudes(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    mass, cosine = x[..., 0], x[..., 1]
    wave = (1.5 * cosine**2 - 0.5) + 0.25
    pole = MASS * WIDTH / (MASS**2 - mass**2 - 1j * MASS * WIDTH)
    signal = np.exp(1j * PHASE) * pole * wave
    return signal, np.exp(-(mass - MASS) / (2 * FALL)) / (1.5 - cosine)


def terms(x: np.ndarray) -> np.ndarray:
    """|A_S|^2, 2 Re(A_S A_B*) and |A_B|^2 at events, in events per GeV."""
    signal, background = _amplitudes(x)
    products = (np.abs(signal) ** 2, 2 * signal.real * background, background**2)
    return np.stack([n * p for n, p in zip(SCALES, products, strict=True)])


def intensity(x: np.ndarray, strength: float, shift: float = 0.0) -> np.ndarray:
    """Expected events per GeV and unit of cosine."""
    moved = x - np.asarray([shift * SHIFT, 0.0])
    powers = np.asarray([strength, np.sqrt(strength), 1.0])
    return np.exp(shift * RATE) * np.tensordot(powers, terms(moved), axes=1)


def mass_terms(mass: np.ndarray) -> np.ndarray:
    """|A_S|^2 and |A_B|^2 over the angle, in events per GeV; no interference."""
    grid, weight = nodes()
    inner, share = grid[:, 0, 0], weight.sum(axis=1) / 2
    numbers = (SIGNAL, BACKGROUND)
    pairs = zip(numbers, _mass_shapes(mass), _mass_shapes(inner), strict=True)
    return np.stack([n * f / (share @ whole) for n, f, whole in pairs])


def _mass_shapes(mass: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    on = np.column_stack([mass, np.zeros_like(mass)])
    signal, background = _amplitudes(on)
    return np.abs(signal) ** 2, background**2


def sample_mass(
    number: int, weights: tuple[float, float], rng: np.random.Generator
) -> np.ndarray:
    """Masses without interference, by acceptance and rejection.

    Args:
        number: How many.
        weights: Of the two `mass_terms`.
        rng: Random numbers.

    Returns:
        The masses, in GeV.
    """

    def height(mass: np.ndarray) -> np.ndarray:
        return np.tensordot(weights, mass_terms(mass), axes=1)

    top = 1.01 * height(np.linspace(*WINDOW, 2001)).max()
    found, left = [], number
    while left > 0:
        mass = rng.uniform(*WINDOW, 6 * left + 1000)
        found.append(mass[rng.uniform(0.0, top, len(mass)) < height(mass)][:left])
        left -= len(found[-1])
    return np.concatenate(found)


def nodes(masses: int = 200, cosines: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """Points and weights of an integral over the window, by Gauss and Legendre.

    Args:
        masses: How many in m; beyond 100 an integral changes by rounding.
        cosines: How many in the cosine.

    Returns:
        Events (masses, cosines, 2) and weights (masses, cosines).
    """
    (m, wm), (c, wc) = map(np.polynomial.legendre.leggauss, (masses, cosines))
    half = (WINDOW[1] - WINDOW[0]) / 2
    grid = np.meshgrid(WINDOW[0] + half * (m + 1), c, indexing="ij")
    return np.stack(grid, axis=-1), half * wm[:, None] * wc


def integral(function: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Over the window."""
    x, weight = nodes()
    return np.tensordot(function(x), weight, axes=2)


def rates(shift: float = 0.0) -> np.ndarray:
    """Expected events of each simulated strength."""
    return np.stack(
        [integral(lambda x, k=k: intensity(x, k, shift)) for k in STRENGTHS]
    )


def exact_table(x: np.ndarray) -> Table:
    """Density ratios; the reference is the mean of the samples' densities."""
    logs = []
    for shift in (0.0, 1.0, -1.0):
        density = [intensity(x, k, shift) for k in STRENGTHS]
        whole = rates(shift).reshape(-1, *[1] * (x.ndim - 1))
        logs.append(np.log(np.stack(density) / whole))
    reference = np.log(np.mean(np.exp(logs[0]), axis=0))
    return Table(logs[0] - reference, logs[1] - logs[0], logs[2] - logs[0])


def sample(
    number: int,
    strength: float,
    rng: np.random.Generator,
    *,
    shift: float = 0.0,
    margin: float = 0.0,
) -> np.ndarray:
    """Events, by acceptance and rejection: exact.

    Args:
        number: How many.
        strength: The strength of the signal.
        rng: Random numbers.
        shift: The nuisance parameter.
        margin: How far beyond the window events are wanted too, in GeV.

    Returns:
        Masses and cosines, (number, 2).
    """
    low, high = WINDOW[0] - margin, WINDOW[1] + margin
    grid = np.meshgrid(np.linspace(low, high, 600), np.linspace(-1, 1, 201))
    # The grid misses the maximum by less than that, and it is checked.
    top = 1.02 * intensity(np.stack(grid, axis=-1), strength, shift).max()
    found, left = [], number
    while left > 0:
        tries = min(12 * left + 1000, 2_000_000)
        x = np.column_stack(
            [rng.uniform(low, high, tries), rng.uniform(-1.0, 1.0, tries)]
        )
        height = intensity(x, strength, shift)
        if height.max() > top:
            raise RuntimeError("The bound of the rejection is too low.")
        found.append(x[rng.uniform(0.0, top, tries) < height][:left])
        left -= len(found[-1])
    return np.concatenate(found)


def _scales() -> tuple[float, float, float]:
    one = integral(lambda x: np.abs(_amplitudes(x)[0]) ** 2)
    other = integral(lambda x: _amplitudes(x)[1] ** 2)
    signal, background = SIGNAL / one, BACKGROUND / other
    return float(signal), float(np.sqrt(signal * background)), float(background)


SCALES = _scales()
