"""What the sampler says while it compiles and decodes, to whoever listens."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Hashable, Iterator

# Hears what goes on, and whether something begins that may take minutes: see progress.Status.
Tell = Callable[[str, bool], None]


class Telling:
    """Passes on what the sampler does; to nobody, until someone listens."""

    def __init__(self) -> None:
        self._tell: Tell | None = None
        self._begun: set[Hashable] = set()

    @contextlib.contextmanager
    def to(self, tell: Tell) -> Iterator[None]:
        """Within it, `tell` hears what is compiled, before it is, and how far completions are."""
        before, self._tell = self._tell, tell
        try:
            yield
        finally:
            self._tell = before

    def compiling(self, program: Hashable, words: str) -> None:
        """Says that a program is compiled, when it is asked for the first time."""
        if program not in self._begun and self._tell:
            self._tell(f"compiling {words}", True)
        self._begun.add(program)

    def decoding(self, running: int, waiting: int, tokens: int) -> None:
        """Says how many completions are running and waiting, and how many tokens there are."""
        if self._tell:
            words = (
                f"{running:,} completions running, {waiting:,} waiting; {tokens:,} tokens so far"
            )
            self._tell(words, False)
