"""The two betas of CE-GPPO, and their bounds."""

from __future__ import annotations

from typing import NamedTuple


class Betas(NamedTuple):
    """How much gradient clipped tokens keep, left (NA&LP) and right (PA&LP) of the interval.

    A larger beta_low makes entropy fall faster, a larger beta_high slower (arXiv 2509.20712,
    sec. 5.1).
    """

    low: float
    high: float

    def apart(self, by: float) -> Betas:
        """Moves beta_low down and beta_high up. Both lift entropy; a negative `by` lowers it."""
        return Betas(self.low - by, self.high + by)


class Bounds(NamedTuple):
    """Smallest and largest betas that steering may set."""

    smallest: Betas
    largest: Betas

    def clip(self, betas: Betas) -> Betas:
        """Returns the nearest betas within the bounds."""
        low = min(self.largest.low, max(self.smallest.low, betas.low))
        high = min(self.largest.high, max(self.smallest.high, betas.high))
        return Betas(low, high)

    def extreme(self, error: float) -> Betas:
        """Returns the betas that lift entropy most (error > 0) or lower it most (error < 0)."""
        if error > 0:
            return Betas(self.smallest.low, self.largest.high)
        return Betas(self.largest.low, self.smallest.high)
