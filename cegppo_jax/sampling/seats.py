"""Which slot a waiting sample takes, and whether its cache has room: the host's side of a cache's
layout. `Seats` is that of a contiguous cache, in which every slot has room for the longest
sequence; `PagedSeats` gives out pages.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np

from cegppo_jax.sampling.page_copies import PageCopies, copies_by_shard
from cegppo_jax.sampling.pages import PageBook, PageCopy
from cegppo_jax.sampling.running import RunningSample
from cegppo_jax.sampling.settings import SamplerSettings

Running = dict[int, RunningSample]  # by slot, oldest first


class Seats:
    """Any free slot will do."""

    def __init__(self, settings: SamplerSettings):
        self.settings, self.width = settings, settings.slots

    def find(self, running: Running, sample: RunningSample) -> int | None:
        """Returns a slot with room for a sample; None if there is none at present."""
        return next(self._free(running), None)

    def enter(self, slot: int, sample: RunningSample) -> None:
        """Gives the slot to the sample."""

    def leave(self, slot: int) -> None:
        """Takes the slot from the sample that has it."""

    def make_room(self, running: Running) -> list[RunningSample]:
        """Makes room for the tokens of the next chunk. Returns samples, youngest first, that had to
        give up their slots: they leave `running`.
        """
        return []

    def order(self, running: Running, count: int) -> list[int] | None:
        """Returns which `count` slots are kept if fewer are to decode, those of `running` among
        them, in their new order; None if these do not fit.
        """
        return [*running, *itertools.islice(self._free(running), count - len(running))]

    def narrow(self, order: list[int]) -> None:
        """Keeps only the slots of `order`, in that order."""
        self.width = len(order)

    def admission(self, rows: Mapping[int, int]) -> tuple[PageCopies, ...]:
        """Returns what else an admission takes, of samples that entered since the last one, whose
        prompts are in these rows of the prefix cache.
        """
        return ()

    def table(self) -> np.ndarray | None:
        """Returns the pages [S, n] int32 of each slot, if the cache is paged."""
        return None

    def _free(self, running: Running) -> itertools.filterfalse[int]:
        return itertools.filterfalse(running.__contains__, range(self.width))


class PagedSeats(Seats):
    """A slot in a shard that has free pages."""

    def __init__(self, settings: SamplerSettings, shards: int):
        super().__init__(settings)
        self._book, self._shards = PageBook(settings, shards), shards
        self._copies: list[PageCopy] = []  # of the next admission

    def find(self, running: Running, sample: RunningSample) -> int | None:
        prompt = sample.prompt
        free, cached = self._free(running), self._cached(sample)
        return self._book.seat(free, prompt.index, len(prompt.tokens), cached)

    def enter(self, slot: int, sample: RunningSample) -> None:
        prompt = sample.prompt
        self._copies += self._book.enter(slot, prompt.index, len(prompt.tokens))
        self._book.grow(slot, self._cached(sample))

    def leave(self, slot: int) -> None:
        self._book.leave(slot)

    def make_room(self, running: Running) -> list[RunningSample]:
        left = []
        for slot in list(running):
            while slot in running and not self._book.grow(slot, self._cached(running[slot])):
                shard = self._book.shard_of(slot)
                youngest = [one for one in running if self._book.shard_of(one) == shard][-1]
                left.append(running.pop(youngest))
                self._book.leave(youngest)
        return left

    def order(self, running: Running, count: int) -> list[int] | None:
        kept = []
        for first in range(0, self.width, self.width // self._shards):
            own = range(first, first + self.width // self._shards)
            slots = sorted(own, key=lambda slot: slot not in running)[: count // self._shards]
            kept += slots
        return kept if set(running) <= set(kept) else None

    def narrow(self, order: list[int]) -> None:
        super().narrow(order)
        self._book.narrow(order)

    def admission(self, rows: Mapping[int, int]) -> tuple[PageCopies, ...]:
        copies, self._copies = self._copies, []
        return (copies_by_shard(copies, rows, self.settings, self._shards),)

    def table(self) -> np.ndarray:
        return self._book.table.copy()  # the device may read it where it is

    def _cached(self, sample: RunningSample) -> int:
        """Returns how many tokens of a sample are cached after another chunk at most."""
        longest = len(sample.prompt.tokens) + self.settings.max_completion_tokens - 1
        return min(sample.length - 1 + self.settings.chunk_steps, longest)
