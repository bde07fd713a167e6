"""Commands that are killed (SIGKILL) at random moments and started again until they are done, and
what then differs from one that nobody killed.

A moment is counted in changes of the command's files, so that kills fall where something is being
written, whatever the machine's speed; then up to RANDOM_SECONDS pass. Commands are forks of one
process that has imported them all: that takes half the time of a command, and writes nothing.
"""

import contextlib
import dataclasses
import json
import math
import multiprocessing
import os
import runpy
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing import forkserver
from pathlib import Path
from unittest import mock

import child_runs
import jax
import numpy as np
import orbax.checkpoint as ocp
import psutil

from cegppo_jax.evaluation.files import read_attempts
from cegppo_jax.reporting.metrics import read_metrics, without_clock

COMMANDS = multiprocessing.get_context("forkserver")
RANDOM_SECONDS = 0.1  # some steps, or half a checkpoint
LOOK_SECONDS = 0.005
ARRAYS = ("checkpoints", "good_checkpoints", "warm_start", "reference")


@dataclasses.dataclass(frozen=True)
class Work:
    """A command that leaves a folder."""

    name: str
    words: Callable[[Path], list[str]]  # folder -> the command's name and arguments
    tree: bool = False  # it starts commands of its own, and sometimes they are killed with it


def train(recipe):
    """The words of `train` on a recipe of tests/."""
    return lambda folder: ["train", f"--config=tests/{recipe}.py", f"--workdir={folder}"]


SWEEP = """
import runpy
from cegppo_jax.sweeps.arms import seeds
QUESTION, PREDICTION, METRIC = "Is it?", "It is.", "evaluation/accuracy"
def base():
    config = runpy.run_path({recipe!r})["get_config"]()
    config.steps, config.warm_start.steps = 4, 8
    return config
def arms():
    return seeds(0, 1)
"""


def works(scratch):
    """All commands that write. `scratch` is a folder of what they read: the first one's run too."""
    sweep = scratch / "swept.py"
    sweep.write_text(SWEEP.format(recipe=str(child_runs.ROOT / child_runs.RECIPE)))
    many = "--config.evaluation.samples_per_problem=200"
    first = "train with a warm start"
    run = place(first, scratch)
    ahead = {"rollout_lag_steps": 1, "dynamic_sampling": "refill", "prompt_weighting": "difficulty"}
    ahead |= {"trained_prompts": 4, "minibatch_prompts": 2, "refill_prompts": 4, "max_refills": 2}
    ahead = [f"--config.batch.{name}={value}" for name, value in ahead.items()]
    ahead += ["--config.reward.pool.workers=1"]
    return [
        Work(first, train("tiny_recipe")),
        Work("train with guard, controller and KL reference", train("steered_recipe")),
        Work("train with carry-over", train("sampled_recipe")),
        Work("train with a rollout ahead", lambda f: [*train("tiny_recipe")(f), *ahead]),
        Work("supervised", lambda f: ["supervised", *train("tiny_recipe")(f)[1:]]),
        Work("evaluate", lambda f: ["evaluate", f"--run={run}", f"--out={f}", many]),
        Work("export", lambda f: ["export", f"--run={run}", f"--out={f}"]),
        Work("sweep", lambda f: ["sweep", str(sweep), "--run", "--jobs=2", f"--dir={f}"], True),
    ]


def work_named(name, scratch):
    [work] = [one for one in works(scratch) if one.name == name]
    return work


def place(name, scratch):
    """The folder of a work that nobody kills."""
    return scratch / "whole" / name.replace(" ", "_")


def prepare(cache):
    """Commands of this process will begin with all modules, and an environment of child_runs. Only
    the first call counts.
    """
    names = ("train", "supervised", "evaluate", "export", "sweep")
    with mock.patch.dict(os.environ, child_runs.environment(cache), clear=True):
        COMMANDS.set_forkserver_preload([f"cegppo_jax.{name}" for name in names])
        forkserver.ensure_running()


def begin(work, folder):
    """-> the process of a work; what it prints goes to a file beside the folder."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    printed = folder.with_name(f"{folder.name}.printed")
    child = COMMANDS.Process(target=run_command, args=(work.words(folder), printed))
    child.start()
    return child


def run_command(words, printed):
    """Runs a command of the package as `cegppo` does, in a process that is to do nothing else."""
    with printed.open("ab") as file:
        for number in (1, 2):
            os.dup2(file.fileno(), number)
    os.chdir(child_runs.ROOT)
    name, *sys.argv[1:] = words
    del sys.modules[f"cegppo_jax.{name}"]  # it becomes __main__
    runpy.run_module(f"cegppo_jax.{name}", run_name="__main__", alter_sys=True)


def finish(work, folder):
    """Runs a work to its end -> how often its files were seen to change. Raises AssertionError with
    what it printed.
    """
    child = begin(work, folder)
    changes = watch(child, folder, math.inf)
    child.join()
    printed = folder.with_name(f"{folder.name}.printed").read_text(errors="replace")
    assert child.exitcode == 0, f"{work.name}: exit code {child.exitcode}\n{printed[-3000:]}"
    return changes


def watch(child, folder, changes):
    """Waits until a folder has changed so often, or the process has ended -> how often it has."""
    seen, before = 0, state_of(folder)
    while child.is_alive() and seen < changes:
        time.sleep(LOOK_SECONDS)
        now = state_of(folder)
        seen, before = seen + (now != before), now
    return seen


def state_of(folder):
    """-> how many files there are in a folder and beside it, and their bytes together."""
    count, size = 0, 0
    waiting = [folder, folder.with_name(f"{folder.name}.partial")]
    while waiting:
        with contextlib.suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                count += 1
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                else:
                    size += entry.stat(follow_symlinks=False).st_size
    return count, size


def kill_once(work, folder, changes, moments):
    """Kills a work at the latest after so many changes -> whether it had not ended before."""
    child = begin(work, folder)
    watch(child, folder, moments.randint(1, max(1, changes)))
    time.sleep(moments.uniform(0, RANDOM_SECONDS))
    if not child.is_alive():
        return False
    below = psutil.Process(child.pid).children(recursive=True) if work.tree else []
    child.kill()
    child.join()
    if moments.random() < 0.5:
        for process in below:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
    return child.exitcode == -signal.SIGKILL


def kill_often(work, folder, changes, kills, moments):
    """Kills a work up to `kills` times and lets it end -> how often it was killed. A kill falls
    within the first part of as many of what an undisturbed one changes, `changes` in all, so that
    the others find something to kill.
    """
    done = 0
    for _ in range(kills):
        if not kill_once(work, folder, changes // kills, moments):
            break
        done += 1
    finish(work, folder)
    return done


def differences(folder, expected):
    """-> a line for each file or array of a work's folder that is not to the last bit what is
    expected, and for each line that is torn or there twice.
    """
    names, others = (
        {str(one.relative_to(top)) for one in files(top)} for top in (folder, expected)
    )
    found = [f"{name} is in one alone" for name in sorted(names ^ others)]
    for name in sorted(names & others):
        one, other = folder / name, expected / name
        if one.name == "metrics.jsonl":
            pair = [[without_clock(line) for line in read_metrics(p.parent)] for p in (one, other)]
        elif one.name == "completions.jsonl":  # in the order in which they ended
            pair = [sorted(read_attempts(p), key=place_of) for p in (one, other)]
        elif one.name == "evaluation.json":
            pair = [{**json.loads(p.read_text()), "seconds": None} for p in (one, other)]
        elif one.name in (".writer", "versions.json") or one.suffix in (".png", ".log"):
            continue
        else:
            pair = [one.read_bytes(), other.read_bytes()]
        if pair[0] != pair[1]:
            found.append(f"{name} differs")
    found += [bad for name in names if name.endswith(".jsonl") for bad in bad_lines(folder / name)]
    runs = {(folder / name).parent for name in names if name.endswith("metrics.jsonl")}
    for run in sorted(runs):
        found += array_differences(run, expected / run.relative_to(folder))
    return found


def files(top):
    """The files of a folder but for arrays of checkpoints, and what viewers read."""
    for path in top.rglob("*"):
        inside = path.relative_to(top).parts
        if path.is_file() and not {*ARRAYS, "tensorboard"} & set(inside[:-1]):
            yield path


def place_of(attempt):
    return attempt.problem, attempt.sample


def bad_lines(path):
    """-> a line for each torn or doubled line of a log."""
    seen = set()
    for number, raw in enumerate(path.read_bytes().splitlines(keepends=True), start=1):
        try:
            line = json.loads(raw)
            whole = raw.endswith(b"\n")
        except ValueError:
            whole = False
        if not whole:
            yield f"{path.name}, line {number} is torn"
        elif raw in seen or (
            path.name == "metrics.jsonl" and (line["phase"], line["step"]) in seen
        ):
            yield f"{path.name}, line {number} is there twice"
        else:
            seen |= {raw, (line.get("phase"), line.get("step"))}


def array_differences(run, expected):
    """-> a line for each checkpoint, or array of one, in which two runs differ in a bit."""
    steps, others = ({one.name for one in whole(top)} for top in (run, expected))
    found = [f"checkpoint {step} is in one alone" for step in sorted(steps ^ others)]
    for step in sorted(steps & others):
        one, other = (arrays_of(top / "checkpoints" / step) for top in (run, expected))
        found += [
            f"checkpoint {step}: {name} differs"
            for name in sorted(one.keys() | other.keys())
            if one.get(name) != other.get(name)
        ]
    return found


def whole(run):
    """The folders of a run's complete checkpoints."""
    return [one for one in (run / "checkpoints").glob("*") if one.name.isdigit()]


def arrays_of(checkpoint):
    """-> dtype, shape and bytes of each array of a checkpoint, and its position, by name. A rollout
    ahead has readings of a clock, of which the position's digest is made as well.
    """
    position = json.loads((checkpoint / "position" / "metadata").read_text())
    del position["checks"]["position"]
    if "ahead" in position:
        position["ahead"]["metrics"] = without_clock(position["ahead"]["metrics"])
    found = {"position": position}
    for item in ("state", "arrays"):
        if not (checkpoint / item).is_dir():
            continue
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
            tree = reader.metadata(checkpoint / item).item_metadata.tree
            kinds = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
            restored = reader.restore(
                checkpoint / item, args=ocp.args.PyTreeRestore(restore_args=kinds)
            )
        for path, leaf in jax.tree.leaves_with_path(restored):
            array = np.asarray(leaf)
            name = f"{item}{jax.tree_util.keystr(path)}"
            found[name] = array.dtype.str, array.shape, array.tobytes()
    return found
