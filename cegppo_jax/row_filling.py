"""Which sequences go into which row."""

from __future__ import annotations

from collections.abc import Sequence

PromptTokens = tuple[int, ...]


def first_fit(lengths: Sequence[int], row_tokens: int) -> list[list[int]]:
    """Returns rows of sequence indices: longest first, each in the first row with room."""
    nothing_shared = [()] * len(lengths)
    return _filled(_longest_first(lengths), nothing_shared, lengths, row_tokens)[-1]


def first_fit_sharing(
    prompts: Sequence[PromptTokens], lengths: Sequence[int], row_tokens: int
) -> list[list[int]]:
    """Returns rows of sequence indices for rows in which equal prompts stand once: each sequence in
    the first row with room that has its prompt, or else in the first row with room for both.

    Longest first fills rows best, prompt after prompt shares most: of the two orders, the one that
    needs fewer rows, and then fewer tokens.

    Args:
      prompts: of each sequence.
      lengths: of each sequence, its prompt included.
    """
    longest_first = _longest_first(lengths)
    place_of: dict[PromptTokens, int] = {}  # of a prompt's longest sequence
    for place, index in enumerate(longest_first):
        place_of.setdefault(prompts[index], place)
    by_prompt = sorted(longest_first, key=lambda i: place_of[prompts[i]])
    orders = longest_first, by_prompt
    return min(_filled(order, prompts, lengths, row_tokens) for order in orders)[-1]


def _longest_first(lengths: Sequence[int]) -> list[int]:
    return sorted(range(len(lengths)), key=lambda i: -lengths[i])


def _filled(
    order: Sequence[int],
    prompts: Sequence[PromptTokens],
    lengths: Sequence[int],
    row_tokens: int,
) -> tuple[int, int, list[list[int]]]:
    """Puts sequences into rows in the given order. Returns the number of rows, minus the room that
    is left in them, and the rows: the least is the best.
    """
    rows: list[list[int]] = []
    room: list[int] = []
    held: list[set[PromptTokens]] = []  # prompts of each row
    for index in order:
        prompt, size = prompts[index], lengths[index]
        alone = size - len(prompt)
        beside = (r for r, free in enumerate(room) if free >= alone and prompt in held[r])
        anywhere = (r for r, free in enumerate(room) if free >= size)
        row = next(beside, None)
        row = next(anywhere, len(rows)) if row is None else row
        if row == len(rows):
            rows.append([])
            room.append(row_tokens)
            held.append(set())
        rows[row].append(index)
        room[row] -= alone if prompt in held[row] else size
        held[row].add(prompt)
    return len(rows), -sum(room), rows
