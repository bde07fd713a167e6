"""The lines that a command prints and, on a terminal, a live part below them: what goes on now.

    compiling the update: 8 x 16 x 128 tokens
      4/200  0.312   31.2%        -   0.842        0         0    5,120    1:02
    rollout: 128 of 512 completions, 12,345 tokens (0:14)            <- drawn anew, then gone

Anything that is not a terminal (a pipe, CI, nohup, a notebook) gets the lines only, without control
characters, and a line that says what goes on when nothing else has come for a while.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import TextIO

import rich.cells
import rich.console
import rich.live
import rich.text

from cegppo_jax.activity import Activity

SECONDS_BETWEEN_REDRAWS = 0.25
SECONDS_OF_SILENCE = 30.0  # in a log, before a line says what goes on
SECONDS_BETWEEN_LOOKS = 1.0  # at whether there has been such a silence

LivePart = Callable[[], list[rich.console.RenderableType]]


class Display:
    """Prints lines and shows an activity. A context manager: only within it is there a live part,
    or a watch for silence.
    """

    def __init__(
        self,
        activity: Activity,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
        watches: bool = True,
    ) -> None:
        """Prepares the display. Nothing is printed before the context is entered.

        Args:
            activity: what is shown.
            stream: where to print; standard output if None.
            clock: seconds that only rise; tests bring their own.
            watches: whether a thread calls `refresh` (on a terminal) or `look` (elsewhere) now and
                then; tests call them themselves.
        """
        self.clock = clock
        self._activity, self._watches = activity, watches
        self._stream = sys.stdout if stream is None else stream
        self._printed = clock()
        self._live: rich.live.Live | None = None
        self._below: LivePart | None = None  # of the live part, below what goes on
        self._prefix: Callable[[], str] = str
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Display:
        self._printed = self.clock()
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._activity.said_by(self.line))
            # Not rich's own test of a terminal: with FORCE_COLOR, which CI sets, it draws into a
            # pipe.
            console = rich.console.Console(file=self._stream)
            if self._stream.isatty() and not console.is_dumb_terminal:
                # Without its own thread, which outlives it
                self._live = rich.live.Live(
                    console=console, get_renderable=self._draw, auto_refresh=False, transient=True
                )
                self._live.start()
                stack.callback(self._stop_live)
                repeated = SECONDS_BETWEEN_REDRAWS, self.refresh
            else:
                repeated = SECONDS_BETWEEN_LOOKS, self.look
            if self._watches:
                stack.enter_context(_every(*repeated))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def line(self, text: str) -> None:
        """Prints a line of text."""
        self._printed = self.clock()
        if self._live is None:
            print(text, file=self._stream, flush=True)
        else:
            self._live.console.print(rich.text.Text(text), soft_wrap=True)

    @contextlib.contextmanager
    def showing(self, below: LivePart, prefix: Callable[[], str]) -> Iterator[None]:
        """Within this context, the live part also has `below()`, and lines that say what goes on
        begin with `prefix()`.
        """
        before = self._below, self._prefix
        self._below, self._prefix = below, prefix
        try:
            yield
        finally:
            self._below, self._prefix = before

    def refresh(self) -> None:
        """Draws the live part now. Needed before a line that replaces some of it, as printing
        repeats the part that was drawn last.
        """
        if self._live is not None:
            self._live.refresh()

    def look(self) -> None:
        """Prints what goes on, if nothing has been printed for SECONDS_OF_SILENCE."""
        words = self._activity.words()
        if words and self.clock() - self._printed >= SECONDS_OF_SILENCE:
            self.line(self._prefix() + words)

    def _stop_live(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _draw(self) -> rich.console.RenderableType:
        below = self._below() if self._below is not None else []
        words = self._activity.words()
        if self._live is not None:
            words = cut_before_time(words, self._live.console.width)
        return rich.console.Group(dim(words), *below)


def cut_before_time(words: str, width: int) -> str:
    """Cuts "compiling a long name (0:12)" to "compiling a l… (0:12)", which is `width` wide: a line
    without its time would stand still.
    """
    text, _, taken = words.rpartition(" ")
    if rich.cells.cell_len(words) <= width:
        return words
    return f"{rich.cells.set_cell_size(text, max(width - len(taken) - 2, 0))}… {taken}"


def dim(text: str) -> rich.text.Text:
    """Returns a line of the live part that is cut to the terminal's width."""
    return rich.text.Text(text, "dim", no_wrap=True, overflow="ellipsis")


@contextlib.contextmanager
def _every(seconds: float, call: Callable[[], None]) -> Iterator[None]:
    """Within this context, a thread calls `call` so often. Leaving it ends the thread at once."""
    leaving = threading.Event()

    def repeat() -> None:
        while not leaving.wait(seconds):
            call()

    thread = threading.Thread(target=repeat, name="screen", daemon=True)
    thread.start()
    try:
        yield
    finally:
        leaving.set()
        thread.join()
