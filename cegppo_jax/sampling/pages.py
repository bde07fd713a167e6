"""Who holds which page of the paged cache: the host's free lists, and the table of each slot.

A slot's cache is a row of pages, each of `page_tokens` places in every layer. The pages that a
prompt fills before its last token are shared by its samples; the page of its last token, which a
sample's first step writes, is each sample's own. Each shard of the mesh (data x fsdp) has slots and
pages of its own.

Worked example, pages of 4, a prompt of 6 tokens, two samples: page 7 holds places 0 to 3 of both;
places 4 to 7 are page 8 of the first sample and page 9 of the second. The first sample takes
another page when its cache gets to place 8.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import numpy as np

from cegppo_jax.models.attention.paged import spare_pages
from cegppo_jax.sampling.settings import SamplerSettings


class PagePool:
    """The pages of one shard. The page that was given back last is taken first, so that the same
    calls always give the same pages.
    """

    def __init__(self, pages: range):
        self._free = list(reversed(pages))
        self._holders: dict[int, int] = {}

    @property
    def free(self) -> int:
        """Pages that nobody holds."""
        return len(self._free)

    @property
    def held(self) -> int:
        """Pages that somebody holds."""
        return len(self._holders)

    def take(self, count: int) -> list[int]:
        """Returns `count` pages, each with one holder. Raises ValueError if fewer are free."""
        if count > len(self._free):
            raise ValueError(f"{count} pages were asked for, and {len(self._free)} are free")
        taken = [self._free.pop() for _ in range(count)]
        self._holders |= dict.fromkeys(taken, 1)
        return taken

    def share(self, pages: Iterable[int]) -> None:
        """Adds a holder to pages that are held. Raises KeyError if one is free."""
        for page in pages:
            self._holders[page] += 1

    def give_back(self, pages: Iterable[int]) -> None:
        """Takes a holder from pages; those without any are free. Raises KeyError if one is free
        already.
        """
        for page in pages:
            self._holders[page] -= 1
            if not self._holders[page]:
                del self._holders[page]
                self._free.append(page)


@dataclasses.dataclass(frozen=True)
class PageCopy:
    """A page of a prompt that has to be copied from the prefix cache to a page of a shard."""

    shard: int
    prompt: int  # its index
    page_of_prompt: int
    page: int


@dataclasses.dataclass(frozen=True)
class _Held:
    """The pages of a slot, in the order of its places."""

    prompt: int
    pages: list[int]


class PageBook:
    """The pages of all slots."""

    def __init__(self, settings: SamplerSettings, shards: int):
        self._page, self._shards = settings.page_tokens, shards
        self._slots = settings.slots // shards  # of a shard; fewer when slots are narrowed
        first = spare_pages(self._slots, settings.page_tokens)
        self._pools = [PagePool(range(first, first + settings.pool(shards))) for _ in range(shards)]
        self._held: dict[int, _Held] = {}  # by slot
        self._running = [0] * shards  # samples in each shard
        # (shard, prompt) -> its shared pages, and how many samples hold them
        self._prompts: dict[tuple[int, int], tuple[list[int], int]] = {}
        # [S, pages of a slot] int32, 0 where a slot has no page
        self.table = np.zeros((settings.slots, settings.pages_of_slot), np.int32)

    def shard_of(self, slot: int) -> int:
        """Returns the shard that a slot belongs to."""
        return slot // self._slots

    def seat(self, slots: Iterable[int], prompt: int, tokens: int, cached: int) -> int | None:
        """Returns which of the free `slots` a sample takes, whose prompt has `tokens` tokens: one
        in a shard that has pages for `cached` tokens, and one more for each sample that runs there.
        None: no shard has. Shards that hold the prompt come first, then those with most free pages.
        """
        by_shard: dict[int, int] = {}
        for slot in slots:
            by_shard.setdefault(self.shard_of(slot), slot)
        best: tuple[bool, int] | None = None
        found = None
        for shard, slot in by_shard.items():
            known = (shard, prompt) in self._prompts
            needed = self._pages(cached) - known * self._shared(tokens)
            free = self._pools[shard].free
            if free >= needed + self._running[shard] and (best is None or (known, free) > best):
                best, found = (known, free), slot
        return found

    def enter(self, slot: int, prompt: int, tokens: int) -> list[PageCopy]:
        """Gives a slot the pages of a prompt of `tokens` tokens. Returns the pages to be copied:
        the shared ones only for the first sample in its shard.
        """
        shard, count = self.shard_of(slot), self._shared(tokens)
        pool, copies = self._pools[shard], []
        shared, holders = self._prompts.get((shard, prompt), ([], 0))
        if holders:
            pool.share(shared)
        else:
            shared = pool.take(count)
            copies = [PageCopy(shard, prompt, place, page) for place, page in enumerate(shared)]
        self._prompts[shard, prompt] = shared, holders + 1
        [own] = pool.take(1)
        copies.append(PageCopy(shard, prompt, count, own))
        self._held[slot] = _Held(prompt, [*shared, own])
        self._running[shard] += 1
        self.table[slot, : count + 1] = self._held[slot].pages
        return copies

    def grow(self, slot: int, cached: int) -> bool:
        """Gives a slot pages for `cached` tokens. Returns whether there were enough; otherwise
        nothing changes.
        """
        held, pool = self._held[slot], self._pools[self.shard_of(slot)]
        missing = self._pages(cached) - len(held.pages)
        if missing > pool.free:
            return False
        if missing > 0:
            new = pool.take(missing)
            self.table[slot, len(held.pages) : len(held.pages) + missing] = new
            held.pages.extend(new)
        return True

    def leave(self, slot: int) -> None:
        """Gives a slot's pages back."""
        held, shard = self._held.pop(slot), self.shard_of(slot)
        self._running[shard] -= 1
        pages, holders = self._prompts.pop((shard, held.prompt))
        if holders > 1:
            self._prompts[shard, held.prompt] = pages, holders - 1
        self._pools[shard].give_back(held.pages)
        self.table[slot] = 0

    def narrow(self, order: list[int]) -> None:
        """Keeps only the slots of `order`, in that order: each shard keeps slots of its own."""
        self._held = {new: self._held[old] for new, old in enumerate(order) if old in self._held}
        self._slots = len(order) // self._shards
        self.table = self.table[order]

    @property
    def held(self) -> int:
        """Pages that are held, of all shards."""
        return sum(pool.held for pool in self._pools)

    def _pages(self, cached: int) -> int:
        return -(-cached // self._page)

    def _shared(self, tokens: int) -> int:
        """Returns how many pages a prompt fills before the page of its last token."""
        return (tokens - 1) // self._page
