"""The host's book of the samples that are being drawn.

What the next chunk depends on (who ended, how long the others are) is a few integers a slot, and
known as soon as a chunk is. Its tokens are collected afterwards, while the device decodes on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence

import jax
import numpy as np

from cegppo_jax.finite import check_logprobs
from cegppo_jax.sampling.slots import Chunk
from cegppo_jax.types import Completion, Prompt, StopReason


@dataclasses.dataclass
class RunningSample:
    """A completion that waits for a slot or is being drawn."""

    prompt: Prompt
    sample_index: int
    drawn: int = 0  # tokens so far, those that are not collected yet included
    tokens: list[np.ndarray] = dataclasses.field(default_factory=list)
    logprobs: list[np.ndarray] = dataclasses.field(default_factory=list)

    @property
    def length(self) -> int:
        """Tokens of the prompt and of the completion so far."""
        return len(self.prompt.tokens) + self.drawn


def queued_samples(
    prompts: Sequence[Prompt], count: int, done: Collection[tuple[int, int]], longest: int
) -> list[RunningSample]:
    """Returns `count` samples of each prompt but for those in `done`, by prompt and sample index.

    Raises:
      ValueError: a prompt is empty or has more than `longest` tokens.
    """
    for prompt in prompts:
        if not 1 <= len(prompt.tokens) <= longest:
            raise ValueError(
                f"prompt {prompt.problem.id!r} has {len(prompt.tokens)} tokens; the sampler takes "
                f"1 to {longest} (max_prompt_tokens)"
            )
    return [
        RunningSample(prompt, sample)
        for prompt in prompts
        for sample in range(count)
        if (prompt.index, sample) not in done
    ]


@dataclasses.dataclass(frozen=True)
class DecodedChunk:
    """A chunk whose tokens have not been collected."""

    chunk: Chunk
    parts: list[tuple[int, RunningSample, int, int]]  # slot, sample, tokens before it and in it
    ended: dict[int, StopReason]  # by slot

    def completions(self, policy_version: int) -> list[Completion]:
        """Collects the chunk's tokens. Returns the completions that ended in it, by slot.

        Raises:
          NonFiniteError: a token's log-probability is not finite.
        """
        tokens, logprobs = jax.device_get((self.chunk.tokens, self.chunk.logprobs))
        suspicious = not np.isfinite(logprobs).all()
        completed = []
        for slot, sample, before, count in self.parts:
            drawn = logprobs[:count, slot]
            if suspicious:
                whose = sample.prompt.problem.id, sample.sample_index
                check_logprobs(drawn, "sampler", *whose, before)
            sample.tokens.append(tokens[:count, slot])
            sample.logprobs.append(drawn)
            if slot in self.ended:
                completion = Completion(
                    prompt_index=sample.prompt.index,
                    sample_index=sample.sample_index,
                    tokens=np.concatenate(sample.tokens),
                    sampler_logprobs=np.concatenate(sample.logprobs),
                    stop_reason=self.ended[slot],
                    policy_version=policy_version,
                )
                completed.append(completion)
        return completed


def decoded(chunk: Chunk, running: dict[int, RunningSample]) -> DecodedChunk:
    """Waits for a chunk and enters it in the book: samples that ended leave `running`, by slot."""
    counts, active, by_eos = jax.device_get((chunk.counts, chunk.active, chunk.ended_by_eos))
    parts, ended = [], {}
    for slot, sample in list(running.items()):
        count = int(counts[slot])
        parts.append((slot, sample, sample.drawn, count))
        sample.drawn += count
        if not active[slot]:
            ended[slot] = StopReason.EOS if by_eos[slot] else StopReason.LENGTH
            del running[slot]
    return DecodedChunk(chunk, parts, ended)
