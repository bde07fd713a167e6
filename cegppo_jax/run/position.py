"""Where a run stands, apart from its TrainState: scalars, and arrays that a checkpoint saves as
arrays.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import Any

import numpy as np

from cegppo_jax.rollout.carried import NOTHING_CARRIED, CarriedGroups
from cegppo_jax.rollout.difficulty import NOTHING_SEEN, DifficultyStore
from cegppo_jax.steering.steer import START, SteeringState

# Names in a checkpoint's arrays: what those of carried groups begin with, and problems' tallies.
CARRIED, TALLIES = "carried_", "difficulty_tallies"


@dataclasses.dataclass(frozen=True)
class RunPosition:
    """Where the run stands, apart from its TrainState. Keys are not part of it: they are functions
    of the step.
    """

    step: int  # rollout steps finished
    next_prompt: int  # position in the prompt stream
    steering: SteeringState  # what the controllers remember
    carried: CarriedGroups = NOTHING_CARRIED  # useful groups that wait for the next step
    difficulty: DifficultyStore = NOTHING_SEEN  # what is known of each problem

    def to_saved(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Returns scalars and texts for JSON, and arrays by name, from which `from_saved` rebuilds
        the same position, bit for bit.
        """
        carried_texts, carried_arrays = self.carried.to_saved()
        problem_ids, tallies = self.difficulty.to_saved()
        scalars = {
            "step": self.step,
            "next_prompt": self.next_prompt,
            "steering": self.steering.to_json(),
            "carried": carried_texts,
            "difficulty": problem_ids,
        }
        arrays = {CARRIED + name: array for name, array in carried_arrays.items()}
        return scalars, arrays | {TALLIES: tallies}

    @classmethod
    def from_saved(cls, scalars: dict[str, Any], arrays: dict[str, np.ndarray]) -> RunPosition:
        """Rebuilds the position that `to_saved` saved. Raises ValueError for anything else."""
        own_scalars, own_arrays = cls(0, 0, START).to_saved()
        _check_names("position", scalars, own_scalars)
        _check_names("arrays", arrays, own_arrays)
        _check_names("carried groups", scalars["carried"], own_scalars["carried"])
        carried = {
            name.removeprefix(CARRIED): array
            for name, array in arrays.items()
            if name.startswith(CARRIED)
        }
        return cls(
            scalars["step"],
            scalars["next_prompt"],
            SteeringState.from_json(scalars["steering"]),
            CarriedGroups.from_saved(scalars["carried"], carried),
            DifficultyStore.from_saved(scalars["difficulty"], arrays[TALLIES]),
        )


def _check_names(what: str, saved: Collection[str], own: Collection[str]) -> None:
    lacks, unknown = sorted(set(own) - set(saved)), sorted(set(saved) - set(own))
    if lacks or unknown:
        raise ValueError(f"its {what}: {lacks} are missing and {unknown} are unknown")
