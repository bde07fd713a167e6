"""Samples completions of prompts: continuous batching over fixed slots.

The host keeps a queue of samples. Between chunks of decode steps it admits waiting samples to
finished slots; a prompt is prefilled once for all its samples. While the device decodes the next
chunk, the host collects the tokens of the last one and yields the completions that ended in it.
What a sample draws depends only on (parameters, step key, prompt index, sample index). So a sample
can begin again: if the pages of a paged cache run out, the youngest gives its own up and waits.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
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
from cegppo_jax.sampling.running import DecodedChunk, RunningSample, decoded, queued_samples
from cegppo_jax.sampling.seats import Running
from cegppo_jax.sampling.settings import SamplerSettings
from cegppo_jax.sampling.slots import Admissions, Chunk
from cegppo_jax.sharding import place
from cegppo_jax.types import Completion, Prompt

# Prompts to sample as well, () for none at present, None for none any more
More = Callable[[], Sequence[Prompt] | None]


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
        self._activity = Activity() if activity is None else activity
        self._programs = SamplerPrograms(mesh, model, settings, eos_ids)
        self._settings = self._programs.settings
        self.decode_copy = self._programs.decode_copy
        self.preempted = 0  # samples that gave up their slots, for want of pages
        self._state = self._programs.new_state()
        self._seats = self._programs.seats()
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
        more: More | None = None,
    ) -> Iterator[Completion]:
        """Yields each prompt's completions in the order in which they end.

        Args:
          params: stacked parameters, whose copy is kept for the next call; or a decode copy.
          sampling: temperature, top-k, top-p.
          key: the step's key. A sample's key is folded in from its prompt's index and its sample
            index.
          policy_version: the training step of `params`, written on every completion.
          done: (prompt index, sample index) of completions to leave out.
          more: is asked for further prompts between two chunks, when slots are free and nobody
            waits for them. Meanwhile all slots are kept, whatever the slot ladder says.

        Raises:
          ValueError: a prompt is empty or longer than max_prompt_tokens.
          RuntimeError: another call has taken the slots since.
          NonFiniteError: a token's log-probability is not finite, a chunk after the one that drew
            it.
        """
        longest = self._settings.max_prompt_tokens
        queued = partial(queued_samples, count=samples_per_prompt, done=done, longest=longest)
        waiting = deque(queued(prompts))
        total = len(waiting)
        decode_params = self._decoding(params)
        prefixes = PrefixQueue(self._settings.prefill_prompts, longest)
        running: Running = {}
        last: DecodedChunk | None = None
        drawn = 0
        mine = self._take_slots()
        try:
            while waiting or running:
                self._check_slots_are(mine)
                self._make_room(waiting, running)
                if more is not None and not waiting and len(running) < self._width:
                    further = more()
                    more = None if further is None else more
                    waiting.extend(queued(further or ()))
                    total += len(waiting)
                while waiting and self._seats.find(running, waiting[0]) is not None:
                    prefill = partial(self._prefill_told, decode_params)
                    cache = prefixes.holding((sample.prompt for sample in waiting), prefill)
                    admissions = self._assign(waiting, running, prefixes.rows)
                    pages = self._seats.admission(prefixes.rows)
                    self._state = self._programs.admit(self._state, cache, admissions, key, *pages)
                if not waiting and more is None:
                    running = self._narrow(running)
                started = self._decode_running(decode_params, running, sampling, bool(waiting))
                if last is not None:  # meanwhile
                    yield from last.completions(policy_version)
                last = decoded(started, running)
                for slot in last.ended:
                    self._seats.leave(slot)
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
        pages = self._seats.admission({})
        self._state = self._programs.admit(self._state, cache, nobody, jax.random.key(0), *pages)
        nobody_active = np.int32(0)
        for count in settings.slot_counts:
            self._running_in({}, count)
            for sampling, length in itertools.product(filters, settings.read_lengths):
                self._state, _ = self._programs.decode(
                    decode_params, self._state, nobody_active, sampling, length, *self._table()
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
    def cache(self) -> str:
        """The layout of the slots' cache, of CACHES."""
        return self._settings.cache

    @property
    def _width(self) -> int:
        """Slots that are decoded at present."""
        return self._seats.width

    def _renew(self) -> None:
        """Makes all slots anew, idle. The old ones are given up first."""
        del self._state
        self._state = self._programs.new_state()
        self._seats = self._programs.seats()

    def _make_room(self, waiting: deque[RunningSample], running: Running) -> None:
        """Sends samples that have to give up their slots back to the front of the queue."""
        for sample in self._seats.make_room(running):
            waiting.appendleft(RunningSample(sample.prompt, sample.sample_index))
            self.preempted += 1

    def _narrow(self, running: Running) -> Running:
        """Goes down the slot ladder as far as all of `running` have room. Returns them by their
        slots then.
        """
        for count in self._settings.slot_counts:
            if len(running) <= count:
                running = self._running_in(running, count)
        return running

    def _running_in(self, running: Running, count: int) -> Running:
        """Keeps only `count` slots, if there are more and `running` fit into these. Returns them by
        their slots then.
        """
        order = self._seats.order(running, count) if count < self._width else None
        if order is None:
            return running
        self._state = self._programs.narrowed(self._state, np.asarray(order, np.int32))
        self._seats.narrow(order)
        place = {slot: new for new, slot in enumerate(order)}
        return {place[slot]: sample for slot, sample in running.items()}

    def _table(self) -> tuple[jax.Array, ...]:
        """Returns what else a chunk takes."""
        table = self._seats.table()
        return () if table is None else (place(table, self._programs.table_layout),)

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

    def _blank_columns(self) -> tuple[np.ndarray, ...]:
        columns = len(dataclasses.fields(Admissions)) - 1
        return tuple(np.zeros(self._settings.slots, np.int32) for _ in range(columns))

    def _assign(
        self, waiting: deque[RunningSample], running: Running, rows: dict[int, int]
    ) -> Admissions:
        """Moves samples whose prompts are prefilled from `waiting` to free slots of `running`."""
        source = np.full(self._settings.slots, -1, np.int32)
        last, lengths, limits, prompt_indices, sample_indices = self._blank_columns()
        while waiting and waiting[0].prompt.index in rows:
            slot = self._seats.find(running, waiting[0])
            if slot is None:
                break
            sample = waiting.popleft()
            running[slot] = sample
            self._seats.enter(slot, sample)
            source[slot] = rows[sample.prompt.index]
            last[slot], lengths[slot] = sample.prompt.tokens[-1], len(sample.prompt.tokens)
            limits[slot] = self._settings.max_completion_tokens
            prompt_indices[slot], sample_indices[slot] = sample.prompt.index, sample.sample_index
        return Admissions(source, last, lengths, limits, prompt_indices, sample_indices)

    def _decode_running(
        self,
        decode_params: Params,
        running: Running,
        sampling: SamplingFilter,
        more_waiting: bool,
    ) -> Chunk:
        """Starts to decode one chunk. It ends early as soon as an eighth of its samples have ended
        if others are waiting, else when those that run have room in fewer slots.
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
            min_active = len(running) - max(len(running) // 8, 1)
        else:
            min_active = max((count for count in settings.slot_ladder if count < width), default=0)
        with self._activity.compiling((sampling, read_length, width), words):
            self._state, chunk = self._programs.decode(
                decode_params,
                self._state,
                np.int32(min(min_active, len(running) - 1)),
                sampling,
                read_length,
                *self._table(),
            )
        jax.tree.map(lambda leaf: leaf.copy_to_host_async(), chunk)
        return chunk
