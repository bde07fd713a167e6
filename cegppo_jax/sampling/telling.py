"""Reports what the sampler compiles and decodes to a listener."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Hashable, Iterator

# Receives what is happening, and whether it begins something that may take minutes: see
# reporting/progress.py: Status.
Tell = Callable[[str, bool], None]


class Telling:
    """Passes on what the sampler does, once there is a listener."""

    def __init__(self) -> None:
        self._tell: Tell | None = None
        self._begun: set[Hashable] = set()

    @contextlib.contextmanager
    def to(self, tell: Tell) -> Iterator[None]:
        """Within this context, `tell` receives what is about to be compiled, and how far
        completions are.
        """
        before, self._tell = self._tell, tell
        try:
            yield
        finally:
            self._tell = before

    def compiling(self, program: Hashable, words: str) -> None:
        """Reports that a program is being compiled, when it is first needed."""
        if program not in self._begun and self._tell:
            self._tell(f"compiling {words}", True)
        self._begun.add(program)

    def decoding(self, running: int, waiting: int, tokens: int) -> None:
        """Reports how many completions are running and waiting, and how many tokens there are."""
        if self._tell:
            words = (
                f"{running:,} completions running, {waiting:,} waiting; {tokens:,} tokens so far"
            )
            self._tell(words, False)
