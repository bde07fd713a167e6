"""Running means of noisy curves."""

from __future__ import annotations

import numpy as np

SMOOTH_FROM_STEPS = 40  # a shorter run is drawn as it is


def smoothed(values: np.ndarray, window: int) -> np.ndarray:
    """Returns centred means [n] of values [n] over `window` (odd), fewer at the ends, leaving out
    NaN.

    window 3: [1, 2, 6, NaN] -> [1.5, 3, 4, 6]
    """
    known = np.isfinite(values)
    kernel = np.ones(window)
    sums = np.convolve(np.where(known, values, 0.0), kernel, mode="same")
    counts = np.convolve(known.astype(float), kernel, mode="same")
    return np.where(counts > 0.5, sums / np.maximum(counts, 1.0), np.nan)


def window_of(length: int) -> int:
    """A twentieth of the run, as an odd number."""
    return 2 * (length // 40) + 1
