"""How many prompts, samples and updates make a step: the section config.batch."""

from __future__ import annotations

import dataclasses

from cegppo_jax.minibatches import DYNAMIC_SAMPLING
from cegppo_jax.records import check_at_least, check_choice


@dataclasses.dataclass(frozen=True)
class BatchSettings:
    """How many prompts, samples and updates make a step, and the rows they are packed into."""

    prompts: int  # P
    samples_per_prompt: int  # G
    dynamic_sampling: str  # a name in DYNAMIC_SAMPLING
    trained_prompts: int  # groups that train at most; the rest of P are only drawn
    minibatch_prompts: int  # an optimizer update each
    row_tokens: int  # C
    rows_per_microbatch: int  # R

    @property
    def updates(self) -> int:
        """Optimizer updates a step, at most."""
        return self.trained_prompts // self.minibatch_prompts

    @property
    def minibatch_sequences(self) -> int:
        """Completions an update."""
        return self.minibatch_prompts * self.samples_per_prompt

    def __post_init__(self) -> None:
        sizes = {field.name for field in dataclasses.fields(self)} - {"dynamic_sampling"}
        check_at_least(1, "batch", self, *sorted(sizes))
        check_choice("batch.dynamic_sampling", self.dynamic_sampling, DYNAMIC_SAMPLING)
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
        if self.trained_prompts > self.prompts:
            raise ValueError(
                f"batch.trained_prompts = {self.trained_prompts} exceeds batch.prompts = "
                f"{self.prompts}: more cannot train than are drawn"
            )
        if self.dynamic_sampling == "none" and self.trained_prompts < self.prompts:
            raise ValueError(
                f"batch.trained_prompts = {self.trained_prompts} of batch.prompts = "
                f"{self.prompts} with batch.dynamic_sampling = 'none': the others would be drawn "
                "for nothing. Make them equal, or choose 'filter'"
            )
