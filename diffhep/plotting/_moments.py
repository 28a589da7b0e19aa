import numpy as np
from jaxtyping import Bool, Float

from ._style import AnyArray


def moments(
    values: Float[AnyArray, "*shape"],
) -> tuple[float, float, float, float]:
    """Mean and standard deviation with their standard errors.

    The error of the width holds for any distribution with a fourth moment:
    sqrt((m4 / s^4 - 1) / n) s / 2, which is s / sqrt(2 n) for a Gaussian.

    Args:
        values: A sample; NaN entries are left out.

    Returns:
        Mean, its error, width, its error, in the unit of the sample.

    Raises:
        ValueError: Fewer than two values are left.
    """
    sample = np.asarray(values, float)
    sample = sample[np.isfinite(sample)]
    if sample.size < 2:
        raise ValueError(
            f"Mean and width need at least 2 finite values, and {sample.size} came: "
            "use more events, or leave this quantity out."
        )
    mean, width = sample.mean(), sample.std(ddof=1)
    mean_error = width / np.sqrt(sample.size)
    if width == 0:
        return float(mean), 0.0, 0.0, 0.0
    kurtosis = np.mean((sample - mean) ** 4) / width**4
    width_error = width / 2 * np.sqrt(max(kurtosis - 1, 0) / sample.size)
    return float(mean), float(mean_error), float(width), float(width_error)


def live_values(
    values: Float[AnyArray, "*shape"], mask: Bool[AnyArray, "*shape"] | None
) -> Float[np.ndarray, " live"]:
    """The values of live slots.

    Args:
        values: Values, of one event or of a batch.
        mask: Which slots are alive; all, if `None`.

    Returns:
        A flat array; a dead slot's value, NaN or not, is gone.
    """
    flat = np.asarray(values, float).reshape(-1)
    return flat if mask is None else flat[np.asarray(mask).reshape(-1)]
