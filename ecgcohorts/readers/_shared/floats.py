"""What floating-point arrays may hold beside samples."""

import numpy as np
from numpy.typing import NDArray

NOT_FINITE = "infinite samples marked missing"


def without_infinities(samples: NDArray[np.float64]) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """The samples with NaN in place of infinite ones, and the note that says so."""
    infinite = np.isinf(samples)
    if not infinite.any():
        return samples, ()
    return np.where(infinite, np.nan, samples), (NOT_FINITE,)
