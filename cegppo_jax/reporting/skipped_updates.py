"""Updates that were left out because their gradient was not finite: said, and after some in a row
the end of the run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cegppo_jax.finite import NonFiniteError, where_to_look


class SkippedUpdates:
    """Counts the updates in a row that were left out, over steps."""

    def __init__(self, limit: int) -> None:
        """Args: limit: checkpoint.stop_after_skipped: so many in a row end the run."""
        self._limit = limit
        self.in_a_row = 0  # up to the latest update
        self._all_of_step = False

    def message(self, step: int, updates: Sequence[Mapping[str, Any]]) -> str | None:
        """Receives the metrics of a step's updates, and returns what to print; None: nothing."""
        skipped = [bool(update["update/skipped"]) for update in updates]
        for one in skipped:
            self.in_a_row = self.in_a_row + 1 if one else 0
        self._all_of_step = bool(skipped) and all(skipped)
        if not any(skipped):
            return None
        first = skipped.index(True)
        numbers = ", ".join(
            f"{name} {updates[first][f'update/{name}']:g}" for name in ("loss", "grad_norm")
        )
        return (
            f"step {step}: {sum(skipped)} of {len(skipped)} updates left out, since their gradient "
            f"is not finite; the first is update {first + 1}: {numbers}"
        )

    def check(self, is_last: bool, saved_step: int | None) -> None:
        """Ends a run that does not train any more.

        Args:
          is_last: whether it was the run's last step, of which one update must have been taken.
          saved_step: that of the newest checkpoint.

        Raises:
          NonFiniteError: as many updates in a row were left out as the limit allows.
        """
        if self.in_a_row < self._limit and not (is_last and self._all_of_step):
            return
        raise NonFiniteError(
            f"the last {self.in_a_row} updates in a row were left out, since their gradient is not "
            f"finite (checkpoint.stop_after_skipped = {self._limit}). Nothing was saved meanwhile: "
            f"the newest checkpoint, of step {saved_step}, is the last good one. "
            f"{where_to_look('trainer')}"
        )
