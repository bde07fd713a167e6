"""--profile_steps: a trace of some steps of training, for XProf, TensorBoard or Perfetto.

The stages of a step (cegppo_jax/activity.py) are events of the trace, within one event a step.
"""

from __future__ import annotations

import contextlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import jax

from cegppo_jax.activity import Activity
from cegppo_jax.distributed import is_main

FOLDER = "profile"  # in the run's directory


def read_profiled_steps(text: str | None, steps: int, name: str = "steps") -> range:
    """Reads "3:5" as the steps 3, 4 and 5, and "3" as one; None as no step.

    Args:
      text: the flag.
      steps: of the run, which count from 1.
      name: of the setting that says how many, for messages.

    Raises:
      ValueError: it is not a range of steps of the run.
    """
    if text is None:
        return range(0)
    found = re.fullmatch(r"(\d+)(?::(\d+))?", text)
    if found is None:
        raise ValueError(f"--profile_steps={text}: give the first and the last step, as in 3:5")
    first, last = int(found[1]), int(found[2] or found[1])
    if not 1 <= first <= last:
        raise ValueError(
            f"--profile_steps={text}: steps count from 1, and the first comes before the last"
        )
    if last > steps:
        raise ValueError(
            f"--profile_steps={text}: the run ends with step {steps} ({name} = {steps})"
        )
    return range(first, last + 1)


class Profiler:
    """Traces some of a run's steps. A context manager: leaving it ends a trace that is going on."""

    def __init__(self, steps: range, workdir: Path, activity: Activity) -> None:
        """Args: steps: to trace, without gaps; may be empty."""
        own = steps if is_main() else range(0)  # one trace of several hosts
        self._steps, self._folder, self._activity = own, workdir / FOLDER, activity
        self._tracing, self._written = False, False

    def resumed(self, steps_done: int) -> str | None:
        """Returns what to say of steps that were to be traced and are over; None if there are
        none.
        """
        missed = [step for step in self._steps if step <= steps_done]
        if not missed:
            return None
        left = [step for step in self._steps if step > steps_done]
        what = f"only {_words(left)}" if left else "nothing"
        return (
            f"--profile_steps: the run goes on after step {steps_done}, so that {what} of "
            f"{_words(self._steps)} will be traced"
        )

    @contextlib.contextmanager
    def step(self, step: int) -> Iterator[None]:
        """Around a step: traces it, if it is one of them."""
        if step not in self._steps:
            yield
            return
        if not self._tracing:
            self._start()
        with jax.profiler.StepTraceAnnotation("step", step_num=step):
            yield
        if step == self._steps[-1]:
            self._stop()

    def closing_words(self) -> str | None:
        """Returns where the trace is and how to look at it; None if none was written."""
        if not self._written:
            return None
        [*_, trace] = sorted(self._folder.glob("plugins/profile/*/perfetto_trace.json.gz"))
        folder = shlex.quote(str(self._folder))
        return (
            f"profile            pip install xprof && xprof --logdir={folder}\n"
            f"                   or open {trace} in https://ui.perfetto.dev"
        )

    def __enter__(self) -> Profiler:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._tracing:
            self._stop()

    def _start(self) -> None:
        options = jax.profiler.ProfileOptions()
        options.python_tracer_level = 0  # every Python call: it would hide the rest
        self._folder.mkdir(parents=True, exist_ok=True)
        jax.profiler.start_trace(self._folder, create_perfetto_trace=True, profiler_options=options)
        self._tracing = True

    def _stop(self) -> None:
        self._tracing = False
        with self._activity.during("writing the profile"):
            jax.profiler.stop_trace()
        self._written = True


def _words(steps: range | list[int]) -> str:
    return f"step {steps[0]}" if len(steps) == 1 else f"steps {steps[0]} to {steps[-1]}"
