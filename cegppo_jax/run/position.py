"""Where a run stands, apart from its TrainState: scalars, and arrays that a checkpoint saves as
arrays.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import Any

import numpy as np

from cegppo_jax.learner.ahead import RolloutAhead
from cegppo_jax.learner.completion_table import OldTokens
from cegppo_jax.rollout.carried import NOTHING_CARRIED, CarriedGroups
from cegppo_jax.rollout.difficulty import NOTHING_SEEN, DifficultyStore
from cegppo_jax.rollout.rounds import DrawnRollouts
from cegppo_jax.steering.steer import START, SteeringState

# Names in a checkpoint's arrays: what those of carried groups, and of a rollout ahead, begin with;
# and problems' tallies.
CARRIED, AHEAD, TALLIES = "carried_", "ahead_", "difficulty_tallies"


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
    # That of the next step, drawn before the updates of the last one (batch.rollout_lag_steps)
    ahead: RolloutAhead | None = None

    def to_saved(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Returns scalars and texts for JSON, and arrays by name, from which `from_saved` rebuilds
        the same position, bit for bit. Scores of a rollout ahead are waited for.
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
        arrays |= {TALLIES: tallies}
        if self.ahead is not None:
            scalars["ahead"], ahead = self.ahead.to_saved()
            arrays |= {AHEAD + name: array for name, array in ahead.items()}
        return scalars, arrays

    @classmethod
    def from_saved(cls, scalars: dict[str, Any], arrays: dict[str, np.ndarray]) -> RunPosition:
        """Rebuilds the position that `to_saved` saved. Raises ValueError for anything else."""
        nothing = NOTHING_AHEAD if "ahead" in scalars else None
        own_scalars, own_arrays = cls(0, 0, START, ahead=nothing).to_saved()
        _check_names("position", scalars, own_scalars)
        _check_names("arrays", arrays, own_arrays)
        _check_names("carried groups", scalars["carried"], own_scalars["carried"])
        carried, ahead = (
            {name.removeprefix(of): array for name, array in arrays.items() if name.startswith(of)}
            for of in (CARRIED, AHEAD)
        )
        return cls(
            scalars["step"],
            scalars["next_prompt"],
            SteeringState.from_json(scalars["steering"]),
            CarriedGroups.from_saved(scalars["carried"], carried),
            DifficultyStore.from_saved(scalars["difficulty"], arrays[TALLIES]),
            RolloutAhead.from_saved(scalars["ahead"], ahead) if nothing else None,
        )


# What a checkpoint with a rollout ahead must have the names of
NOTHING_AHEAD = RolloutAhead(DrawnRollouts((), 0, {}), OldTokens([], [], []))


def _check_names(what: str, saved: Collection[str], own: Collection[str]) -> None:
    lacks, unknown = sorted(set(own) - set(saved)), sorted(set(saved) - set(own))
    if lacks or unknown:
        raise ValueError(f"its {what}: {lacks} are missing and {unknown} are unknown")
