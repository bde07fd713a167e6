"""What a run is doing now: stages that begin and end. Screens show them, profiles name them.

The parts that work (sampler, actor, learner) say what they do, by setting an attribute. Those that
show it (reporting/screen.py) look at it when they like, from threads of their own. Nothing is
computed, fetched from a device or waited for on their behalf.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Any

import jax

# Stages of a step, which profiles have as events of these names.
ROLLOUT = "rollout"
SCORING = "scoring"
SETTLING = "last scores"  # of a rollout that a later step trains on
LOGPROBS = "log-probs"
UPDATE = "update"
EVALUATION = "evaluation"
CHECKPOINT = "checkpoint"

NamedLeaf = tuple[str, Any]  # path and array


@dataclasses.dataclass(frozen=True)
class Doing:
    """A stage that has begun and not ended."""

    name: str
    began: float  # seconds of the activity's clock
    detail: str = ""  # how far it is: "3 of 8"


class Activity:
    """The stages that are going on, one inside the other. One thread sets them, any may read."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.now: tuple[Doing, ...] = ()  # the outermost first; replaced and never changed
        self._say: Callable[[str], None] | None = None
        self._compiled: set[Hashable] = set()
        self.changes = 0  # of what goes on: it stands still where the program does

    @contextlib.contextmanager
    def during(self, name: str, say: bool = False) -> Iterator[None]:
        """Within this context, the stage `name` goes on. `say`: its beginning is worth a line."""
        before = self.now
        self.changes += 1
        if say and self._say is not None:
            self._say(name)
        self.now = (*before, Doing(name, self.clock()))
        try:
            with jax.profiler.TraceAnnotation(name):
                yield
        finally:
            self.now = before

    def at(self, detail: str) -> None:
        """Says how far the innermost stage is."""
        self.changes += 1
        if self.now:
            self.now = (*self.now[:-1], dataclasses.replace(self.now[-1], detail=detail))

    def compiling(self, program: Hashable, words: str) -> contextlib.AbstractContextManager[None]:
        """Returns the context of a program's call: the first one, which compiles it, is a stage."""
        if program in self._compiled:
            return contextlib.nullcontext()
        self._compiled.add(program)
        return self.during(f"compiling {words}", say=True)

    def loading(self, leaves: Iterable[NamedLeaf], whole_bytes: int) -> Iterator[NamedLeaf]:
        """Passes on (path, array) of a model's weights as they come, as a stage; `whole_bytes` is
        the size of all.
        """
        whole, loaded = f"{whole_bytes / 1e9:.3g} GB", 0
        with self.during(f"loading {whole} of weights", say=True):
            for path, leaf in leaves:
                loaded += leaf.nbytes
                yield path, leaf
                del leaf  # the caller may have released it
                self.at(f"{loaded / 1e9:.3g} GB loaded")

    @contextlib.contextmanager
    def said_by(self, say: Callable[[str], None]) -> Iterator[None]:
        """Within this context, `say` receives the beginnings that are worth a line."""
        before, self._say = self._say, say
        try:
            yield
        finally:
            self._say = before

    def progress(self) -> tuple[int, str]:
        """Returns how often what goes on has changed, and `words`."""
        return self.changes, self.words()

    def words(self) -> str:
        """Returns what goes on, how far it is and for how long: "rollout: 3 of 8 (0:12)". "" when
        nothing does.
        """
        doing = self.now
        if not doing:
            return ""
        names = ", ".join(one.name for one in doing)
        details = ", ".join(one.detail for one in doing if one.detail)
        text = f"{names}: {details}" if details else names
        return f"{text} ({minutes(self.clock() - doing[0].began)})"


def minutes(seconds: float) -> str:
    """Returns a duration as text: 0:07, 12:30, 1:02:03."""
    whole = int(seconds)
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"
