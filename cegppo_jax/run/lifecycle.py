"""What a run starts from and keeps: its newest checkpoints, the good ones that a rollback returns
to, and the reference policy.
"""

from __future__ import annotations

import contextlib
import dataclasses
import operator
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from cegppo_jax import distributed
from cegppo_jax.activity import CHECKPOINT, Activity
from cegppo_jax.compilation import keep_compiled_programs
from cegppo_jax.data.ends import describe_ends
from cegppo_jax.data.saved_tokenizer import save_tokenizer
from cegppo_jax.learner.learner import Learner
from cegppo_jax.learner.train_state import TrainState
from cegppo_jax.models.decoder import Params
from cegppo_jax.models.finite import check_finite
from cegppo_jax.reporting.closing import STEPS_SETTING
from cegppo_jax.reporting.screen import Display
from cegppo_jax.run import command_line
from cegppo_jax.run import directory as run_directory
from cegppo_jax.run.build import TrainingRun, build_run
from cegppo_jax.run.checkpoint import Checkpointer
from cegppo_jax.run.disk import check_disk
from cegppo_jax.run.hosts import check_same_run
from cegppo_jax.run.nothing_lost import check_resumable, save_and_mark
from cegppo_jax.run.one_writer import WriterLock
from cegppo_jax.run.position import RunPosition
from cegppo_jax.run.profile import Profiler
from cegppo_jax.run.retention import NO_MILESTONES, Milestones
from cegppo_jax.run.saved_model import TOKENIZER, save_model_description
from cegppo_jax.run.saved_params import restore_params
from cegppo_jax.run.settings import RunSettings, read_settings
from cegppo_jax.steering.guard import mark_candidate
from cegppo_jax.storage.mirror import (
    CHECKPOINTS,
    GOOD_CHECKPOINTS,
    REFERENCE,
    WARM_START,
    push_changes,
    real_place,
)


def prepare_run(
    config: ConfigDict,
    workdir: Path,
    command: str = "train",
    lock: WriterLock | None = None,
) -> TrainingRun:
    """Builds the run of a config, and claims `workdir` for it and for one command.

    Args:
      lock: of `workdir`, which it holds from now on; None: whoever calls keeps others out.

    Raises:
      ValueError, OSError: a setting, a file or the directory is wrong; nothing has been compiled or
        overwritten.
    """
    activity = Activity()
    distributed.report_progress(activity.progress)
    with Display(activity) as screen, activity.during("preparing the run"):
        return _prepare(config, workdir, command, lock, activity, screen)


def _prepare(
    config: ConfigDict,
    workdir: Path,
    command: str,
    lock: WriterLock | None,
    activity: Activity,
    screen: Display,
) -> TrainingRun:
    programs = keep_compiled_programs()
    settings = read_settings(config)
    screen.line(settings.arithmetic())
    resolved = config.to_dict() | {"command": command}
    for line in check_directory(config, workdir, command, lock)[1]:
        screen.line(line)
    run = build_run(settings, activity)
    try:
        screen.line(run.memory)
        steps = operator.attrgetter(STEPS_SETTING[command])(config)
        screen.line(f"disk: {check_disk(workdir, settings, run.model, run.mesh, steps)}")
        screen.line(programs)
        screen.line(describe_ends(run.ends.ids, run.problems.tokenizer))
        if distributed.is_main():
            if lock:
                lock.hold()
            built = {"cache": run.actor.sampler.cache}
            run_directory.claim(workdir, resolved, command_line.default_settings(), built)
            save_tokenizer(run.problems.tokenizer, workdir / TOKENIZER)
            generation = run.pretrained.generation if run.pretrained else {}
            save_model_description(workdir, run.model, run.ends.ids, generation)
            push_changes()
        check_same_run(workdir, resolved)
    except BaseException:
        run.actor.scorer.close()
        raise
    return run


def check_directory(
    config: ConfigDict, workdir: Path, command: str, lock: WriterLock | None
) -> tuple[int | None, list[str]]:
    """Checks that a run can begin or go on in `workdir`, and changes nothing there but the words
    of the lock. Returns the steps that it has taken (None: it has no checkpoint), and lines to
    print.

    Raises:
      ValueError, OSError: the directory holds something else, a damaged run, or another process
        writes to it.
    """
    resolved = config.to_dict() | {"command": command}
    lines = run_directory.check_claimable(workdir, resolved, command_line.default_settings())
    if lock and distributed.is_main():
        lock.hold_if_begun()
    name = STEPS_SETTING[command]
    return check_resumable(workdir, name, operator.attrgetter(name)(config)), lines


def is_complete(config: ConfigDict, workdir: Path, command: str = "train") -> bool:
    """Whether `workdir` holds the run of a config, with all its steps taken and its report drawn.
    Changes nothing.

    Raises:
      ValueError, OSError: as prepare_run.
    """
    settings = read_settings(config)
    reports = [workdir / f"report.{one}" for one in settings.logging.report_formats]
    if not workdir.is_dir() or not all(report.is_file() for report in reports):
        return False
    taken, _ = check_directory(config, workdir, command, None)
    return taken == operator.attrgetter(STEPS_SETTING[command])(config)


def resume_words(position: RunPosition, profiler: Profiler) -> Iterator[str]:
    """Yields the lines that say where a run goes on, if it does."""
    if position.step:
        yield f"resumed from the checkpoint of step {position.step}"
    if (words := profiler.resumed(position.step)) is not None:
        yield words


def is_due(step: int, every: int, last: int) -> bool:
    """Whether something happens at this step: at the last step and at every multiple of `every` (0:
    only at the last).
    """
    return step == last or (every > 0 and step % every == 0)


class Checkpoints:
    """The checkpoints of a run and, kept separately, those that a rollback returns to and those of
    its warm start, until it is over.
    """

    def __init__(
        self,
        workdir: Path,
        newest: Checkpointer,
        good: Checkpointer | None,
        warm_start: Checkpointer | None,
        activity: Activity,
    ):
        self.newest, self.warm_start = newest, warm_start
        self._workdir, self._good, self._activity = workdir, good, activity
        self._before: RunPosition | None = None  # of the save before
        self.saved_step = newest.latest_step()

    def go_on_from(self, step: int) -> None:
        """Forgets what a rollback could return to after the step that is gone on from: that of a
        run that was killed as it saved. Orbax writes no step before its latest, and says nothing.
        """
        self.saved_step = step
        if self._good:
            self._good.keep_only({one for one in self._good.steps() if one <= step})

    def save(
        self,
        state: TrainState,
        position: RunPosition,
        lines: Mapping[str, int],
        values: Mapping[str, Any],
    ) -> RunPosition:
        """Saves a checkpoint of a step with these metrics, which counts on these lines of logs, and
        returns the position. If rollback is enabled, also saves a rollback candidate, confirmed or
        rejected by the next entropy measurement.
        """
        with self._activity.during(CHECKPOINT):
            return self._save(state, position, lines, values)

    def _save(
        self,
        state: TrainState,
        position: RunPosition,
        lines: Mapping[str, int],
        values: Mapping[str, Any],
    ) -> RunPosition:
        if self._good:
            marked = mark_candidate(position.steering.guard, position.step)
            steering = dataclasses.replace(position.steering, guard=marked)
            position = dataclasses.replace(position, steering=steering)
            self._good.save(state, position)
            # Before the checkpoint that names it: a run that resumes must find it.
            self._good.wait()
        save_and_mark(self.newest, self._workdir, state, position, lines, values)
        self.saved_step = position.step
        if self.warm_start:
            self.newest.wait()  # before what it replaces is deleted
            self._forget_warm_start()
        if self._good and self._before:
            # The checkpoint before is complete, that of this step may never be.
            before = self._before
            good = before.steering.guard.last_good_step
            self._good.keep_only({good, before.step, position.step})
        self._before = position
        return position

    def _forget_warm_start(self) -> None:
        assert self.warm_start is not None
        self.warm_start.close()
        self.warm_start = None
        if distributed.is_main():
            real_place(self._workdir / WARM_START).rmtree()

    def save_at_stop(
        self, state: TrainState, position: RunPosition, lines: Mapping[str, int], good: bool
    ) -> int:
        """Saves where a run stops, whether a checkpoint is due there or not, waits for it and
        returns its step. The run that resumes there goes on as if it had not stopped: nothing
        becomes a candidate of a rollback, or the best. What is not `good` is not saved.
        """
        with self._activity.during(CHECKPOINT):
            if good and self.saved_step != position.step:
                save_and_mark(self.newest, self._workdir, state, position, lines)
                self.saved_step = position.step
            self.newest.wait()
        assert self.saved_step is not None  # a run begins with a checkpoint
        return self.saved_step

    def roll_back(self, learner: Learner, state: TrainState, position: RunPosition) -> TrainState:
        """Returns the last good checkpoint's parameters and optimizer state, with the present
        counts of steps and updates.
        """
        assert self._good is not None
        good_step = position.steering.guard.last_good_step
        with self._activity.during(f"going back to the checkpoint of step {good_step}"):
            restored = self._good.restore(learner.state_layout(), good_step)
        assert restored is not None
        return dataclasses.replace(restored[0], step=state.step, updates=state.updates)


@contextlib.contextmanager
def open_checkpoints(
    settings: RunSettings, workdir: Path, activity: Activity
) -> Iterator[Checkpoints]:
    """Opens a run's checkpoints. On leaving, waits for the last save and closes them."""
    with contextlib.ExitStack() as stack:

        def opened(
            name: str, keep: int | None, milestones: Milestones = NO_MILESTONES
        ) -> Checkpointer:
            return stack.enter_context(Checkpointer(workdir / name, keep, milestones))

        newest = opened(CHECKPOINTS, settings.checkpoint.keep, settings.checkpoint.milestones)
        warm_start = None
        if newest.latest_step() is None and settings.warm_start.steps:
            warm_start = opened(WARM_START, settings.checkpoint.keep)
        elif distributed.is_main():  # killed before it was deleted
            real_place(workdir / WARM_START).rmtree(missing_ok=True)
        good = opened(GOOD_CHECKPOINTS, None) if settings.steering.guard.rollback else None
        if good:
            # Beyond the newest are those of a run that was killed as it saved: Orbax writes no step
            # before its latest, and says nothing.
            start = newest.latest_step()
            good.keep_only({step for step in good.steps() if start is not None and step <= start})
        yield Checkpoints(workdir, newest, good, warm_start, activity)
        with activity.during(CHECKPOINT):
            newest.wait()


def open_reference(run: TrainingRun, workdir: Path) -> Params | None:
    """Returns the parameters of step 0 as a separate copy, if the KL to them is needed; else
    None.
    """
    if run.settings.loss.kl_place == "none":
        return None
    params = restore_params(workdir / REFERENCE, run.learner.state_layout().params)
    check_finite(params, str(real_place(workdir / REFERENCE)))
    return params
