"""Samples completions of prompts: continuous batching over fixed slots.

The host keeps a queue of samples. Between chunks of decode steps it admits waiting samples to
finished slots; a prompt is prefilled once for all its samples. While the device decodes the next
chunk, the host collects the tokens of the last one and yields the completions that ended in it.
What a sample draws depends only on (parameters, step key, prompt index, sample index).
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
from cegppo_jax.models.config import ModelConfig
from cegppo_jax.models.decoder import Params
from cegppo_jax.models.kv_cache import KVCache
from cegppo_jax.sampling.decode_copy import is_decode_copy
from cegppo_jax.sampling.filters import SamplingFilter
from cegppo_jax.sampling.prefixes import PrefixQueue
from cegppo_jax.sampling.programs import SamplerPrograms
from cegppo_jax.sampling.running import DecodedChunk, RunningSample, decoded
from cegppo_jax.sampling.settings import SamplerSettings
from cegppo_jax.sampling.slots import Admissions, Chunk
from cegppo_jax.types import Completion, Prompt


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
        self._rollout: object | None = None  # that has the slots; None: nobody

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
          RuntimeError: another call has taken the slots since.
          NonFiniteError: a token's log-probability is not finite, a chunk after the one that drew
            it.
        """
        self._check_prompts(prompts)
        decode_params = self._decoding(params)
        waiting = deque(
            RunningSample(prompt, sample)
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
        running: dict[int, RunningSample] = {}
        last: DecodedChunk | None = None
        drawn = 0
        mine = self._take_slots()
        try:
            while waiting or running:
                self._check_slots_are(mine)
                while waiting and len(running) < self._settings.slots:
                    prompt = waiting[0].prompt
                    cache = prefixes.holding(prompt, partial(self._prefill_told, decode_params))
                    admissions = self._assign(waiting, running, prefixes.rows)
                    self._state = self._programs.admit(self._state, cache, admissions, key)
                if not waiting:
                    running = self._narrow(running)
                started = self._decode_running(decode_params, running, sampling, bool(waiting))
                if last is not None:  # meanwhile
                    yield from last.completions(policy_version)
                last = decoded(started, running)
                drawn += sum(count for *_, count in last.parts)
                finished = total - len(running) - len(waiting)
                self._activity.at(f"{finished:,} of {total:,} completions, {drawn:,} tokens")
            if last is not None:
                yield from last.completions(policy_version)
        finally:
            if self._rollout is mine:
                self._rollout = None
                # Left early, the next rollout must not inherit active slots
                if running or self._width < self._settings.slots:
                    self._renew()

    def warm_up(self, params: Params, filters: Sequence[SamplingFilter]) -> None:
        """Compiles every shape ahead of the first rollout, on idle slots."""
        settings = self._settings
        decode_params = self._decoding(params)
        tokens = np.zeros((settings.prefill_prompts, settings.max_prompt_tokens), np.int32)
        cache = self._programs.prefill(decode_params, tokens)
        nobody = Admissions(np.full(settings.slots, -1, np.int32), *self._blank_columns())
        self._state = self._programs.admit(self._state, cache, nobody, jax.random.key(0))
        nobody_active = np.int32(0)
        for count in settings.slot_counts:
            if count < self._width:
                self._state = self._programs.narrowed(self._state, np.arange(count, dtype=np.int32))
            for sampling, length in itertools.product(filters, settings.read_lengths):
                self._state, _ = self._programs.decode(
                    decode_params, self._state, nobody_active, sampling, length
                )
        if settings.slot_ladder:
            self._renew()
        jax.block_until_ready(self._state)

    def release_copy(self) -> None:
        """Gives up the decode copy that is kept: an update needs its memory."""
        self.decode_copy.release()

    def _take_slots(self) -> object:
        """Returns what stands for a new rollout, whose slots they are from now on. A rollout that
        was left and is not closed yet, as a traceback may keep it, loses them.
        """
        if self._rollout is not None:
            self._renew()
        self._rollout = object()
        return self._rollout

    def _check_slots_are(self, rollout: object) -> None:
        """Raises RuntimeError if another rollout has taken the slots."""
        if self._rollout is not rollout:
            raise RuntimeError(
                "another rollout of this sampler has begun, and this one has lost its slots: take "
                "all completions of one before the next, or make a second sampler"
            )

    @property
    def _width(self) -> int:
        """Slots that are decoded at present."""
        return self._state.active.shape[0]

    def _renew(self) -> None:
        """Makes all slots anew, idle. The old ones are given up first."""
        del self._state
        self._state = self._programs.new_state()

    def _narrow(self, running: dict[int, RunningSample]) -> dict[int, RunningSample]:
        """Goes down the slot ladder as far as all of `running` have room. Returns them by their
        slots then.
        """
        for count in self._settings.slot_counts:
            if len(running) <= count < self._width:
                idle = (slot for slot in range(self._width) if slot not in running)
                order = [*running, *itertools.islice(idle, count - len(running))]
                self._state = self._programs.narrowed(self._state, np.asarray(order, np.int32))
                running = dict(enumerate(running.values()))
        return running

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
        self, waiting: deque[RunningSample], running: dict[int, RunningSample], rows: dict[int, int]
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
        running: dict[int, RunningSample],
        sampling: SamplingFilter,
        more_waiting: bool,
    ) -> Chunk:
        """Starts to decode one chunk. It ends early as soon as an eighth of the slots is free if
        samples are waiting, else when the others have room in fewer slots.
        """
        settings, width = self._settings, self._width
        furthest = max(sample.length for sample in running.values())
        needed = min(furthest + settings.chunk_steps - 1, settings.cache_tokens)
        read_length = next(rung for rung in settings.read_lengths if rung >= needed)
        words = (
            f"the decode step of {width} slots in {settings.dtype}, "
            f"for sequences of up to {read_length + 1:,} tokens"
        )
        if more_waiting:
            min_active = width - max(width // 8, 1)
        else:
            min_active = max((count for count in settings.slot_ladder if count < width), default=0)
        with self._activity.compiling((sampling, read_length, width), words):
            self._state, chunk = self._programs.decode(
                decode_params,
                self._state,
                np.int32(min(min_active, len(running) - 1)),
                sampling,
                read_length,
            )
        jax.tree.map(lambda leaf: leaf.copy_to_host_async(), chunk)
        return chunk
