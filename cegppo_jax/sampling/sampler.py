"""Samples completions of prompts: continuous batching over fixed slots.

The host keeps a queue of samples. Between chunks of decode steps it collects finished slots and
admits waiting samples; a prompt is prefilled once for all its samples. Completions are yielded
after the chunk in which they end. What a sample draws depends only on (parameters, step key, prompt
index, sample index).
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from functools import partial

import jax
import numpy as np
from jax.sharding import Mesh

from cegppo_jax.activity import Activity
from cegppo_jax.finite import check_logprobs
from cegppo_jax.models.config import ModelConfig
from cegppo_jax.models.decoder import Params
from cegppo_jax.models.kv_cache import KVCache
from cegppo_jax.sampling.decode_copy import is_decode_copy
from cegppo_jax.sampling.filters import SamplingFilter
from cegppo_jax.sampling.prefixes import PrefixQueue
from cegppo_jax.sampling.programs import SamplerPrograms
from cegppo_jax.sampling.settings import SamplerSettings
from cegppo_jax.sampling.slots import Admissions, Chunk
from cegppo_jax.types import Completion, Prompt, StopReason


@dataclasses.dataclass
class _Sample:
    """A completion that is being sampled."""

    prompt: Prompt
    sample_index: int
    tokens: list[np.ndarray] = dataclasses.field(default_factory=list)
    logprobs: list[np.ndarray] = dataclasses.field(default_factory=list)


class Sampler:
    """Compiled shapes and slot memory; `sample` runs one rollout."""

    def __init__(
        self,
        mesh: Mesh,
        model: ModelConfig,
        settings: SamplerSettings,
        eos_ids: Sequence[int],
        activity: Activity | None = None,
    ):
        """Args: eos_ids: tokens that end a completion; activity: told what compiles, and how far
        completions are.
        """
        self._settings = settings
        self._activity = Activity() if activity is None else activity
        self._programs = SamplerPrograms(mesh, model, settings, eos_ids)
        self.decode_copy = self._programs.decode_copy
        self._state = self._programs.new_state()

    def sample(
        self,
        params: Params,
        prompts: Sequence[Prompt],
        samples_per_prompt: int,
        *,
        sampling: SamplingFilter,
        key: jax.Array,
        policy_version: int,
        done: Collection[tuple[int, int]] = frozenset(),
    ) -> Iterator[Completion]:
        """Yields each prompt's completions in the order in which they end.

        Args:
          params: stacked parameters, whose copy is kept for the next call; or a decode copy.
          sampling: temperature, top-k, top-p.
          key: the step's key. A sample's key is folded in from its prompt's index and its sample
            index.
          policy_version: the training step of `params`, written on every completion.
          done: (prompt index, sample index) of completions to leave out.

        Raises:
          ValueError: a prompt is empty or longer than max_prompt_tokens.
          NonFiniteError: a token's log-probability is not finite, after the chunk that drew it.
        """
        self._check_prompts(prompts)
        decode_params = self._decoding(params)
        waiting = deque(
            _Sample(prompt, sample)
            for prompt in prompts
            for sample in range(samples_per_prompt)
            if (prompt.index, sample) not in done
        )
        total = len(waiting)
        asked = {sample.prompt.index for sample in waiting}
        prefixes = PrefixQueue(
            [prompt for prompt in prompts if prompt.index in asked],
            self._settings.prefill_prompts,
            self._settings.max_prompt_tokens,
        )
        running: dict[int, _Sample] = {}
        drawn = 0
        try:
            while waiting or running:
                while waiting and len(running) < self._settings.slots:
                    prompt = waiting[0].prompt
                    cache = prefixes.holding(prompt, partial(self._prefill_told, decode_params))
                    admissions = self._assign(waiting, running, prefixes.rows)
                    self._state = self._programs.admit(self._state, cache, admissions, key)
                chunk = self._decode_running(decode_params, running, sampling, bool(waiting))
                drawn += int(chunk.emitted.sum())
                ended = self._harvest(chunk, running, policy_version)
                finished = total - len(running) - len(waiting)
                self._activity.at(f"{finished:,} of {total:,} completions, {drawn:,} tokens")
                yield from ended
        finally:
            if running:  # the caller stopped early; the next rollout must not inherit active slots
                self._state = self._programs.new_state()

    def warm_up(self, params: Params, filters: Sequence[SamplingFilter]) -> None:
        """Compiles every shape ahead of the first rollout, on idle slots."""
        settings = self._settings
        decode_params = self._decoding(params)
        tokens = np.zeros((settings.prefill_prompts, settings.max_prompt_tokens), np.int32)
        cache = self._programs.prefill(decode_params, tokens)
        nobody = Admissions(np.full(settings.slots, -1, np.int32), *self._blank_columns())
        self._state = self._programs.admit(self._state, cache, nobody, jax.random.key(0))
        for sampling, length in itertools.product(filters, settings.read_lengths):
            self._state, _ = self._programs.decode(
                decode_params, self._state, np.int32(0), sampling, length
            )
        jax.block_until_ready(self._state)

    def release_copy(self) -> None:
        """Gives up the decode copy that is kept: an update needs its memory."""
        self.decode_copy.release()

    def _decoding(self, params: Params) -> Params:
        return params if is_decode_copy(params) else self.decode_copy.of(params)

    def _prefill_told(self, decode_params: Params, tokens: np.ndarray) -> KVCache:
        prompts, length = tokens.shape
        words = f"the prefill of {prompts} prompts of up to {length:,} tokens"
        with self._activity.compiling("prefill", words):
            return self._programs.prefill(decode_params, tokens)

    def compile_counts(self) -> dict[str, int]:
        """Returns the compiled versions of each jitted function, to detect recompilation."""
        return self._programs.compile_counts()

    def _check_prompts(self, prompts: Sequence[Prompt]) -> None:
        for prompt in prompts:
            if not 1 <= len(prompt.tokens) <= self._settings.max_prompt_tokens:
                raise ValueError(
                    f"prompt {prompt.problem.id!r} has {len(prompt.tokens)} tokens; the sampler "
                    "takes 1 to "
                    f"{self._settings.max_prompt_tokens} (max_prompt_tokens)"
                )

    def _blank_columns(self) -> tuple[np.ndarray, ...]:
        columns = len(dataclasses.fields(Admissions)) - 1
        return tuple(np.zeros(self._settings.slots, np.int32) for _ in range(columns))

    def _assign(
        self, waiting: deque[_Sample], running: dict[int, _Sample], rows: dict[int, int]
    ) -> Admissions:
        """Moves samples whose prompts are prefilled from `waiting` to free slots of `running`."""
        source = np.full(self._settings.slots, -1, np.int32)
        last, lengths, limits, prompt_indices, sample_indices = self._blank_columns()
        free = (slot for slot in range(self._settings.slots) if slot not in running)
        for slot in free:
            if not waiting or waiting[0].prompt.index not in rows:
                break
            sample = waiting.popleft()
            running[slot] = sample
            source[slot] = rows[sample.prompt.index]
            last[slot], lengths[slot] = sample.prompt.tokens[-1], len(sample.prompt.tokens)
            limits[slot] = self._settings.max_completion_tokens
            prompt_indices[slot], sample_indices[slot] = sample.prompt.index, sample.sample_index
        return Admissions(source, last, lengths, limits, prompt_indices, sample_indices)

    def _decode_running(
        self,
        decode_params: Params,
        running: dict[int, _Sample],
        sampling: SamplingFilter,
        more_waiting: bool,
    ) -> Chunk:
        """Decodes one chunk; if samples are waiting, returns as soon as an eighth of the slots
        is free.
        """
        settings = self._settings
        furthest = max(
            len(sample.prompt.tokens) + sum(map(len, sample.tokens)) for sample in running.values()
        )
        needed = min(furthest + settings.chunk_steps - 1, settings.cache_tokens)
        read_length = next(rung for rung in settings.read_lengths if rung >= needed)
        words = (
            f"the decode step of {settings.slots} slots in {settings.dtype}, "
            f"for sequences of up to {read_length + 1:,} tokens"
        )
        min_active = settings.slots - max(settings.slots // 8, 1) if more_waiting else 0
        with self._activity.compiling((sampling, read_length), words):
            self._state, chunk = self._programs.decode(
                decode_params,
                self._state,
                np.int32(min(min_active, len(running) - 1)),
                sampling,
                read_length,
            )
        return jax.device_get(chunk)

    def _harvest(
        self, chunk: Chunk, running: dict[int, _Sample], policy_version: int
    ) -> list[Completion]:
        """Appends a chunk's tokens to their samples. Returns those that have ended, which leave
        `running`.
        """
        counts = chunk.emitted.sum(axis=0)
        for slot, sample in running.items():
            logprobs, before = chunk.logprobs[: counts[slot], slot], sum(map(len, sample.tokens))
            whose = sample.prompt.problem.id, sample.sample_index
            check_logprobs(logprobs, "sampler", *whose, before)
            sample.tokens.append(chunk.tokens[: counts[slot], slot])
            sample.logprobs.append(logprobs)
        ended = []
        for slot in [slot for slot in running if not chunk.active[slot]]:
            sample = running.pop(slot)
            completion = Completion(
                prompt_index=sample.prompt.index,
                sample_index=sample.sample_index,
                tokens=np.concatenate(sample.tokens),
                sampler_logprobs=np.concatenate(sample.logprobs),
                stop_reason=StopReason.EOS if chunk.ended_by_eos[slot] else StopReason.LENGTH,
                policy_version=policy_version,
            )
            ended.append(completion)
        return ended
