"""Settings of steering: one record for each mechanism."""

from __future__ import annotations

import dataclasses

from cegppo_jax.steering.bonus import EntropyBonusSettings
from cegppo_jax.steering.controller import ControllerSettings
from cegppo_jax.steering.guard import GuardSettings
from cegppo_jax.steering.schedule import BetaScheduleSettings


@dataclasses.dataclass(frozen=True)
class SteeringSettings:
    """Everything that moves the betas and the entropy coefficient during a run."""

    beta_schedule: BetaScheduleSettings
    controller: ControllerSettings
    guard: GuardSettings
    entropy_bonus: EntropyBonusSettings

    def __post_init__(self) -> None:
        for knot in self.beta_schedule.knots:
            self.controller.check_base(knot)

    @property
    def reads_entropy(self) -> bool:
        """Whether anything here acts on measured entropy."""
        return self.controller.enabled or self.guard.enabled or self.entropy_bonus.target > 0

    @property
    def moves_betas(self) -> bool:
        """Whether anything here changes the betas during a run."""
        shifts = self.guard.rollback and self.guard.beta_step > 0
        return self.controller.enabled or self.beta_schedule.kind != "constant" or shifts

    def check_lag(self, rollout_lag_steps: int) -> None:
        """Raises ValueError for what rollouts of an earlier policy do not go with."""
        if rollout_lag_steps and self.guard.rollback:
            raise ValueError(
                f"steering.guard.rollback = True with batch.rollout_lag_steps = "
                f"{rollout_lag_steps}: a step measures the entropy of an earlier policy than the "
                "one that it trains, which cannot say whether the last checkpoint is good. Take "
                "rollback = False, an alarm, or batch.rollout_lag_steps = 0"
            )
