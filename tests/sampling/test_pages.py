"""The host's book of pages, alone: whatever comes and goes, no page has two owners."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sampler_cases import SETTINGS

from cegppo_jax.sampling.pages import PageBook, PagePool

PAGE, SHARDS = 4, 2
SIZES = dataclasses.replace(SETTINGS, cache="paged", page_tokens=PAGE, slots=8, pages=20)
PROMPT_TOKENS = (1, 4, 5, 8, 7)
MOVES = st.lists(
    st.tuples(st.sampled_from(["enter", "grow", "leave"]), st.integers(0, 7), st.integers(1, 19)),
    max_size=60,
)


class Tracked:
    """A book, and the cached tokens of each slot by a plain dict."""

    def __init__(self):
        self.book, self.cached, self.prompt = PageBook(SIZES, SHARDS), {}, {}

    def move(self, kind, number, tokens):
        slot = list(self.cached)[number % len(self.cached)] if self.cached else None
        if kind == "enter":
            prompt = number % len(PROMPT_TOKENS)
            cached = PROMPT_TOKENS[prompt] - 1 + tokens % 5
            free = [one for one in range(SIZES.slots) if one not in self.cached]
            found = self.book.seat(free, prompt, PROMPT_TOKENS[prompt], cached)
            if found is None:
                return
            self.book.enter(found, prompt, PROMPT_TOKENS[prompt])
            assert self.book.grow(found, cached)  # what was promised
            self.cached[found], self.prompt[found] = max(cached, 1), prompt
        elif slot is not None and kind == "grow":
            if self.book.grow(slot, tokens):
                self.cached[slot] = max(tokens, self.cached[slot])
        elif slot is not None:
            self.book.leave(slot)
            del self.cached[slot], self.prompt[slot]

    def check(self):
        owners = {}
        first = 1  # 4 slots of a shard have their spare places in one page of 4
        for slot, row in enumerate(self.book.table):
            count = int((row > 0).sum())
            assert (row[:count] > 0).all()  # no gap
            if slot not in self.cached:
                assert count == 0
                continue
            prompt = self.prompt[slot]
            shared = (PROMPT_TOKENS[prompt] - 1) // PAGE
            wanted = max(-(-self.cached[slot] // PAGE), shared + 1)
            assert count == wanted
            for place, page in enumerate(row[:count].tolist()):
                assert first <= page < first + SIZES.pages // SHARDS
                whose = ("prompt", prompt, place) if place < shared else ("slot", slot, place)
                name = self.book.shard_of(slot), page
                assert owners.setdefault(name, whose) == whose
        assert len(owners) == self.book.held  # nothing is lost


@given(MOVES)
def test_no_page_has_two_owners_and_none_is_lost(moves):
    tracked, again = Tracked(), Tracked()
    for one in moves:
        tracked.move(*one)
        tracked.check()
        again.move(*one)
        np.testing.assert_array_equal(tracked.book.table, again.book.table)  # the same each time
    for slot in tracked.cached:
        tracked.book.leave(slot)
    assert tracked.book.held == 0


def test_a_prompts_pages_are_copied_once_a_shard_and_shared():
    """The page of the last token is each sample's own: its first step writes there."""
    book = PageBook(SIZES, SHARDS)
    prompt, tokens = 7, 8  # the last token is at place 7, on page 1
    first, second = book.enter(0, prompt, tokens), book.enter(1, prompt, tokens)
    other = book.enter(4, prompt, tokens)  # of the other shard
    assert [one.page_of_prompt for one in first] == [0, 1]
    assert [one.page_of_prompt for one in second] == [1]
    assert [(one.shard, one.page_of_prompt) for one in other] == [(1, 0), (1, 1)]
    assert book.table[0, 0] == book.table[1, 0]
    assert book.table[0, 1] != book.table[1, 1]
    book.leave(0)
    assert book.held == 4
    assert [one.page_of_prompt for one in book.enter(2, prompt, tokens)] == [1]  # still there
    for slot in (1, 2):
        book.leave(slot)
    assert [one.page_of_prompt for one in book.enter(3, prompt, tokens)] == [0, 1]


def test_samples_enter_only_where_those_that_run_can_go_on():
    """A sample needs 2 of 6 pages, and leaves one more to each that runs in its shard."""
    sizes = dataclasses.replace(SIZES, pages=12, max_completion_tokens=4)  # 6 a shard
    book, slots = PageBook(sizes, SHARDS), []
    for prompt in range(8):
        found = book.seat([one for one in range(8) if one not in slots], prompt, 5, 5)
        if found is None:
            break
        book.enter(found, prompt, 5)
        slots.append(found)
    assert len(slots) == 4  # 2 of 2 pages a shard: a third would leave none of 6 for another page


def test_a_sample_goes_to_the_shard_that_holds_its_prompt():
    book = PageBook(SIZES, SHARDS)
    book.enter(4, 7, 8)
    assert book.seat([0, 5], 7, 8, 8) == 5
    assert book.seat([0, 5], 8, 8, 8) == 0  # most pages are free there


def test_narrowed_slots_keep_their_pages():
    book = PageBook(SIZES, SHARDS)
    for slot in (3, 6):
        book.enter(slot, slot, 5)
    rows = book.table.copy()
    book.narrow([3, 0, 6, 7])
    np.testing.assert_array_equal(book.table, rows[[3, 0, 6, 7]])
    assert [book.shard_of(slot) for slot in range(4)] == [0, 0, 1, 1]
    book.leave(2)
    book.leave(0)
    assert book.held == 0


def test_a_pool_gives_no_more_than_it_has():
    pool = PagePool(range(1, 4))
    pages = pool.take(2)
    with pytest.raises(ValueError, match=r"2 pages .* 1 are free"):
        pool.take(2)
    pool.share(pages)
    pool.give_back(pages)
    assert (pool.free, pool.held) == (1, 2)
    pool.give_back(pages)
    assert pool.free == 3
    with pytest.raises(KeyError):
        pool.give_back(pages)
