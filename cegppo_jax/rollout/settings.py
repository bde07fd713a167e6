"""How many prompts, samples and updates make up a step: the section config.batch."""

from __future__ import annotations

import dataclasses

from cegppo_jax.read_settings import check_at_least, check_choice
from cegppo_jax.rollout.admission import ADMISSION_ORDERS
from cegppo_jax.rollout.difficulty import (
    PROMPT_WEIGHTING,
    DifficultySettings,
    UsefulBand,
    best_chance,
)


@dataclasses.dataclass(frozen=True)
class SamplingMode:
    """What dynamic sampling does; each property needs the one before it."""

    selects: bool  # groups outside the band do not train
    refills: bool  # further prompts are drawn until enough groups are useful
    carries: bool  # useful groups that do not fit into a step wait for the next


DYNAMIC_SAMPLING = {
    "none": SamplingMode(selects=False, refills=False, carries=False),
    # The official code's: uniform groups are dropped and nothing is drawn in their place
    "filter": SamplingMode(selects=True, refills=False, carries=False),
    "refill": SamplingMode(selects=True, refills=True, carries=False),  # DAPO, arXiv 2503.14476
    "carry_over": SamplingMode(selects=True, refills=True, carries=True),
}


@dataclasses.dataclass(frozen=True)
class BatchSettings:
    """How many prompts, samples and updates make up a step, and the rows they are packed into."""

    prompts: int  # P
    samples_per_prompt: int  # G
    dynamic_sampling: str  # a name in DYNAMIC_SAMPLING
    accuracy_low: float  # a group is useful when its share of right completions lies
    accuracy_high: float  # between the two
    refill_prompts: int  # drawn at once, after the first P
    max_refills: int  # rounds of a step
    max_staleness_steps: int  # of a carried group that trains
    prompt_weighting: str  # a name in PROMPT_WEIGHTING
    admission: str  # a name in ADMISSION_ORDERS
    difficulty: DifficultySettings
    trained_prompts: int  # groups that train at most; the rest of P are only drawn
    minibatch_prompts: int  # an optimizer update each
    rollout_lag_steps: int  # 1: a step trains on what was drawn in the step before; 0: in itself
    row_tokens: int  # C
    rows_per_microbatch: int  # R
    share_prompts: bool  # a prompt stands once in a row, for all its completions there

    @property
    def mode(self) -> SamplingMode:
        """What the configured dynamic sampling does."""
        return DYNAMIC_SAMPLING[self.dynamic_sampling]

    @property
    def band(self) -> UsefulBand:
        """Which groups are useful."""
        return UsefulBand(self.samples_per_prompt, self.accuracy_low, self.accuracy_high)

    @property
    def draws(self) -> tuple[int, ...]:
        """Prompts in each round of a step: the first round, then the refills."""
        refills = self.max_refills if self.mode.refills else 0
        return (self.prompts, *[self.refill_prompts] * refills)

    @property
    def updates(self) -> int:
        """Optimizer updates a step, at most."""
        return self.trained_prompts // self.minibatch_prompts

    @property
    def minibatch_sequences(self) -> int:
        """Completions an update."""
        return self.minibatch_prompts * self.samples_per_prompt

    def __post_init__(self) -> None:
        sizes = ("prompts", "samples_per_prompt", "trained_prompts", "minibatch_prompts")
        rows = ("row_tokens", "rows_per_microbatch")
        check_at_least(1, "batch", self, *sizes, *rows, "refill_prompts", "max_staleness_steps")
        check_at_least(0, "batch", self, "max_refills", "accuracy_low")
        check_choice(
            "batch.dynamic_sampling",
            self.dynamic_sampling,
            DYNAMIC_SAMPLING,
            {"dapo": "DAPO's is 'refill'."},
        )
        check_choice("batch.prompt_weighting", self.prompt_weighting, PROMPT_WEIGHTING)
        check_choice("batch.admission", self.admission, ADMISSION_ORDERS)
        if self.samples_per_prompt < 2:
            raise ValueError(
                "batch.samples_per_prompt = 1: a group of one has no advantage over itself; take "
                "2 or more"
            )
        if self.trained_prompts % self.minibatch_prompts:
            raise ValueError(
                f"batch.trained_prompts = {self.trained_prompts} is not a multiple of "
                f"batch.minibatch_prompts = {self.minibatch_prompts}: "
                f"{self.trained_prompts % self.minibatch_prompts} prompts would be left over"
            )
        if self.rollout_lag_steps and self.mode.carries:
            raise ValueError(
                f"batch.rollout_lag_steps = {self.rollout_lag_steps} with batch.dynamic_sampling = "
                f"{self.dynamic_sampling!r}: carried groups would get older still, and have no old "
                "log-probs of the policy that drew them. Take 'refill' or 'filter', or "
                "batch.rollout_lag_steps = 0"
            )
        self._check_draws()
        self._check_usefulness()

    def _check_draws(self) -> None:
        """Raises ValueError when a step draws fewer prompts than train, or draws some for
        nothing.
        """
        if self.trained_prompts > sum(self.draws):
            refills = f" + {len(self.draws) - 1} refills of {self.refill_prompts}"
            raise ValueError(
                f"batch.trained_prompts = {self.trained_prompts} exceeds batch.prompts = "
                f"{self.prompts}{refills if self.mode.refills else ''}: more cannot train than are "
                "drawn"
            )
        if self.dynamic_sampling == "none" and self.trained_prompts < self.prompts:
            raise ValueError(
                f"batch.trained_prompts = {self.trained_prompts} of batch.prompts = "
                f"{self.prompts} with batch.dynamic_sampling = 'none': the others would be drawn "
                "for nothing. Make them equal, or choose 'filter'"
            )

    def _check_usefulness(self) -> None:
        """Raises ValueError when no group could be useful, or when weights have nothing to go
        by.
        """
        low, high = self.accuracy_low, self.accuracy_high
        if not high <= 1 or best_chance(self.band) == 0:
            raise ValueError(
                f"batch.accuracy_low = {low}, batch.accuracy_high = {high}: from 0 to 1, and so "
                f"that some share k / batch.samples_per_prompt = k / {self.samples_per_prompt} "
                "lies between them (limits excluded), or no group could ever train"
            )
        for name, default in (("prompt_weighting", "none"), ("admission", "in_order")):
            chosen = getattr(self, name)
            if chosen != default and not self.difficulty.capacity_problems:
                raise ValueError(
                    f"batch.{name} = {chosen!r} with batch.difficulty.capacity_problems = 0: "
                    "nothing would be remembered to go by"
                )
